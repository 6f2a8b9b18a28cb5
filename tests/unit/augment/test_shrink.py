"""Resampling through matrices that shrink, against pictures sampled much more finely."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import functional as theirs

from conviction.augment import warp as augment_warp
from conviction.augment.resample import warp
from conviction.augment.shrink import shrinkage, smoothed_warp
from draws import seeded
from pictures import smooth_pictures

SIDE, SMALL, FINE = 96, 24, 16
ANGLES = torch.tensor([3.0, 20.0, 45.0, 100.0])


def turned(scale: float) -> Tensor:
    """Parts of the middle, shrunk by `scale` and turned."""
    return torch.diag(torch.tensor([scale, scale, 1.0])) @ augment_warp.rotation(ANGLES)


def stripes() -> Tensor:
    return (torch.arange(SIDE) % 2).float().expand(4, 1, SIDE, SIDE).contiguous()


def checkerboard() -> Tensor:
    places = torch.arange(SIDE)
    return ((places[:, None] + places) % 2).float().expand(4, 1, SIDE, SIDE).contiguous()


def oracle(images: Tensor, matrix_B33: Tensor) -> Tensor:
    """Sixteen times as many pixels along both sides, then averaged as an anti-aliased resize does it."""
    finer = matrix_B33 @ torch.diag(torch.tensor([1 / FINE, 1 / FINE, 1.0]))
    seen = warp(images, finer, (SMALL * FINE, SMALL * FINE), "edge", "bilinear")
    return functional.interpolate(seen, (SMALL, SMALL), mode="bilinear", antialias=True)


def inner(images: Tensor) -> Tensor:
    """Without the border, at which the fine pictures end."""
    return images[:, :, 2:-2, 2:-2]


@pytest.mark.parametrize("pattern", [stripes(), checkerboard()], ids=["stripes", "checkerboard"])
def test_what_is_finer_than_a_new_pixel_becomes_grey(pattern: Tensor) -> None:
    """Without smoothing it comes out in light and dark bands, which are not in the picture."""
    matrix = turned(2.4)
    found, plain = (
        resampled(pattern, matrix, (SMALL, SMALL), "edge", "bilinear") for resampled in (smoothed_warp, warp)
    )
    assert inner(plain).std() > 0.1
    assert (inner(found) - 0.5).abs().max() < 0.05
    assert (inner(oracle(pattern, matrix)) - 0.5).abs().max() < 0.05


@pytest.mark.parametrize("scale", [1.3, 2.0, 2.4])
def test_as_finely_sampled_pictures(scale: float) -> None:
    noise = torch.rand((4, 3, SIDE, SIDE), generator=seeded(1).generator)
    matrix = turned(scale)
    expected = inner(oracle(noise, matrix))
    error, plain_error = (
        float((inner(resampled(noise, matrix, (SMALL, SMALL), "edge", "bilinear")) - expected).square().mean().sqrt())
        for resampled in (smoothed_warp, warp)
    )
    assert error < 0.6 * plain_error
    if scale >= 2:
        assert error < 0.35 * plain_error


def test_of_straight_parts_it_is_near_anti_aliased_resizing() -> None:
    """Of smooth pictures within three levels: it is torchvision's triangle, with the four nearest pixels behind it."""
    images = smooth_pictures().float()[:, :, :32, :32]
    matrix = torch.diag(torch.tensor([2.0, 2.0, 1.0])).expand(len(images), 3, 3)
    found = smoothed_warp(images, matrix, (16, 16), "edge", "bilinear")
    expected = theirs.resize(images, [16, 16], antialias=True)
    assert (found - expected)[:, :, 1:-1, 1:-1].abs().max() < 3


def test_what_does_not_shrink_stays_as_it_is() -> None:
    images = smooth_pictures()[:4]
    for matrix in (augment_warp.rotation(ANGLES), augment_warp.scaling(torch.full((4,), 1.5))):
        expected = warp(images, matrix, (33, 40), "black", "bilinear")
        assert (smoothed_warp(images, matrix, (33, 40), "black", "bilinear").int() - expected.int()).abs().max() <= 1


def test_shrinkage_by_hand() -> None:
    stretched = torch.diag(torch.tensor([3.0, 2.0, 1.0])) @ augment_warp.rotation(ANGLES)
    assert torch.allclose(shrinkage(stretched), torch.tensor([3.0, 2.0]).expand(4, 2), atol=1e-5)
    # A depth of 2 in the middle halves what is seen.
    assert torch.allclose(shrinkage(torch.diag(torch.tensor([3.0, 2.0, 2.0]))[None]), torch.tensor([[1.5, 1.0]]))


def test_a_tent_by_hand() -> None:
    """Shrunk by 2: a quarter, a half and a quarter of three neighbours, of which two are averaged between pixels."""
    row = torch.tensor([[[[0.0, 0, 0, 80, 0, 0, 0, 0]]]])
    matrix = torch.diag(torch.tensor([2.0, 1.0, 1.0]))[None]
    assert smoothed_warp(row, matrix, (1, 4), "edge", "bilinear").flatten().tolist() == [0, 30, 10, 0]


@pytest.mark.parametrize("depth", [0.0, 1e-30, -1.0, float("nan")])
def test_a_projection_that_is_all_but_a_line_is_no_fault(depth: float) -> None:
    matrix = torch.eye(3).repeat(2, 1, 1)
    matrix[0, 2, 2] = depth
    matrix[0, 0, 0] = 1e30
    pixels = (255 * stripes()[:2]).to(torch.uint8)
    found = smoothed_warp(pixels, matrix, (SMALL, SMALL), "black", "bilinear")
    assert torch.equal(found[1], smoothed_warp(pixels[1:], matrix[1:], (SMALL, SMALL), "black", "bilinear")[0])
