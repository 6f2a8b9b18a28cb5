"""What happens in the first of several processes, told to the watcher in the process that started them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from conviction.core.records import EpochRecord, RunSummary, Timing, from_json, to_json
from conviction.fit.watcher import Watcher

_STEP_EVERY_S = 0.1
_CHUNK_BYTES = 1 << 16


class Sender(Watcher):
    """Writes what happens into a named pipe, a line of JSON each."""

    def __init__(self, pipe: Path) -> None:
        self._pipe = os.open(pipe, os.O_WRONLY)
        self._last_step = 0.0

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        self._send("started", to_json(summary), num_epochs, folder)

    def note(self, text: str) -> None:
        self._send("note", text)

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        now = time.monotonic()
        if num_done == num_steps or now - self._last_step >= _STEP_EVERY_S:
            self._last_step = now
            self._send("step", epoch, num_done, num_steps)

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        self._send("epoch", to_json(record), to_json(timing), is_best)

    def _send(self, *message: Any) -> None:
        line = json.dumps(message).encode() + b"\n"
        while line:
            line = line[os.write(self._pipe, line) :]


class Receiver:
    """Reads what a `Sender` wrote, and tells a watcher, in the thread that asks it to."""

    def __init__(self, pipe: Path, watcher: Watcher) -> None:
        os.mkfifo(pipe)
        self._pipe = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        self._watcher = watcher
        self._rest = b""

    def deliver(self) -> None:
        """Tell all that has arrived; does not wait."""
        while found := self._read():
            *lines, self._rest = (self._rest + found).split(b"\n")
            for line in lines:
                self._tell(*json.loads(line))

    def close(self) -> None:
        """Read no more."""
        os.close(self._pipe)

    def _read(self) -> bytes:
        try:
            return os.read(self._pipe, _CHUNK_BYTES)
        except BlockingIOError:
            return b""

    def _tell(self, what: str, *message: Any) -> None:
        if what == "started":
            summary, num_epochs, folder = message
            self._watcher.started(from_json(RunSummary, summary), num_epochs, folder)
        elif what == "epoch":
            record, timing, is_best = message
            self._watcher.epoch(from_json(EpochRecord, record), from_json(Timing, timing), is_best)
        else:
            getattr(self._watcher, what)(*message)
