"""The clock beside the command, and what is made of what it says."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import share_of_ceiling
import start_and_epoch


def clocked(until: str, file: Path, *settings: str) -> subprocess.CompletedProcess[str]:
    training = ["train", "digits", *(f"--set={setting}" for setting in settings)]
    command = [sys.executable, str(start_and_epoch.COMMAND), str(time.time()), until, str(file), *training]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def said(file: Path) -> dict[str, float]:
    return {name: float(value) for name, value in (line.split() for line in file.read_text().splitlines())}


@pytest.mark.slow
def test_the_command_says_when_it_took_its_first_step(tmp_path: Path) -> None:
    began = time.time()
    done = clocked("start", tmp_path / "said")
    assert done.returncode == 0, done.stderr
    found = said(tmp_path / "said")
    # Validation of the untrained network is epoch 0.
    assert "epoch_1_s" not in found
    assert 0 < found["prepared"] <= found["first_step"] <= time.time() - began
    assert "1/30" not in done.stderr, "it went on"


@pytest.mark.slow
def test_the_command_trains_to_its_end(tmp_path: Path) -> None:
    done = clocked("end", tmp_path / "said", "fit.epochs=2")
    assert done.returncode == 0, done.stderr
    assert "Validation  " in done.stdout
    found = said(tmp_path / "said")
    assert found["epoch_1_s"] > 0
    assert found["epoch_2_s"] > 0
    assert found["peak_memory_bytes"] > 1e8
    # A wrong argument is answered as the command answers it.
    assert clocked("end", tmp_path / "said", "fit.epochs=many").returncode == 2


def test_a_share_stands_with_its_smallest_and_largest() -> None:
    assert share_of_ceiling.spread([0.7, 0.9, 0.8]) == {"median": 0.8, "smallest": 0.7, "largest": 0.9}
