"""One of several processes of a training: `python -m conviction.run.worker JOB`, as `launch` starts it."""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from conviction.core.errors import ConvictionError, StorageError, TrainingDiverged
from conviction.core.files import write_json
from conviction.core.ledger import Ledger
from conviction.core.records import EpochRecord, Status, Timing
from conviction.core.run_folder import RunFolder
from conviction.fit.distributed import process_group
from conviction.fit.watcher import Watcher
from conviction.run.faults import training_faults
from conviction.run.launch import Job
from conviction.run.model import load_standardization
from conviction.run.prepared import Machine, prepare
from conviction.run.recipe import load_recipe
from conviction.run.recorded_training import Training, network_to_go_on_with
from conviction.run.relay import Sender
from conviction.run.starting import build_trainer

_LOOK_EVERY_S = 0.1
_MOST_TRIES = 10


def main() -> NoReturn:
    """Train this process's share. What ends all processes alike is no failure of this one."""
    job, rank = Job.read(Path(sys.argv[1])), int(os.environ["RANK"])
    threading.Thread(target=_end_with, args=(job,), daemon=True).start()
    # All are on this machine: nothing is to be heard or found on a network.
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    os.environ |= {"GLOO_SOCKET_IFNAME": loopback, "NCCL_SOCKET_IFNAME": loopback}
    code = 0
    try:
        watcher = Sender(job.pipe) if rank == 0 else Watcher()
        train_share(RunFolder(Path(job.run)), job, rank, watcher)
    except ConvictionError as error:
        # Nobody reads it any more where the process above is gone, and its folder with it.
        with suppress(StorageError):
            write_json(job.fault_file(rank), {"kind": error.kind, "message": error.message})
        # The first process still has figures to draw; an exit code would have it stopped.
        code = 0 if isinstance(error, TrainingDiverged) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if os.getppid() != job.launcher:
        _leave_nothing(job)
    # Without what Python and torch do at an end, which waits for processes that may be gone.
    os._exit(code)


def train_share(folder: RunFolder, job: Job, rank: int, watcher: Watcher) -> None:
    """This process's part in a run that has been begun, and that the process above holds.

    Raises: ConvictionError, as `resume` does.
    """
    recipe, summary = load_recipe(folder.recipe), folder.read_summary()
    with training_faults(recipe):
        machine = Machine.recorded(folder, recipe, job.num_processes).of_rank(rank)
        prepared = prepare(recipe, machine, standardization=load_standardization(folder))
        with process_group(machine.device) as share:
            # What is to be said of it, the process above has said.
            network = network_to_go_on_with(folder, prepared, Watcher())
            trainer = build_trainer(prepared, network, share, on_device=True)
            ledger = Ledger.beside(folder.path.parent, job.ledger_url)
            kind = _Leader if rank == 0 else _Follower
            training = kind(folder, prepared, (network, trainer), ledger, watcher, summary)
            training.restore()
            training.run()


class _Leader(Training):
    """The work of the first process: it writes all but that it failed.

    Where another process is gone it fails for that reason alone, which only the process above knows.
    """

    def _set_status(self, status: Status, message: str = "") -> None:
        if status != "failed":
            super()._set_status(status, message)


class _Follower(Training):
    """The work of a process that is not the first: it computes, and writes nothing."""

    def run(self) -> None:
        """Train to the end."""
        self._prepared.machine.engage()
        self._run_epochs()

    def _keep(self, record: EpochRecord, timing: Timing) -> None:
        self._history.append(record)

    def _publish(self) -> bool:
        return False


def _end_with(job: Job) -> None:
    """End at once when the process that started this one is gone, whatever ended it."""
    while os.getppid() == job.launcher:
        time.sleep(_LOOK_EVERY_S)
    _leave_nothing(job)
    os._exit(1)


def _leave_nothing(job: Job) -> None:
    """Remove what the process above would have removed."""
    # The other processes do the same at the same time, or write there for a last time.
    for _ in range(_MOST_TRIES):
        shutil.rmtree(job.messages, ignore_errors=True)
        if not Path(job.messages).exists():
            return
        time.sleep(_LOOK_EVERY_S)


if __name__ == "__main__":
    main()
