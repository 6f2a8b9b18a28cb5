"""Dropout decided by random bits is dropout."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from conviction.nets.dropout import BitDropout, with_bit_dropout
from conviction.nets.freezing import freeze


def dropped(p: float, images: Tensor, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return BitDropout(p)(images)


@pytest.mark.parametrize("p", [0.001, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_and_the_scale(p: float, dtype: torch.dtype) -> None:
    count = 400_000
    found = dropped(p, torch.ones(count, dtype=dtype))
    # Five standard deviations of a binomial share, and what rounding to a 65,536th may move it.
    assert float((found == 0).float().mean()) == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / count) + 2**-17)
    (scale,) = found[found != 0].unique().tolist()
    assert scale == pytest.approx(1 / (1 - p), rel=2**-8 if dtype == torch.bfloat16 else 1e-4)


def test_neighbours_are_dropped_independently() -> None:
    kept = dropped(0.5, torch.ones(400_000)) > 0
    # Four decisions come from one draw: none of them may tell of the next ones.
    for distance in (1, 2, 3, 4, 5):
        both = float((kept[:-distance] & kept[distance:]).float().mean())
        assert both == pytest.approx(0.25, abs=5 * math.sqrt(0.25 * 0.75 / 400_000)), distance


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7])
def test_any_number_of_values(count: int) -> None:
    found = torch.stack([dropped(0.5, torch.ones(count), seed) for seed in range(64)])
    assert set(found.flatten().tolist()) == {0.0, 2.0}


def test_the_memory_layout_stays_and_each_value_is_its_own() -> None:
    images = torch.randn(4, 6, 5, 5).contiguous(memory_format=torch.channels_last)
    found = dropped(0.5, images)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(found[found != 0], 2 * images[found != 0])
    # The first maps differ from each other in what is dropped.
    assert not torch.equal(found[0, 0] == 0, found[0, 1] == 0)


def test_the_gradient_is_that_of_what_was_kept() -> None:
    images = torch.randn(1000, requires_grad=True)
    found = dropped(0.25, images)
    found.sum().backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad, (found != 0).float() / 0.75)


def test_the_seed_decides() -> None:
    images = torch.ones(100)
    assert torch.equal(dropped(0.5, images), dropped(0.5, images))
    assert not torch.equal(dropped(0.5, images), dropped(0.5, images, seed=1))


@pytest.mark.parametrize(("p", "expected"), [(0.0, 1.0), (1.0, 0.0)])
def test_none_and_all(p: float, expected: float) -> None:
    assert dropped(p, torch.ones(50)).tolist() == [expected] * 50


def test_nothing_is_dropped_in_evaluation_or_from_nothing() -> None:
    layer = BitDropout(0.5).eval()
    assert torch.equal(layer(torch.ones(50)), torch.ones(50))
    assert BitDropout(0.5)(torch.ones(0, 3)).shape == (0, 3)


def test_values_that_lie_apart_are_dropped_too() -> None:
    apart = torch.ones(100, 4)[:, ::2]
    assert set(dropped(0.5, apart).flatten().tolist()) == {0.0, 2.0}


def test_layers_are_replaced_but_for_frozen_ones() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.3), nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.4)))
    freeze(network, "1")
    with_bit_dropout(network)
    assert type(network[1]) is nn.Dropout
    replaced = network.get_submodule("2.1")
    assert isinstance(replaced, BitDropout)
    assert replaced.p == 0.4
