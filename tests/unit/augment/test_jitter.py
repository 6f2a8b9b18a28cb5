"""Colour jitter: the order of its parts, of each image its own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from draws import changed, seeded

# A range of one value each, so that the order alone is drawn; strong, so that every order gives another picture.
PARTS: dict[str, tuple[float, Callable[[Tensor, float], Tensor]]] = {
    "brightness": (1.5, functional.adjust_brightness),
    "contrast": (0.5, functional.adjust_contrast),
    "saturation": (1.8, functional.adjust_saturation),
    "hue": (0.2, functional.adjust_hue),
}


def picture() -> Tensor:
    return torch.rand((3, 6, 5), generator=Generator().manual_seed(1))


def expected_by_order(names: tuple[str, ...]) -> dict[tuple[str, ...], Tensor]:
    """torchvision's functions one after the other, in every order."""
    found = {}
    for order in itertools.permutations(names):
        image = picture()
        for name in order:
            value, change = PARTS[name]
            image = change(image, value)
        found[order] = image
    return found


def settings(names: tuple[str, ...]) -> dict[str, Any]:
    return {name: [PARTS[name][0]] * 2 if name in names else 0 for name in PARTS}


@pytest.mark.parametrize("names", [names for num in range(1, 5) for names in itertools.combinations(PARTS, num)])
def test_each_image_has_an_order_of_its_own_all_equally_likely(names: tuple[str, ...]) -> None:
    expected = expected_by_order(names)
    num = 100 * len(expected)
    found = changed("color_jitter", picture().expand(num, -1, -1, -1), **settings(names))
    off = torch.stack([(found - one).flatten(1).abs().amax(dim=1) for one in expected.values()])
    assert float(off.amin(dim=0).max()) < 2e-5
    # Pictures of different orders may be the same, where the parts do not hinder each other.
    is_same = torch.stack([off[:, row] < 2e-5 for row in range(num)], dim=1)
    if int(is_same.sum()) == num and len(expected) > 1:
        assert stats.chisquare(is_same.sum(dim=1).numpy()).pvalue > 1e-3


def test_all_24_orders_give_pictures_of_their_own() -> None:
    """So that the test above tells them apart."""
    images = list(expected_by_order(tuple(PARTS)).values())
    assert len(images) == 24
    assert min((one - other).abs().max() for one, other in itertools.combinations(images, 2)) > 1e-3


def test_factors_are_drawn_for_each_image_whatever_its_order() -> None:
    """Of grey pictures, of which saturation and hue change nothing."""
    grey = torch.full((2000, 3, 1, 1), 0.4)
    jitter = {"brightness": [0.5, 1.5], "contrast": 0, "saturation": [0.2, 0.9], "hue": 0.3}
    factors = changed("color_jitter", grey, seeded(3), **jitter)[:, 0, 0, 0] / 0.4
    assert stats.kstest(factors.numpy(), "uniform", (0.5, 1.0)).pvalue > 1e-3
    neighbours = stats.spearmanr(factors[:-1].numpy(), factors[1:].numpy()).statistic
    assert abs(neighbours) < 4 / 2000**0.5
