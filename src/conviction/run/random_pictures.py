"""Pictures made up at random, in place of a recipe's: for measuring how long it takes to train on them."""

from __future__ import annotations

import numpy as np

from conviction.data.pack import Pack
from conviction.data.split import Splits
from conviction.data.standardize import fit_standardization
from conviction.run.prepared import Machine, Prepared
from conviction.run.recipe import Recipe

_NUM_VALIDATION = 2


def with_random_pictures(
    recipe: Recipe, shape: tuple[int, int, int], num_classes: int, machine: Machine, num_steps: int
) -> Prepared:
    """Noise in place of the recipe's pictures (C, H, W), enough for an epoch of so many steps."""
    channels, height, width = shape
    num_train = num_steps * recipe.fit.batch_size
    count = num_train + _NUM_VALIDATION
    drawn = np.random.default_rng(recipe.seed)
    images = drawn.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    labels = np.arange(count) % num_classes
    pack = Pack(
        images=images,
        labels=labels.astype(np.int64),
        splits=np.full(count, -1),
        paths=tuple(map(str, range(count))),
        classes=tuple(map(str, range(num_classes))),
        digest="",
        shown_path="random pictures",
        skipped=(),
        notes=(),
    )
    rows = np.arange(count)
    splits = Splits(rows[:num_train], rows[num_train:], rows[:0])
    return Prepared(recipe, pack, splits, fit_standardization(recipe.standardize, images, splits.train), machine)
