"""`conviction`, with a file of what happened when: started by start_and_epoch.py.

    python benchmarks/clocked_command.py ASKED UNTIL FILE train RECIPE …

ASKED is the clock's time at which the process was asked for; `start` as UNTIL ends it behind the first step. Each line
of FILE is a name and a number: seconds since ASKED, or what the name says.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Both are modules that the command needs as well.
from conviction.__main__ import main
from conviction.cli import progress


def clocked(asked: float, until: str, file: Path) -> type[progress.PlainWatcher]:
    """A watcher that does what the command's own does, and writes."""
    said = file.open("a", buffering=1)

    def since_asked() -> float:
        return time.time() - asked

    class Clock(progress.PlainWatcher):
        def started(self, summary, num_epochs, folder):  # type: ignore[no-untyped-def]
            super().started(summary, num_epochs, folder)
            said.write(f"prepared {since_asked()}\n")

        def step(self, epoch, num_done, num_steps):  # type: ignore[no-untyped-def]
            if (epoch, num_done) == (1, 1):
                said.write(f"first_step {since_asked()}\n")
                if until == "start":
                    os._exit(0)
            super().step(epoch, num_done, num_steps)

        def epoch(self, record, timing, is_best):  # type: ignore[no-untyped-def]
            super().epoch(record, timing, is_best)
            said.write(f"epoch_{record.epoch}_s {timing.train_s + timing.validation_s}\n")
            said.write(f"peak_memory_bytes {timing.peak_memory_bytes}\n")

    return Clock


if __name__ == "__main__":
    progress.watcher = clocked(float(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
    sys.argv[:] = ["conviction", *sys.argv[4:]]
    main()
