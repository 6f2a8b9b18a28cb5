"""A run whose training step is compiled, from the command to its files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conviction.core.run_folder import RunFolder, list_run_folders
from conviction.fit.compiled import compiler_command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which(compiler_command()) is None, reason="there is no C++ compiler"),
]
SAME_BYTES = ("history.jsonl", "best.safetensors", "last.safetensors")
# Dropout, augmentation and running statistics: all that a compiler might draw or change otherwise.
RECIPE = """
name: compiled
data: digits
augment: [{name: random_crop, padding_px: 1}]
network: {preset: digits, dense: [{units: 32, dropout: 0.4, normalization: batch}]}
fit: {epochs: 12, batch_size: 100, compile: fused, precision: float32}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "compiled.yaml"
    path.write_text(RECIPE)
    return path


def start(home: Path, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    """In a process of its own: type checks, which tests put around every function, would be compiled too."""
    return subprocess.Popen(
        [sys.executable, "-m", "conviction", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "CONVICTION_HOME": str(home), **environment},
    )


def finish(process: subprocess.Popen[str]) -> str:
    """What it says."""
    with process:
        try:
            _, err = process.communicate(timeout=280)
        finally:
            process.kill()
    assert process.returncode == 0, err
    return err


def run_in(home: Path) -> RunFolder:
    (folder,) = list_run_folders(home)
    return folder


def recorded(folder: RunFolder) -> str:
    return str(json.loads(folder.environment.read_text())["compile"])


def test_a_killed_run_goes_on_with_the_same_bits(tmp_path: Path, recipe: Path) -> None:
    said = finish(start(tmp_path / "whole", "train", recipe))
    assert "Compiled it in" in said
    whole = run_in(tmp_path / "whole")
    assert recorded(whole) == "fused"
    process = start(tmp_path / "killed", "train", recipe)
    while not list((tmp_path / "killed").glob("*/history.jsonl")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = run_in(tmp_path / "killed")
    before = killed.read_summary()
    assert before.epochs < 12
    # Nothing that was compiled before is there any more.
    said = finish(start(tmp_path / "killed", "resume", killed.id, CONVICTION_CACHE=str(tmp_path / "another")))
    # Its seconds count in no epoch.
    assert "Compiled it in" in said
    assert killed.read_summary().preparation_s > before.preparation_s + 1
    assert any((tmp_path / "another" / "compiled").iterdir())
    for name in SAME_BYTES:
        assert (whole.path / name).read_bytes() == (killed.path / name).read_bytes(), name
    assert "_orig_mod" not in (killed.path / "last.safetensors").read_bytes().decode("latin-1")
    finish(start(tmp_path / "killed", "evaluate", killed.id))


def test_a_broken_compiler_leaves_the_run_as_it_would_be(tmp_path: Path, recipe: Path) -> None:
    few = ("--set", "fit.epochs=2")
    said = finish(start(tmp_path / "broken", "train", recipe, *few, CXX="/bin/false"))
    assert said.count("The training step is not compiled (") == 1
    finish(start(tmp_path / "plain", "train", recipe, *few, "--set", "fit.compile=none"))
    broken, plain = run_in(tmp_path / "broken"), run_in(tmp_path / "plain")
    assert recorded(broken) == recorded(plain) == "none"
    for name in SAME_BYTES:
        assert (broken.path / name).read_bytes() == (plain.path / name).read_bytes(), name
