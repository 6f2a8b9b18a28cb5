"""On a GPU: it computes what a processor computes, and the next step does not wait for the one before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from conviction import Run, resume, train
from conviction.core import rng
from conviction.core.device import CompileMode
from conviction.core.run_folder import list_run_folders
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.random_pictures import with_random_pictures
from conviction.run.recipe import Recipe, load_recipe
from conviction.run.starting import build_trainer

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

GPU = "cuda"
SETTINGS: dict[str, Any] = {
    "schedule": {"name": "constant"},
    "augment": [{"name": "random_crop", "padding_px": 1}],
    # Without dropout, which a GPU draws otherwise.
    "network": {"blocks": [{"filters": 16, "pooling": {}}, {"filters": 32, "pooling": {}}], "dense": [{"units": 64}]},
    "fit": {
        "epochs": 3,
        "batch_size": 32,
        "precision": "float32",
        "device": GPU,
        "compile": "none",
        "memory_format": "channels_last",
    },
}


def made_ready(recipe: Recipe, num_steps: int) -> Prepared:
    machine = Machine.for_recipe(recipe)
    machine.engage()
    return with_random_pictures(recipe, (3, 32, 32), 10, machine, num_steps)


def losses(run: Run) -> list[float]:
    return [one.validation.loss for one in run.history]


@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("name", ["alexnet-cifar10", "speed-cifar10-quick"])
def test_no_step_waits_for_the_one_before(name: str, resident: bool) -> None:
    """torch itself raises an error where anything waits for the GPU."""
    settings = {"fit.batch_size": 64, "fit.device": GPU, "fit.compile": "none", "optimizer.lookahead": {}}
    recipe = load_recipe(name, settings)
    trainer = build_trainer(made_ready(recipe, 8), on_device=resident)
    assert (trainer.train.on_device is not None) == resident

    def on_step(done: int, total: int) -> None:
        # What is made at the first step, such as the optimiser's state, may wait, and so may the end of an epoch.
        torch.cuda.set_sync_debug_mode("error" if done < total - 1 else "default")

    try:
        trainer.train_epoch(1, on_step)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_pictures_that_are_kept_on_the_gpu_are_those_that_are_sent() -> None:
    recipe = load_recipe("digits", SETTINGS)
    kept = build_trainer(prepare(recipe, Machine.for_recipe(recipe)), on_device=True).train
    sent = replace(kept, on_device=None)
    for one, other in zip(*(stream.shuffled(rng.generator(0, "gpu")) for stream in (kept, sent)), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)
        assert one.images.device.type == GPU


def test_a_gpu_learns_what_a_processor_learns() -> None:
    gpu, cpu = train("digits", SETTINGS), train("digits", {**SETTINGS, "fit.device": "cpu"})
    assert losses(gpu)[0] == pytest.approx(losses(cpu)[0], rel=1e-5)
    assert losses(gpu)[1] == pytest.approx(losses(cpu)[1], rel=1e-2)
    rounded = train("digits", {**SETTINGS, "fit.precision": "bfloat16"})
    assert losses(rounded)[0] == pytest.approx(losses(cpu)[0], rel=1e-2)
    assert losses(rounded)[-1] < losses(rounded)[0] / 2


def test_a_run_of_a_gpu_is_evaluated_and_goes_on() -> None:
    run = train("digits", {**SETTINGS, "fit.epochs": 2})
    assert run.evaluate().accuracy > 0.5
    recipe, summary = run.folder.recipe, run.path / "run.json"
    recipe.write_text(recipe.read_text().replace("epochs: 2", "epochs: 3"))
    summary.write_text(json.dumps({**json.loads(summary.read_text()), "status": "interrupted"}))
    found = losses(resume(run))
    assert found == pytest.approx(losses(train("digits", SETTINGS)), rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fused", "cuda_graphs"])
def test_compiled_steps_have_the_same_losses(mode: CompileMode, tmp_path: Path) -> None:
    """In processes of their own: type checks, which tests put around every function, would be compiled too."""
    plain, compiled = (trained_by_command(tmp_path / wanted, wanted) for wanted in ("none", mode))
    # A network that cannot be compiled would be recorded as uncompiled.
    assert json.loads((compiled / "environment.json").read_text())["compile"] == mode
    first, second = (
        [json.loads(line)["validation"]["loss"] for line in (folder / "history.jsonl").read_text().splitlines()]
        for folder in (plain, compiled)
    )
    # Rounding parts them, as another number of threads does.
    assert second[1] == pytest.approx(first[1], rel=1e-2)
    assert second == pytest.approx(first, rel=0.1)


def trained_by_command(home: Path, mode: str) -> Path:
    home.mkdir()
    recipe = home / "recipe.yaml"
    recipe.write_text(load_recipe("digits", {**SETTINGS, "fit.compile": mode}).to_yaml())
    command = [sys.executable, "-m", "conviction", "train", str(recipe)]
    subprocess.run(command, check=True, timeout=500, env={**os.environ, "CONVICTION_HOME": str(home)})
    (folder,) = list_run_folders(home)
    return folder.path
