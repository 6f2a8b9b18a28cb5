"""A run that was killed and resumed ends bit for bit as one that was never interrupted."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from command import conviction, start
from conviction import ConvictionError, Run, resume, train
from conviction.core.ledger import Ledger
from conviction.core.run_folder import RunFolder, list_run_folders

SAME_BYTES = ("history.jsonl", "best.safetensors", "last.safetensors", "filters.safetensors")
# Everything whose state could be lost: dropout, augmentation, moments, running statistics, a schedule with memory.
RECIPE = """
name: fragile
seed: 3
data: digits
augment: [{name: random_crop, padding_px: 1}, {name: horizontal_flip, p: 0.1}]
network: {preset: digits, dense: [{units: 64, dropout: 0.4, normalization: batch}]}
optimizer: {name: nadam, learning_rate: 0.003}
schedule: {name: plateau, patience_epochs: 0, warmup_epochs: 1.5}
stopping: {figure: validation_loss, patience_epochs: 6}
fit: {epochs: 8, batch_size: 100, gradient_clip_norm: 1.0, measure_train_fixed: true}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "fragile.yaml"
    path.write_text(RECIPE)
    return path


def assert_same_run(first: RunFolder, second: RunFolder) -> None:
    for name in SAME_BYTES:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes(), name
    assert first.read_summary().best == second.read_summary().best
    assert first.read_summary().status == second.read_summary().status


@pytest.mark.slow
def test_killed_at_many_random_moments(tmp_path: Path, recipe: Path) -> None:
    whole = train(recipe, home=tmp_path / "whole")
    num_kills = 0
    driver = Path(__file__).with_name("kill_driver.py")
    for trial in range(4):
        home = tmp_path / f"killed-{trial}"
        done = subprocess.run(
            [sys.executable, str(driver), str(home), str(trial), str(recipe), "9"],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        num_kills += int(done.stdout)
        (folder,) = list_run_folders(home)
        assert_same_run(whole.folder, folder)
        assert not list(folder.path.glob(".writing-*"))
        rows = Ledger.beside(home).epochs(folder.id)
        assert [row["validation_loss"] for row in rows] == [r.validation.loss for r in whole.history]
    assert num_kills >= 20


@pytest.mark.slow
def test_killed_command_goes_on_with_resume(tmp_path: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Two threads: how sums are divided among them must be the same after resuming.
    whole = train(recipe, {"fit.threads": 2}, home=tmp_path / "whole")
    home = tmp_path / "runs"
    process = start("train", recipe, "--set", "fit.threads=2")
    folder = _wait_for_epoch(home, 2)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert folder.read_summary().status == "crashed"
    (row,) = conviction("runs", "--json").json["runs"]
    assert (row["status"], row["best"]["validation"]["count"]) == ("crashed", 179)
    # The best weights can be used before anything is resumed.
    assert Run(folder).network("best") is not None

    finished = conviction("resume", folder.id, "--json")
    assert finished.code == 0, finished.err
    assert finished.json["best"]["validation"]["loss"] == whole.summary.best.validation.loss
    assert_same_run(whole.folder, folder)
    again = conviction("resume", folder.id, "--json")
    assert again.json["epochs"] == finished.json["epochs"]
    assert "nothing to resume" in again.err


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_run_says_so_and_goes_on(tmp_path: Path, recipe: Path, sign: signal.Signals) -> None:
    whole = train(recipe, home=tmp_path / "whole")
    process = start("train", recipe)
    folder = _wait_for_epoch(tmp_path / "runs", 1)
    process.send_signal(sign)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted" in err
    assert f"conviction resume {folder.id}" in err
    assert folder.read_summary().status == "interrupted"
    assert (folder.figures / "curves.png").exists()
    assert conviction("resume").code == 0
    assert_same_run(whole.folder, folder)


@pytest.mark.slow
def test_a_second_interruption_does_not_wait_and_loses_nothing(tmp_path: Path, recipe: Path) -> None:
    whole = train(recipe, home=tmp_path / "whole")
    process = start("train", recipe)
    folder = _wait_for_epoch(tmp_path / "runs", 1)
    # The second arrives while the first one's figures are drawn, or a little before or after.
    process.send_signal(signal.SIGINT)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "Interrupted" in err
    assert conviction("resume").code == 0
    assert_same_run(whole.folder, folder)


@pytest.mark.parametrize("pause_s", [0.03, 0.06, 0.1, 0.2, 0.4])
def test_an_interruption_while_the_program_starts_shows_no_traceback(pause_s: float) -> None:
    process = start("train", "digits")
    time.sleep(pause_s)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    # On a busy machine Python may still be reading its own modules, and says so with code 1.
    is_ours = re.search(r"conviction/(__main__|cli|core)", err) is not None
    if process.returncode == -signal.SIGINT or (process.returncode == 1 and not is_ours):
        pytest.skip("Python itself was not up yet")
    assert process.returncode == 130
    assert "Traceback" not in err


def _wait_for_epoch(home: Path, epoch: int) -> RunFolder:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for folder in list_run_folders(home):
            if folder.read_summary().epochs >= epoch:
                return folder
        time.sleep(0.02)
    raise AssertionError("the training did not get that far")


@pytest.mark.parametrize(
    ("device", "says"),
    [
        ("cuda", "began on a GPU and goes on only there, and torch finds no CUDA device here"),
        ("abacus", r"environment\.json is damaged: .*fit\.device"),
    ],
)
def test_a_run_of_another_device_is_not_resumed(device: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    run = train("digits", {"fit.epochs": 1})
    for file, change in (
        (run.path / "run.json", {"status": "interrupted"}),
        (run.folder.environment, {"device": device}),
    ):
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(ConvictionError, match=f"(?s){says}") as caught:
        resume(run)
    assert caught.value.kind == "run"
