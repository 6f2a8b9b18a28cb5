"""Conviction from Python."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
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


def test_grey_pictures_need_no_channel_axis() -> None:
    run = conviction.train("digits", {"fit.epochs": 1})
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    expected = run.predict(pictures)
    assert len(expected) == 3
    assert run.predict(pictures[..., 0]) == expected
    assert run.predict(torch.from_numpy(pictures[..., 0]).unsqueeze(1)) == expected
    assert run.predict(pictures[0, :, :, 0]) == run.predict(pictures[0])
    assert run.predict([picture[:, :, 0] for picture in pictures]) == expected
    assert run.predict(list(torch.from_numpy(pictures[..., 0]))) == expected
    assert run.predict([]) == []


def test_many_pictures_are_predicted_as_one_by_one() -> None:
    model = conviction.train("digits", {"fit.epochs": 1}).model()
    pictures = np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8)
    together = model.predict(pictures)
    assert len(together) == 300
    for index in (0, 127, 128, 256, 299):
        [alone] = model.predict(pictures[index])
        assert alone.label == together[index].label
        assert alone.probability == pytest.approx(together[index].probability, abs=1e-6)


# Run in a process of its own: in this one, the shape checks of the tests would speak first.
WRONG_TYPES = """
import sys
import numpy as np
import torch
import conviction

run = conviction.train("digits", {"fit.epochs": 1, "network": "perceptron"}, home=sys.argv[1])
calls = [
    lambda: conviction.train(3),
    lambda: conviction.train("digits", {3: 4}),
    lambda: run.evaluate(None),
    lambda: run.predict(None),
    lambda: run.predict(3),
    lambda: run.predict([None]),
    lambda: run.predict(np.zeros((8, 8))),
    lambda: run.predict(torch.zeros(1, 8, 8)),
    lambda: run.predict(np.zeros((2, 8, 8, 4), np.uint8)),
    lambda: run.predict(np.zeros((0, 8), np.uint8)),
    lambda: run.predict(np.zeros(8, np.uint8)),
]
for call in calls:
    try:
        print("accepted", call())
    except conviction.ConvictionError as error:
        print(error.message)
assert conviction.resume(run).id == conviction.Run.open(run).id == run.id
"""
_ARRAY = "A picture as an array has `uint8` values (0 to 255) and 1 or 3 channels"


def test_wrong_types_are_refused_in_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRONG_TYPES, str(tmp_path / "text")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    expected = [
        ("A recipe is a built-in name, a YAML file", "got int (3)."),
        ("An override's key is text", "got 3."),
        ("No split named None", "Known: test, train, validation."),
        ("A picture is a file's path", "got NoneType (None)."),
        ("A picture is a file's path", "got int (3)."),
        ("A picture is a file's path", "got NoneType (None)."),
        (_ARRAY, "got float64 of shape (8, 8)."),
        (_ARRAY, "got float32 of shape (1, 8, 8)."),
        (_ARRAY, "got uint8 of shape (8, 8, 4)."),
        (_ARRAY, "got uint8 of shape (0, 8)."),
        ("A picture is a file's path", "got uint8 (np.uint8(0))."),
    ]
    for line, (start, end) in zip(done.stdout.splitlines(), expected, strict=True):
        assert line.startswith(start), line
        assert line.endswith(end), line
    assert [folder.name for folder in (tmp_path / "text").iterdir() if folder.is_dir()] != []


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


def test_a_cut_travels_with_the_network_and_mixed_labels_train_it() -> None:
    """Lab C7: cut anywhere in training, from the middle afterwards; the saved network cuts by itself."""
    augment = [{"name": "crop_to", "size_px": 6}, {"name": "rotate", "degrees": 10.0}, {"name": "mixup"}]
    run = conviction.train("digits", {"fit.epochs": 2, "augment": augment})
    model = run.model()
    assert model.input_shape == (1, 6, 6)
    assert conviction.inspect(run.recipe).input == (1, 6, 6)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1), np.uint8)
    framed = pictures.copy()
    framed[:, [0, -1]], framed[:, :, [0, -1]] = 255, 255
    assert model.predict(pictures) == model.predict(framed)
    assert run.evaluate("validation").accuracy == run.best.validation.accuracy  # type: ignore[union-attr]


def test_a_whitening_of_whole_pictures_and_a_cut_do_not_go_together() -> None:
    with pytest.raises(conviction.ConvictionError, match="'pca' is fitted to whole pictures of 8×8, and augment cuts"):
        conviction.train("digits", {"standardize": "pca", "augment": [{"name": "crop_to", "size_px": 6}]})
