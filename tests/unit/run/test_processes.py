"""How many processes are allowed, and what is said of one that ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerState
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from conviction.core.errors import ConfigError, OutOfMemory
from conviction.core.files import write_json
from conviction.core.records import to_json
from conviction.run.launch import Job, ProcessLost, _fault
from conviction.run.prepared import Machine
from conviction.run.processes import choose_num_processes, describe_processes
from conviction.run.recipe import load_recipe

CPU = Machine(torch.device("cpu"), "float32", 2)
GPU = Machine(torch.device("cuda"), "float32", 2)
DIGITS = load_recipe("digits")


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


def test_auto_is_one_for_each_gpu(two_gpus: None) -> None:
    assert choose_num_processes("auto", GPU, DIGITS) == 2
    assert choose_num_processes("auto", CPU, DIGITS) == 1
    assert choose_num_processes(2, GPU, DIGITS) == 2
    assert choose_num_processes(3, CPU, DIGITS) == 3


def test_more_processes_than_gpus_are_refused(two_gpus: None) -> None:
    with pytest.raises(ConfigError, match=r"torch finds 2, but got processes=3.*fit\.device=cpu"):
        choose_num_processes(3, GPU, DIGITS)


@pytest.mark.parametrize("wanted", [0, -1, "two", True])
def test_what_is_no_number_of_processes_is_refused(wanted: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"but got {wanted!r}")):
        choose_num_processes(wanted, CPU, DIGITS)


def test_views_that_are_kept_are_one_processs(two_gpus: None) -> None:
    recipe = load_recipe(
        "digits", {"fit.fixed_views": 2, "network.freeze": "all_but_head", "augment": ["horizontal_flip"]}
    )
    assert choose_num_processes("auto", GPU, recipe) == choose_num_processes(1, CPU, recipe) == 1
    with pytest.raises(ConfigError, match=r"fit\.fixed_views keeps what a single process computes.*processes=2"):
        choose_num_processes(2, CPU, recipe)


def test_a_compiled_step_is_one_processs(two_gpus: None) -> None:
    recipe = load_recipe("digits", {"fit.compile": "fused"})
    assert choose_num_processes("auto", GPU, recipe) == choose_num_processes(1, CPU, recipe) == 1
    with pytest.raises(ConfigError, match=r"cannot compile the training step.*processes=2.*fit\.compile=none"):
        choose_num_processes(2, CPU, recipe)


def test_each_process_has_a_gpu_of_its_own() -> None:
    assert GPU.of_rank(1).device == torch.device("cuda", 1)
    assert CPU.of_rank(1) == CPU


def test_more_processes_than_cores_are_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conviction.run.processes.num_cores", lambda: 2)
    assert describe_processes(Machine(torch.device("cpu"), "float32", 2, num_processes=2)) is None
    found = describe_processes(Machine(torch.device("cpu"), "float32", 2, num_processes=3))
    assert found is not None
    assert "3 processes share 2 processor cores" in found


def failed(**failures: tuple[int, int]) -> RunResult:
    """Exit code and second of the end, by rank."""
    made = {}
    for name, (exitcode, timestamp) in failures.items():
        rank = int(name.removeprefix("rank"))
        made[rank] = ProcessFailure(rank, 1, exitcode, "none")
        made[rank].timestamp = timestamp
    return RunResult(WorkerState.FAILED, failures=made)


def job(folder: Path) -> Job:
    return Job(str(folder / "2026-11-21-digits-4aed65"), None, 2, 1, str(folder))


def test_a_killed_process_is_the_reason_and_not_what_it_does_to_others(tmp_path: Path) -> None:
    write_json(tmp_path / "0.json", {"kind": "run", "message": "Connection closed by peer"})
    found = _fault(job(tmp_path), failed(rank0=(1, 5), rank1=(-9, 5)), tmp_path)
    assert isinstance(found, ProcessLost)
    assert "Process 2 of 2 was ended by SIGKILL" in str(found)
    assert "conviction resume 2026-11-21-digits-4aed65" in str(found)


def test_the_fault_of_one_process_keeps_its_kind(tmp_path: Path) -> None:
    write_json(tmp_path / "1.json", {"kind": "out_of_memory", "message": "The memory is used up."})
    found = _fault(job(tmp_path), failed(rank0=(1, 6), rank1=(1, 5)), tmp_path)
    assert isinstance(found, OutOfMemory)
    assert str(found) == "The memory is used up."


def test_a_fault_of_our_own_shows_the_log_of_the_first_that_failed(tmp_path: Path) -> None:
    for rank in (0, 1):
        log = tmp_path / "logs" / "conviction_x" / "attempt_0" / str(rank) / "stderr.log"
        log.parent.mkdir(parents=True)
        log.write_text(f"Traceback of {rank}\n")
    found = _fault(job(tmp_path), failed(rank0=(1, 6), rank1=(1, 5)), tmp_path)
    assert str(found) == "Process 2 of 2 failed:\nTraceback of 1"


def test_a_job_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_json(tmp_path / "job.json", to_json(job(tmp_path)))
    assert Job.read(tmp_path / "job.json") == job(tmp_path)
