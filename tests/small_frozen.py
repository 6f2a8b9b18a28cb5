"""Trainings on digits whose first layers are frozen, in about a second each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from conviction import Run, train
from conviction.fit.watcher import Watcher
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.recipe import load_recipe

# Dropout and batch normalisation on both sides of the cut.
RECIPE: dict[str, Any] = {
    "name": "head",
    "seed": 3,
    "data": "digits",
    "split": {"validation": 0.2, "test": 0.2},
    "network": {
        "blocks": [
            {"filters": 8, "normalization": "batch", "pooling": {}, "dropout": 0.3},
            {"filters": 8, "normalization": "batch", "dropout": 0.3},
        ],
        "dense": [{"units": 16, "dropout": 0.3}],
        "freeze": 1,
    },
    "optimizer": {"name": "adamw", "learning_rate": 0.01},
    "fit": {"epochs": 2, "batch_size": 100, "precision": "float32", "threads": 1, "gradient_clip_norm": 1.0},
}

AUGMENTED: dict[str, Any] = {"augment": [{"name": "random_crop", "padding_px": 1}], "network.freeze": 1}


class Notes(Watcher):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


class Stages(Notes):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, int, int]] = []

    def stage(self, name: str, num_done: int, total: int) -> None:
        self.seen.append((name, num_done, total))


class NoRoom:
    free = 1000


def trained(overrides: dict[str, Any] | None = None, **settings: Any) -> tuple[Run, list[str]]:
    notes = Notes()
    return train(RECIPE | settings, overrides, watcher=notes), notes.texts


def weights(run: Run, name: str = "last") -> dict[str, torch.Tensor]:
    return load_file(run.folder.weights(name))


def losses(run: Run) -> list[float]:
    scores = [score for one in run.history for score in (one.train, one.train_fixed, one.validation)]
    return [score.loss for score in scores if score is not None]


def kept_sets(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "cache" / "frozen").glob("*/about.json"))


def prepared_for(overrides: dict[str, Any]) -> Prepared:
    recipe = load_recipe(RECIPE, overrides)
    return prepare(recipe, Machine.for_recipe(recipe))
