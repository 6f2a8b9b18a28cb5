"""Draws of augmentations, and what is asked of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy import stats
from torch import Generator, Tensor

from conviction.augment import AUGMENTATIONS, build_augmentations
from conviction.augment.base import Placement
from conviction.data.stream import Draw

NUM = 4000
Size = tuple[int, int]
# Read by the ratio of two differences: the factor by which a contrast, or a colour, has grown.
TWO_GREYS = torch.tensor([0.4, 0.6]).view(1, 1, 1, 2).expand(NUM, 3, 1, 2)
COLOUR = torch.tensor([0.6, 0.5, 0.4]).view(1, 3, 1, 1).expand(NUM, 3, 1, 1)


def seeded(seed: int = 0, epoch: int = 1, rows: Tensor | None = None) -> Draw:
    return Draw(Generator().manual_seed(seed), epoch, rows)


def changed(name: str, images: Tensor, draw: Draw | None = None, **settings: Any) -> Tensor:
    config: Any = AUGMENTATIONS[name].config(**settings)
    augment = build_augmentations([config], (images.shape[1], images.shape[2], images.shape[3]), 2)
    return augment(images, torch.arange(len(images)) % 2, draw or seeded())[0]


def matrices(name: str, size_px: Size, /, **settings: Any) -> Tensor:
    config: Any = AUGMENTATIONS[name].config(**settings)
    placement = AUGMENTATIONS[name].build(config)
    assert isinstance(placement, Placement)
    return placement.matrices(NUM, size_px, seeded()).double()


def only(part: str, value: Any) -> dict[str, Any]:
    """A jitter of one part."""
    return {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, part: value}


def assert_uniform(found: Tensor, low: float, high: float) -> None:
    # The ends themselves may be passed by the rounding of what is read from pixels.
    assert low - 1e-3 * (high - low) <= float(found.min())
    assert float(found.max()) <= high + 1e-3 * (high - low)
    assert stats.kstest(found.flatten().double().numpy(), "uniform", (low, high - low)).pvalue > 1e-3


def assert_independent(one: Tensor, other: Tensor) -> None:
    """As far as a rank correlation sees it; four sampling errors."""
    assert abs(stats.spearmanr(one.numpy(), other.numpy()).statistic) < 4 / math.sqrt(len(one))
