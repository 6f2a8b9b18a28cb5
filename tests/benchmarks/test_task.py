"""The clock that every peer is measured by, and the networks that they train."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peers.arrays import read_arrays, write_arrays
from peers.pictures import take, write_start
from peers.run_conviction import overrides
from peers.task import Clock, Task
from peers.torch_network import build, build_from
from PIL import Image
from record import child_environment

from conviction.nets import PRESETS, build_network
from pictures import write_class_folders

TASK = Task("lab-c", "alexnet-cifar10", "", "", 0, 2, 3, 0.0, batch_size=10)
PRESET = {"lab-c": "alexnet-cifar10", "lab-a-bn": "convnet-bn"}


def test_the_clock_runs_from_the_warm_up_to_the_last_step(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "perf_counter", lambda: now)
    monkeypatch.setattr(time, "time", lambda: now)
    waited: list[float] = []
    clock = Clock(replace(TASK, started=90.0), lambda: waited.append(now))
    for loss in (5.0, 4.0, 3.0, 2.0, 1.0):
        now += 7.0 if loss > 3 else 2.0
        clock.step_done(loss)
    clock.report(versions={})
    found = json.loads(capsys.readouterr().out)
    # Three steps of ten pictures in six seconds; the first step ended 17 s after it was asked for.
    assert found == {"images_per_s": 5.0, "first_step_s": 17.0, "mean_loss": 3.0, "versions": {}}
    assert waited == [114.0, 120.0]


def test_too_few_steps_are_noticed() -> None:
    clock = Clock(TASK)
    for _ in range(4):
        clock.step_done()
    with pytest.raises(AssertionError, match="4 steps instead of 5"):
        clock.report(1.0)


@pytest.mark.parametrize("name", PRESET)
def test_the_peers_network_is_ours(name: str) -> None:
    preset = PRESETS[PRESET[name]]
    ours, theirs = build_network(preset.config, (3, 32, 32), 10), build(name)
    shapes = [[tuple(parameter.shape) for parameter in network.parameters()] for network in (ours, theirs)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        for one, other in zip(theirs.parameters(), ours.parameters(), strict=True):
            one.copy_(other)
        images = torch.randn(4, 3, 32, 32)
        # With batch statistics: the order of normalisation, pooling and activation shows.
        assert torch.allclose(ours.train()(images), theirs.train()(images), atol=1e-5)


def test_all_begin_with_the_weights_that_we_begin_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pictures = write_class_folders(tmp_path / "cifar10" / "train", {str(n): 6 for n in range(10)}, (32, 32)).parent
    write_class_folders(tmp_path / "cifar10" / "test", {str(n): 20 for n in range(10)}, (32, 32))
    take(pictures, tmp_path / "taken", 37)
    files = [sorted(path.iterdir()) for path in sorted((tmp_path / "taken" / "train").iterdir())]
    assert [len(each) for each in files] == [4] * 7 + [3] * 3
    write_arrays(tmp_path / "taken")
    images, labels = read_arrays(tmp_path / "taken")
    assert labels.tolist() == [label for label, each in enumerate(files) for _ in each]
    with Image.open(files[2][1]) as picture:
        assert (images[9] == np.asarray(picture.convert("RGB"))).all()
    task = replace(TASK, folder=str(tmp_path / "taken"), seed=3)
    write_start(task.recipe, overrides(task), tmp_path / "start.npz")
    network, difference = build_from("lab-c", str(tmp_path / "start.npz"))
    assert difference < 1e-5
    assert network.training
    # Another seed, other weights.
    write_start(task.recipe, overrides(replace(task, seed=4)), tmp_path / "other.npz")
    first, other = (np.load(tmp_path / name)["weight_0"] for name in ("start.npz", "other.npz"))
    assert not np.allclose(first, other)


def test_measured_processes_may_keep_compiled_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.setenv("CONVICTION_CACHE", "former")
    found = child_environment(CONVICTION_CACHE="new")
    assert "PYTHONDONTWRITEBYTECODE" not in found
    assert (found["CONVICTION_CACHE"], found["PATH"]) == ("new", os.environ["PATH"])
