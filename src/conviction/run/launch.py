"""Several processes for one training, started and watched by the agent of torch's launcher, `torchrun`.

All of them are on this machine: they find each other by a store that listens on 127.0.0.1 alone. What they print goes
to files; what a person should see comes through a pipe or as one message.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.events.api import Event, EventSource
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.rendezvous.api import RendezvousHandler, RendezvousInfo, RendezvousStoreInfo

from conviction.core import errors
from conviction.core.errors import ConvictionError, RunError
from conviction.core.files import read_json, write_json
from conviction.core.records import from_json, to_json
from conviction.fit.watcher import Watcher
from conviction.run.relay import Receiver

_LOOPBACK = "127.0.0.1"
_POLL_S = 0.1
# The processes end at once when they are told to, unless the system keeps them from it.
_LONGEST_END_S = 10
_LINES_OF_LOG = 40


@dataclass(frozen=True)
class Job:
    """What the processes are told: the run's folder, whose they are, and a folder for messages."""

    run: str
    ledger_url: str | None
    num_processes: int
    launcher: int
    messages: str

    @classmethod
    def read(cls, path: Path) -> Job:
        """The job that `launch` wrote."""
        return from_json(cls, read_json(path))

    @property
    def pipe(self) -> Path:
        """Where the first process tells what happens."""
        return Path(self.messages) / "pipe"

    def fault_file(self, rank: int) -> Path:
        """Where a process says why it ends."""
        return Path(self.messages) / f"{rank}.json"


class ProcessLost(RunError):
    """One of the processes was killed."""


def launch(run: Path, num_processes: int, ledger_url: str | None, watcher: Watcher) -> None:
    """Train a run that has been begun on so many processes, until they end; none is left, however this ends.

    Raises: ProcessLost; the ConvictionError of a process; RuntimeError with the traceback of a fault of our own.
    """
    with tempfile.TemporaryDirectory(prefix="conviction-") as name:
        folder = Path(name)
        job = Job(str(run.resolve()), ledger_url, num_processes, os.getpid(), name)
        # It may hold a password; the folder is open to this user alone.
        write_json(folder / "job.json", to_json(job))
        receiver = Receiver(job.pipe, watcher)
        try:
            with _quiet_agent():
                result = _run_agent(job, folder, receiver)
            receiver.deliver()
        finally:
            receiver.close()
        if result.is_failed() or any(job.fault_file(rank).exists() for rank in range(num_processes)):
            raise _fault(job, result, folder)


def _run_agent(job: Job, folder: Path, receiver: Receiver) -> RunResult:
    with socket.socket() as listening:
        listening.bind((_LOOPBACK, 0))
        listening.listen()
        spec = WorkerSpec(
            role="conviction",
            local_world_size=job.num_processes,
            entrypoint=sys.executable,
            # Without the current folder among the places where modules are looked for.
            args=("-P", "-m", "conviction.run.worker", str(folder / "job.json")),
            rdzv_handler=_OneMachine(listening),
            max_restarts=0,
            monitor_interval=_POLL_S,
        )
        logs = DefaultLogsSpecs(log_dir=str(folder / "logs"), redirects=Std.ALL)
        result: RunResult = _Agent(spec, logs, receiver).run()
        return result


class _Agent(LocalElasticAgent):
    """torchrun's agent, which also delivers what the processes tell."""

    def __init__(self, spec: WorkerSpec, logs: DefaultLogsSpecs, receiver: Receiver) -> None:
        super().__init__(spec, logs_specs=logs, shutdown_timeout=_LONGEST_END_S)
        self._receiver = receiver

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        self._receiver.deliver()
        result: RunResult = super()._monitor_workers(worker_group)
        return result

    def _shutdown(self, death_sig: signal.Signals = signal.SIGTERM, timeout: int = _LONGEST_END_S) -> None:
        super()._shutdown(death_sig, timeout)
        # torch leaves open the logs of processes that had ended by themselves.
        for handler in getattr(self._pcontext, "subprocess_handlers", {}).values():
            for log in (handler._stdout, handler._stderr):
                log.close()

    def _construct_event(self, state: str, source: EventSource, *_: Any, **__: Any) -> Event:
        # torch's own asks the network for this machine's name. Nobody reads these events.
        return Event(state, source)


class _OneMachine(RendezvousHandler):
    """The meeting of one agent with itself."""

    def __init__(self, listening: socket.socket) -> None:
        self._port = listening.getsockname()[1]
        # torch closes what it is given; left to itself, it would listen to every network.
        handle = os.dup(listening.fileno())
        self._store = TCPStore(_LOOPBACK, self._port, is_master=True, wait_for_workers=False, master_listen_fd=handle)

    @property
    def use_agent_store(self) -> bool:
        return True

    def get_backend(self) -> str:
        return "static"

    def next_rendezvous(self) -> RendezvousInfo:
        return RendezvousInfo(self._store, 0, 1, RendezvousStoreInfo(_LOOPBACK, self._port))

    def is_closed(self) -> bool:
        return False

    def set_closed(self) -> None: ...

    def num_nodes_waiting(self) -> int:
        return 0

    def get_run_id(self) -> str:
        return "conviction"

    def shutdown(self) -> bool:
        return True


@contextmanager
def _quiet_agent() -> Iterator[None]:
    """Keep the agent from logging, and from answering signals in place of whoever called us."""
    noisy = [
        logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("torch.distributed")
    ]
    before = [logger.disabled for logger in noisy]
    signals = os.environ.get("TORCHELASTIC_SIGNALS_TO_HANDLE")
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = ""
    for logger in noisy:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(noisy, before, strict=True):
            logger.disabled = disabled
        if signals is None:
            del os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"]
        else:
            os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = signals


def _fault(job: Job, result: RunResult, folder: Path) -> Exception:
    """Why the training ended. Where one process is gone, the others fail for that reason alone."""
    killed = {rank: failure for rank, failure in result.failures.items() if failure.exitcode < 0}
    if killed:
        rank, failure = min(killed.items(), key=lambda item: item[1].timestamp)
        name = signal.Signals(-failure.exitcode).name
        hint = (
            " Where nobody did that, the memory was probably used up: lower fit.batch_size."
            if name == "SIGKILL"
            else ""
        )
        return ProcessLost(
            f"Process {rank + 1} of {job.num_processes} was ended by {name}, and the others were stopped.{hint} The "
            f"run is kept up to its last whole epoch; go on with: conviction resume {Path(job.run).name}"
        )
    for rank in range(job.num_processes):
        if (path := job.fault_file(rank)).exists():
            return _restored(json.loads(path.read_text(encoding="utf-8")))
    rank, _ = min(result.failures.items(), key=lambda item: item[1].timestamp)
    logs = sorted(folder.glob(f"logs/**/{rank}/stderr.log"))
    lines = [line for path in logs for line in path.read_text(errors="replace").splitlines()]
    return RuntimeError("\n".join([f"Process {rank + 1} of {job.num_processes} failed:", *lines[-_LINES_OF_LOG:]]))


def _restored(fault: dict[str, str]) -> ConvictionError:
    known = (errors.ConfigError, errors.DataError, errors.RunError, errors.LedgerError, errors.StorageError)
    others = (errors.TrainingDiverged, errors.OutOfMemory, errors.InstallationError)
    kinds: dict[str, type[ConvictionError]] = {kind.kind: kind for kind in (*known, *others)}
    return kinds.get(fault["kind"], RunError)(fault["message"])
