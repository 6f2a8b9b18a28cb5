"""One training on several processes: the same figures as on one, and an orderly end whatever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
import torch

from command import conviction, start
from conviction import Run, resume, train
from conviction.core.errors import ConfigError
from conviction.core.run_folder import RunFolder, list_run_folders
from conviction.fit.checkpoint import load_tensors
from conviction.run import training
from small_disk import small_disk

SAME_BYTES = ("history.jsonl", "best.safetensors", "last.safetensors", "filters.safetensors")
# Batches of 100: the last has 79 images, which 2 processes divide unevenly.
RECIPE = """
name: shared
seed: 3
data: digits
augment: [{name: random_crop, padding_px: 1}, {name: brightness, p: 0.3}]
network: {preset: digits, dense: [{units: 64, dropout: 0.4, normalization: batch}]}
optimizer: {name: nadam, learning_rate: 0.003}
schedule: {name: plateau, patience_epochs: 0, warmup_epochs: 1.5}
fit: {epochs: 4, batch_size: 100, gradient_clip_norm: 1.0, precision: float32, threads: 2}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "shared.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on two processes that nothing interrupted."""
    return train(recipe, processes=2, home=tmp_path_factory.mktemp("whole"))


def test_what_processes_cannot_share_is_refused_before_anything_is_measured(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    monkeypatch.setattr(training, "settle", lambda *of_a_training: measured.append(of_a_training))
    with pytest.raises(ConfigError, match=r"processes=101, fit\.batch_size=100 and"):
        train(recipe, processes=101, home=tmp_path)
    assert not measured
    assert not list_run_folders(tmp_path)


def workers(launcher: int) -> dict[int, int]:
    """The process number of each rank."""
    found = {}
    for path in Path("/proc").iterdir():
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) if path.name.isdigit() else 0
            if parent == launcher and b"conviction.run.worker" in (path / "cmdline").read_bytes():
                environment = (path / "environ").read_bytes().split(b"\0")
                found[int(next(entry[5:] for entry in environment if entry.startswith(b"RANK=")))] = int(path.name)
        except OSError:
            continue
    return found


def wait_until_gone(numbers: list[int]) -> None:
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{number}").exists() for number in numbers):
        assert time.monotonic() < deadline, "a process was left behind"
        time.sleep(0.05)


def started(recipe: Path, home: Path) -> tuple[subprocess.Popen[str], RunFolder, dict[int, int]]:
    """A command that trains on two processes and has one epoch behind it."""
    process = start("train", recipe, "--processes", 2)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for folder in list_run_folders(home):
            if folder.read_summary().epochs >= 1:
                return process, folder, workers(process.pid)
        time.sleep(0.02)
    raise AssertionError("the training did not get that far")


def assert_same_run(first: RunFolder, second: RunFolder) -> None:
    for name in SAME_BYTES:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    assert first.read_summary().best == second.read_summary().best


