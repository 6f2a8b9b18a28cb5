"""Each change, image by image, against torchvision's own function on the same image with the same factor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from conviction.augment import colour, detail, tone, warp
from conviction.augment.base import Placement
from conviction.augment.geometric import CropTo, Flip, RandomCrop, shifts
from conviction.augment.pipeline import Augmenter
from conviction.augment.resample import move
from conviction.augment.resample import warp as resampled
from conviction.data.stream import Draw, cut_middle
from pictures import smooth_pictures

NUM = 24


def spread(low: float, high: float) -> Tensor:
    return torch.linspace(low, high, NUM)


Change = Callable[[Tensor, Tensor], Tensor]
BY_FACTOR: dict[str, tuple[Change, Callable[[Tensor, float], Tensor], Tensor]] = {
    "brightness": (colour.brightness, functional.adjust_brightness, spread(0.0, 2.0)),
    "contrast": (colour.contrast, functional.adjust_contrast, spread(0.0, 2.0)),
    "saturation": (colour.saturation, functional.adjust_saturation, spread(0.0, 2.0)),
    "hue": (colour.hue, functional.adjust_hue, spread(-0.5, 0.5)),
    "sharpness": (detail.sharpness, functional.adjust_sharpness, spread(0.0, 2.0)),
    "solarize": (tone.solarize, functional.solarize, spread(0.0, 1.0)),
    "blur": (
        lambda images, deviation: detail.gaussian_blur(images, 5, deviation),
        lambda image, deviation: functional.gaussian_blur(image, [5, 5], [deviation, deviation]),
        spread(0.1, 3.0),
    ),
}


@pytest.mark.parametrize("name", BY_FACTOR)
def test_changes_by_a_factor_on_float(name: str) -> None:
    ours, theirs, factors = BY_FACTOR[name]
    images = smooth_pictures().float() / 255
    found = ours(images, factors)
    for image, factor, changed in zip(images, factors.tolist(), found, strict=True):
        assert (theirs(image, factor) - changed).abs().max() < 2e-5


@pytest.mark.parametrize("name", BY_FACTOR)
def test_changes_by_a_factor_on_grey_levels(name: str) -> None:
    """Within one level, as torchvision cuts fractions off and we round them."""
    ours, theirs, factors = BY_FACTOR[name]
    images = smooth_pictures()
    found = (ours(images.float() / 255, factors) * 255).round().to(torch.uint8)
    for image, factor, changed in zip(images, factors.tolist(), found, strict=True):
        if name == "solarize":
            factor *= 255
        if name in ("hue", "saturation", "contrast"):
            # Of grey levels torchvision cuts fractions off twice here, of the grey first and of the result then, and
            # loses up to two of them; its own result in float, rounded once, is what it means.
            expected = (theirs(image.float() / 255, factor) * 255).round()
        else:
            expected = theirs(image, factor)
        assert (expected.int() - changed.int()).abs().max() <= 1


def levels(change: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    return (change(images.float() / 255) * 255).round().to(torch.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["invert", "autocontrast", "equalize"])
def test_tones_exactly(name: str, channels: int) -> None:
    images = smooth_pictures(channels=channels)
    images[3] = 77  # a picture of one level
    images[4, 0] = 0
    found = levels(getattr(tone, name), images)
    for image, changed in zip(images, found, strict=True):
        off = (getattr(functional, name)(image).int() - changed.int()).abs().max()
        # torchvision cuts the fractions of the stretch off.
        assert off <= (1 if name == "autocontrast" else 0)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize_exactly(bits: int) -> None:
    images = smooth_pictures()
    found = levels(lambda numbers: tone.posterize(numbers, torch.full((NUM,), bits)), images)
    assert torch.equal(found, functional.posterize(images, bits))


def test_grey() -> None:
    images = smooth_pictures()
    found = levels(lambda numbers: colour.grey(numbers).expand_as(numbers), images)
    assert (functional.rgb_to_grayscale(images, 3).int() - found.int()).abs().max() <= 1


def test_changes_leave_grey_pictures_without_colours() -> None:
    images = smooth_pictures(channels=1).float() / 255
    for change in (colour.saturation, colour.hue):
        assert torch.equal(change(images, spread(-0.5, 0.5)), images)


@pytest.mark.parametrize("outside", ["black", "reflect", "edge"])
def test_padded_crops(outside: Any) -> None:
    images, modes = smooth_pictures(), {"black": "constant", "reflect": "reflect", "edge": "edge"}
    generator = Generator().manual_seed(0)
    found = Augmenter([RandomCrop(5, outside)], 2)(images, torch.zeros(NUM, dtype=torch.int64), Draw(generator))[0]
    offsets = torch.randint(0, 11, (2, NUM), generator=Generator().manual_seed(0))
    for image, changed, (top, left) in zip(images, found, offsets.T.tolist(), strict=True):
        padded = functional.pad(image, [5], padding_mode=modes[outside])
        assert torch.equal(functional.crop(padded, top, left, 33, 40), changed)


@pytest.mark.parametrize("size_px", [33, 32, 28, 27, 1])
def test_middles(size_px: int) -> None:
    pixels = smooth_pictures().permute(0, 2, 3, 1).numpy()
    expected = functional.center_crop(smooth_pictures(), [size_px]).permute(0, 2, 3, 1)
    assert (cut_middle(pixels, (size_px, size_px)) == expected.numpy()).all()


def seen(images: Tensor, matrices: Tensor, interpolation: Any = "bilinear", outside: Any = "black") -> Tensor:
    return resampled(images, matrices, (images.shape[2], images.shape[3]), outside, interpolation)


WARPS: dict[str, tuple[Change, Callable[..., Tensor], Tensor]] = {
    "rotate": (
        lambda images, degrees: warp.rotation(degrees),
        functional.rotate,
        spread(-170.0, 170.0),
    ),
    "scale": (
        lambda images, factor: warp.scaling(factor),
        lambda image, factor, how: functional.affine(image, 0.0, [0, 0], factor, [0.0, 0.0], how),
        spread(0.4, 2.5),
    ),
    "shear": (
        lambda images, degrees: warp.shearing(degrees, degrees / 2),
        lambda image, degrees, how: functional.affine(image, 0.0, [0, 0], 1.0, [degrees, degrees / 2], how),
        spread(-40.0, 40.0),
    ),
    "translate": (
        lambda images, pixels: shifts(-pixels, pixels.round()),
        lambda image, pixels, how: functional.affine(image, 0.0, [pixels, -round(pixels)], 1.0, [0.0, 0.0], how),
        spread(-12.0, 12.0).round(),
    ),
}


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", WARPS)
def test_warps(name: str, interpolation: str) -> None:
    ours, theirs, amounts = WARPS[name]
    how = functional.InterpolationMode(interpolation)
    images = smooth_pictures()
    found = seen(images, ours(images, amounts), interpolation)
    exact = seen(images.float() / 255, ours(images, amounts), interpolation)
    for image, amount, changed, number in zip(images, amounts.tolist(), found, exact, strict=True):
        expected = theirs(image, amount, how).int()
        if interpolation == "bilinear":
            assert (expected - changed.int()).abs().max() <= 1
            assert (theirs(image.float() / 255, amount, how) - number).abs().max() < 1e-4
        else:
            # Half-way between two pixels, rounding decides which is nearer.
            assert (expected != changed).float().mean() < 0.02


def test_perspective() -> None:
    images, generator = smooth_pictures(), Generator().manual_seed(1)
    corners = torch.tensor([[0.0, 0], [39, 0], [39, 32], [0, 32]])
    moved = corners + (torch.rand((NUM, 4, 2), generator=generator) - 0.5) * 14
    found = seen(images, warp.homography(moved, corners.expand(NUM, 4, 2), (33, 40)))
    for image, points, changed in zip(images, moved.tolist(), found, strict=True):
        expected = functional.perspective(image, corners.int().tolist(), points, fill=0)
        # torchvision blends the edge with the fill once more; inside they agree.
        inside = functional.perspective(torch.full_like(image, 255), corners.int().tolist(), points) == 255
        assert ((expected.int() - changed.int()).abs() * inside).max() <= 1
        assert inside.float().mean() > 0.5


def placed(placements: list[Placement], images: Tensor, seed: int = 0) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Augmenter(placements, 2)(images, labels, Draw(Generator().manual_seed(seed)))[0]


def test_placements_are_composed_into_one_resampling() -> None:
    """Turned by 10° five times and back at once: one resampling leaves the picture, ten would blur it."""
    images = smooth_pictures()

    class Turn(Placement):
        def __init__(self, degrees: float) -> None:
            self._degrees = degrees

        def matrices(self, num_images: int, size_px: tuple[int, int], draw: Draw) -> Tensor:
            return warp.rotation(torch.full((num_images,), self._degrees))

    found = placed([*[Turn(10.0)] * 5, Turn(-50.0)], images)
    assert (found.int() - images.int()).abs().max() <= 1


def test_whole_pixels_composed_are_exactly_one_after_the_other() -> None:
    images = smooth_pictures()
    first, second = RandomCrop(3, "black"), CropTo(20)
    together = placed([Flip(0, 1.0), second, Flip(1, 1.0)], images)
    # The same draws, as a flip that never happens draws too.
    assert torch.equal(together, placed([Flip(0, 0.0), second, Flip(1, 0.0)], images.flip(-1)).flip(-2))
    assert placed([first, second], images).shape[2:] == (20, 20)


def test_moving_looks_beyond_the_picture_as_told() -> None:
    row = torch.tensor([[[[1, 2, 3, 4]]]], dtype=torch.uint8)
    shifted = shifts(torch.tensor([-3.0]), torch.tensor([0.0]))
    assert move(row, shifted, (1, 4), "black").tolist() == [[[[0, 0, 0, 1]]]]
    assert move(row, shifted, (1, 4), "edge").tolist() == [[[[1, 1, 1, 1]]]]
    assert move(row, shifted, (1, 4), "reflect").tolist() == [[[[4, 3, 2, 1]]]]
    far = shifts(torch.tensor([-9.0]), torch.tensor([0.0]))
    # 1 2 3 4 3 2 | 1 2 3 4 3 2 | 1 …: nine to the left of the first is the fourth.
    assert move(row, far, (1, 4), "reflect").tolist() == [[[[4, 3, 2, 1]]]]


@pytest.mark.parametrize("outside", ["black", "reflect", "edge"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_resampling_sees_beyond_the_picture_what_moving_does(interpolation: Any, outside: Any) -> None:
    images = smooth_pictures()
    shifted = shifts(torch.linspace(-80, 80, NUM).round(), torch.linspace(66, -66, NUM).round())
    assert torch.equal(
        resampled(images, shifted, (33, 40), outside, interpolation), move(images, shifted, (33, 40), outside)
    )


def test_resampling_beyond_the_picture_by_hand() -> None:
    row = torch.tensor([[[[10.0, 20, 40, 80]]]])

    def shifted(pixels: float, outside: Any) -> list[float]:
        matrix = shifts(torch.tensor([pixels]), torch.tensor([0.0]))
        return resampled(row, matrix, (1, 4), outside, "bilinear").flatten().tolist()

    # Half a pixel to the left of the first lies half-way to its mirror image, which is the second.
    assert shifted(-0.5, "reflect") == pytest.approx([15, 15, 30, 60])
    assert shifted(-1.5, "reflect") == pytest.approx([30, 15, 15, 30])
    assert shifted(0.5, "reflect") == pytest.approx([15, 30, 60, 60])
    assert shifted(-0.5, "edge") == pytest.approx([10, 15, 30, 60])
    assert shifted(-0.5, "black") == pytest.approx([5, 15, 30, 60])
