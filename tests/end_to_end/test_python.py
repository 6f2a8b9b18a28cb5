"""Conviction from Python."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

import conviction
from conviction.core.errors import TrainingDiverged
from conviction.core.records import EpochRecord
from conviction.data.pack import load_pack
from conviction.data.split import divide
from conviction.fit.watcher import Watcher
from conviction.run.recipe import load_recipe
from pictures import write_class_folders


def test_train_returns_a_run(tmp_path: Path) -> None:
    run = conviction.train("digits", {"fit.epochs": 3})
    assert [record.epoch for record in run.history] == [0, 1, 2, 3]
    assert all(isinstance(record, EpochRecord) for record in run.history)
    assert run.best is not None
    evaluation = run.evaluate("test")
    assert (evaluation.count, evaluation.openings) == (359, 1)
    assert run.path == tmp_path / "runs" / run.id
    assert conviction.Run.open("latest").id == run.id


def test_predictions_agree_between_kinds_of_pictures(tmp_path: Path) -> None:
    run = conviction.train("digits", {"fit.epochs": 8})
    recipe = load_recipe("digits")
    pack = load_pack(recipe.data)
    rows = divide(pack, recipe.split, recipe.seed).validation
    images = np.array(pack.images[rows])
    from_numpy = run.predict(images)
    from_torch = run.predict(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert from_numpy == from_torch
    hits = sum(p.label == pack.classes[pack.labels[row]] for p, row in zip(from_numpy, rows, strict=True))
    assert run.best is not None
    assert hits == round(run.best.validation.accuracy * len(rows))


def test_unknown_names_are_refused_from_python_too() -> None:
    with pytest.raises(conviction.ConvictionError, match="Did you mean 'digits'"):
        conviction.train("digts")
    with pytest.raises(AttributeError):
        conviction.nonsense  # noqa: B018


def test_training_never_sees_the_test_split(tmp_path: Path) -> None:
    """Test pictures of pure noise change neither weights nor history, bit for bit."""
    settings = {"fit.epochs": 3, "data.image_size_px": 8, "network": "perceptron", "augment": ["horizontal_flip"]}
    weights = []
    for name, shade in (("plain", 100), ("noisy", 240)):
        root = tmp_path / name
        write_class_folders(root / "train", {"cat": 20, "dog": 20})
        write_class_folders(root / "test", {"cat": shade // 20, "dog": 7})
        run = conviction.train("simplecnn-artists", {**settings, "data.path": str(root)})
        tensors = run.network("last").state_dict()
        weights.append((tensors, [dataclasses.asdict(record) for record in run.history]))
    (first, first_history), (second, second_history) = weights
    assert first_history == second_history
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_same_seed_same_bits_and_another_seed_others() -> None:
    one, same, other = (
        conviction.train("digits", {"fit.epochs": 2, "seed": seed, "split.seed": 0}).path / "last.safetensors"
        for seed in (1, 1, 2)
    )
    assert one.read_bytes() == same.read_bytes() != other.read_bytes()


def test_divergence_keeps_the_best_weights() -> None:
    settings = {"optimizer": {"name": "sgd", "learning_rate": 1e30}, "schedule": "constant", "fit.epochs": 2}
    with pytest.raises(TrainingDiverged, match="epoch 1, step 2"):
        conviction.train("digits", settings)
    run = conviction.Run.open("latest")
    assert run.summary.status == "diverged"
    assert "epoch 1, step 2" in run.summary.message
    assert run.evaluate("validation").epoch == 0


def test_early_stopping_ends_the_run_and_keeps_the_best() -> None:
    settings = {"fit.epochs": 30, "stopping": {"figure": "validation_loss", "patience_epochs": 2}, "optimizer": "sgd"}
    run = conviction.train("digits", settings)
    summary = run.summary
    assert summary.status == "stopped_early"
    assert summary.best is not None
    assert summary.last is not None
    assert summary.last.epoch == summary.best.epoch + 2 < 30
    assert run.model("best").epoch == summary.best.epoch
    assert run.model("last").epoch == summary.last.epoch


def test_watcher_hears_of_everything() -> None:
    class Recorder(Watcher):
        def __init__(self) -> None:
            self.epochs: list[int] = []
            self.steps: list[tuple[int, int, int]] = []

        def step(self, epoch: int, num_done: int, num_steps: int) -> None:
            self.steps.append((epoch, num_done, num_steps))

        def epoch(self, record: EpochRecord, timing: object, is_best: bool) -> None:
            self.epochs.append(record.epoch)

    recorder = Recorder()
    conviction.train("digits", {"fit.epochs": 1, "fit.batch_size": 500}, watcher=recorder)
    assert recorder.epochs == [0, 1]
    # 1,079 pictures in batches of 500.
    assert recorder.steps == [(1, 1, 3), (1, 2, 3), (1, 3, 3)]


def test_class_missing_from_the_training_split_keeps_its_label(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos" / "train", {"ant": 10, "cat": 10})
    write_class_folders(tmp_path / "photos" / "test", {"ant": 3, "bee": 3, "cat": 3})
    run = conviction.train(
        "simplecnn-artists",
        {"data.path": str(tmp_path / "photos"), "data.image_size_px": 8, "network": "perceptron", "fit.epochs": 2},
    )
    assert run.summary.data.classes == ("ant", "bee", "cat")
    assert "train split has no pictures of 'bee'" in " ".join(run.summary.data.notes)
    found = run.evaluate("test")
    assert found.count == 9
    assert found.accuracy_by_class["bee"] == 0