@pytest.mark.slow
def test_two_processes_reach_what_one_reaches(recipe: Path, tmp_path: Path) -> None:
    # Adam and its like make steps of rounding errors where gradients are zero.
    # So does another number of threads.
    options = {"optimizer": "sgd", "schedule": "constant", "fit.epochs": 1, "fit.threads": 1}
    alone, shared = (train(recipe, options, processes=number, home=tmp_path / str(number)) for number in (1, 2))
    assert (alone.summary.num_processes, shared.summary.num_processes) == (1, 2)
    for first, second in zip(alone.history, shared.history, strict=True):
        assert second.validation.loss == pytest.approx(first.validation.loss, rel=1e-5)
        assert second.validation.count == first.validation.count
    assert shared.last.train.loss == pytest.approx(alone.last.train.loss, rel=1e-6)
    assert shared.last.train.accuracy == alone.last.train.accuracy
    before = [load_tensors(run.folder.filters)[0]["before"] for run in (alone, shared)]
    assert torch.equal(*before)
    names = [list(load_tensors(run.folder.weights("last"))[0]) for run in (alone, shared)]
    assert names[0] == names[1]
    assert shared.summary.images_per_second > 0
    assert '"processes": 2' in shared.folder.environment.read_text()
    assert shared.evaluate("validation").loss == pytest.approx(shared.best.validation.loss, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_run_and_leaves_it_resumable(
    whole: Run, recipe: Path, tmp_path: Path, rank: int
) -> None:
    process, folder, numbers = started(recipe, tmp_path / "runs")
    os.kill(numbers[rank], signal.SIGKILL)
    killed_at = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed_at < 30
    wait_until_gone(list(numbers.values()))
    assert process.returncode == 2
    (message,) = [line for line in err.splitlines() if line.startswith("Error:")]
    assert f"Process {rank + 1} of 2 was ended by SIGKILL" in message
    assert f"conviction resume {folder.id}" in message
    assert err.rstrip().endswith(message)
    assert "Traceback" not in err
    assert folder.read_summary().status == "failed"
    assert (folder.figures / "curves.png").exists()

    finished = conviction("resume", folder.id, "--json")
    assert finished.code == 0, finished.err
    assert finished.json["processes"] == 2
    assert_same_run(whole.folder, folder)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_ends_with_all_its_processes(
    whole: Run, recipe: Path, tmp_path: Path, sign: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    own_temporary = tmp_path / "temporary"
    own_temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(own_temporary))
    process, folder, numbers = started(recipe, tmp_path / "runs")
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    wait_until_gone(list(numbers.values()))
    assert "Traceback" not in err
    assert not list(own_temporary.iterdir())
    if sign == signal.SIGKILL:
        assert folder.read_summary().status == "crashed"
    else:
        assert process.returncode == 130
        assert err.count("Error:") == 1
        assert f"go on with: conviction resume {folder.id}" in err
        assert folder.read_summary().status == "interrupted"
    resume(folder.path)
    assert_same_run(whole.folder, folder)


@pytest.mark.slow
def test_what_diverges_everywhere_is_said_once(recipe: Path, tmp_path: Path) -> None:
    options = ["optimizer={name: sgd, learning_rate: 1.0e+30}", "schedule=constant"]
    done = conviction("train", recipe, "--processes", 2, "--set", options[0], "--set", options[1])
    assert done.code == 2
    assert done.err.count("The loss became") == 1
    (folder,) = list_run_folders(tmp_path / "runs")
    assert folder.read_summary().status == "diverged"
    assert (folder.figures / "curves.png").exists()


@pytest.mark.slow
def test_a_full_disk_stops_all_processes_with_one_message(recipe: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "runs", "600k"):
        done = conviction("train", recipe, "--processes", 2, "--set", "network=perceptron", "--json")
    assert done.code == 2
    assert done.json["error"]["kind"] == "storage"
    assert "the disk is full" in done.json["error"]["message"]
    assert "Traceback" not in done.err


@pytest.mark.slow
def test_who_interrupts_before_the_first_epoch_is_told_of_the_run(recipe: Path, tmp_path: Path) -> None:
    process = start("train", recipe, "--processes", 2)
    deadline = time.monotonic() + 60
    while not workers(process.pid):
        assert time.monotonic() < deadline, "no process was started"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    (folder,) = list_run_folders(tmp_path / "runs")
    assert f"go on with: conviction resume {folder.id}" in err
    assert (process.returncode, folder.read_summary().status) == (130, "interrupted")


@pytest.mark.slow
def test_resuming_with_another_number_says_so(recipe: Path, tmp_path: Path) -> None:
    process, folder, _ = started(recipe, tmp_path / "runs")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    done = conviction("resume", "--processes", 1)
    assert done.code == 0, done.err
    assert "Trained on 2 processes before, on 1 from here" in done.err
    assert folder.read_summary().num_processes == 1
    assert folder.read_summary().status == "finished"


def test_faults_of_the_recipe_are_found_before_anything_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr("conviction.run.launch.launch", refuse)
    done = conviction("train", "simplecnn-artists", "--processes", 2, "--set", f"data.path={tmp_path / 'none'}")
    assert done.code == 2
    assert done.err.count("Error:") == 1
    assert not list_run_folders(tmp_path / "runs")
