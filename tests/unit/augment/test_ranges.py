"""What each entry draws, held against its settings: read from pictures whose answer is known, or from placements."""

from __future__ import annotations

import colorsys
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision.transforms import v2

from conviction.augment import AUGMENTATIONS
from conviction.augment.colour import grey
from conviction.augment.jpeg import jpeg
from draws import COLOUR, NUM, TWO_GREYS, Size, assert_independent, assert_uniform, changed, matrices, only, seeded


def assert_same_distribution(found: Tensor, expected: Tensor) -> None:
    """Two samples, by their largest difference of shares; conservative for whole numbers."""
    assert stats.ks_2samp(found.numpy(), expected.numpy(), method="asymp").pvalue > 1e-3
    assert found.quantile(0.02).item() == pytest.approx(expected.quantile(0.02).item(), rel=0.1, abs=1.01)
    assert found.quantile(0.98).item() == pytest.approx(expected.quantile(0.98).item(), rel=0.1, abs=1.01)


# Every entry has a share, but the transforms of torchvision that have one of their own. `test_draws` holds that of the
# three that cut pictures to another size, or mirror half of their share in each epoch.
WITH_P = [
    name
    for name in AUGMENTATIONS.names()
    if name not in ("crop_to", "random_resized_crop", "alternating_flip", "torchvision")
]
# Settings for entries that would otherwise leave many images as they are.
CHANGING: dict[str, dict[str, Any]] = {
    "translate": {"share": 0.4},
    "gaussian_blur": {"smallest_px": 1.0},
    "mixup": {"alpha": 1.0},
    "randaugment": {"num_ops": 3},
}


@pytest.mark.parametrize("name", WITH_P)
def test_p_is_the_share_of_images_that_are_changed(name: str) -> None:
    """Of those that are changed where all of them are chosen, as some draws leave an image as it is."""
    num = 2000
    noise = torch.randint(40, 200, (num, 3, 24, 20), generator=Generator().manual_seed(0)) / 255

    def share(p: float) -> float:
        found = changed(name, noise, p=p, **CHANGING.get(name, {}))
        return float(((found - noise).abs() > 1e-4).flatten(1).any(dim=1).float().mean())

    largest, found = share(1.0), share(0.3)
    assert share(0.0) == 0
    assert largest > 0.7
    variance = (0.3 * largest * (1 - 0.3 * largest) + 0.3**2 * largest * (1 - largest)) / num
    assert abs(found - 0.3 * largest) < 4 * math.sqrt(variance)


def test_translations_go_both_ways_as_far_as_a_share_of_each_side() -> None:
    found = matrices("translate", (20, 40), share=0.1)
    for values, reach in ((found[:, 0, 2], 4), (found[:, 1, 2], 2)):
        counts = torch.bincount((values + reach).long(), minlength=2 * reach + 1)
        # Whole pixels: the two ends gather half as wide an interval as the others.
        expected = torch.ones(2 * reach + 1).double()
        expected[[0, -1]] = 0.5
        assert len(counts) == 2 * reach + 1
        assert stats.chisquare(counts.numpy(), (expected / expected.sum() * NUM).numpy()).pvalue > 1e-3
    assert_independent(found[:, 0, 2], found[:, 1, 2])


def test_a_translation_moves_the_picture_so_many_columns_and_rows() -> None:
    """Of a picture with one light pixel in its middle."""
    picture = torch.zeros((NUM, 1, 21, 41))
    picture[:, :, 10, 20] = 1
    rows, columns = changed("translate", picture, share=0.1)[:, 0].nonzero()[:, 1:].T
    assert set((columns - 20).tolist()) == set(range(-4, 5))
    assert set((rows - 10).tolist()) == set(range(-2, 3))


def test_angles_are_uniform_both_ways() -> None:
    found = matrices("rotate", (20, 40), degrees=15.0)
    assert_uniform(torch.atan2(found[:, 1, 0], found[:, 0, 0]).rad2deg(), -15, 15)


def test_scales_enlarge_and_shrink_on_a_logarithmic_scale() -> None:
    found = matrices("scale", (20, 40), smallest=0.5, largest=3.0)
    assert torch.equal(found[:, 0, 0], found[:, 1, 1])
    assert_uniform((1 / found[:, 0, 0]).log(), math.log(0.5), math.log(3.0))


def test_slants_are_uniform_along_both_sides() -> None:
    found = matrices("shear", (20, 40), degrees=10.0)
    along_x, along_y = found[:, 0, 1].atan().rad2deg(), found[:, 1, 0].atan().rad2deg()
    assert_uniform(along_x, -10, 10)
    assert_uniform(along_y, -10, 10)
    assert_independent(along_x, along_y)


def test_corners_are_drawn_inwards_by_up_to_a_share_of_half_the_side() -> None:
    height, width, distortion = 20, 40, 0.3
    found = matrices("perspective", (height, width), distortion=distortion)
    inverse, half = torch.linalg.inv(found), torch.tensor([width / 2, height / 2]).double()
    moves = []
    for corner in ((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)):
        place = torch.tensor(corner).double()
        seen = inverse @ torch.cat([place - half, torch.ones(1).double()])
        inwards = torch.tensor([1 if side == 0 else -1 for side in corner])
        moved = (seen[:, :2] / seen[:, 2:] + half - place) * inwards
        assert_uniform(moved[:, 0], 0, distortion * width / 2)
        assert_uniform(moved[:, 1], 0, distortion * height / 2)
        moves += [moved[:, 0], moved[:, 1]]
    for one, other in itertools.pairwise(moves):
        assert_independent(one, other)


def torchvision_parts(size_px: Size, smallest: float, largest: float, ratio: float) -> Tensor:
    """Top, left, height and width (4, B) of the parts that torchvision cuts out."""
    transform = v2.RandomResizedCrop(1, scale=(smallest, largest), ratio=(1 / ratio, ratio))
    image = torch.zeros((1, *size_px))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(NUM)]
    return torch.tensor([[one[key] for one in drawn] for key in ("top", "left", "height", "width")]).double()


@pytest.mark.parametrize(
    ("size_px", "smallest", "largest", "ratio"),
    [
        ((30, 30), 0.08, 1.0, 4 / 3),
        ((20, 40), 0.08, 1.0, 4 / 3),
        ((20, 40), 0.3, 0.9, 2.0),
        ((40, 20), 0.9, 1.0, 1.5),
        # Few or none of the draws fit, and the part in the middle is taken.
        ((7, 500), 0.004, 0.05, 4 / 3),
        ((7, 500), 0.08, 1.0, 4 / 3),
        ((500, 7), 0.08, 1.0, 4 / 3),
        ((20, 21), 1.0, 1.0, 2.0),
    ],
)
def test_parts_are_those_of_torchvision(size_px: Size, smallest: float, largest: float, ratio: float) -> None:
    settings = {"smallest_area": smallest, "largest_area": largest, "largest_ratio": ratio}
    matrix = matrices("random_resized_crop", size_px, size_px=4, **settings)
    width, height = (4 * matrix[:, 0, 0]).round(), (4 * matrix[:, 1, 1]).round()
    top, left = matrix[:, 1, 2] + (size_px[0] - height) / 2, matrix[:, 0, 2] + (size_px[1] - width) / 2
    found = torch.stack([top, left, height, width])
    assert torch.equal(found, found.round())
    for ours, theirs in zip(found, torchvision_parts(size_px, smallest, largest, ratio), strict=True):
        assert_same_distribution(ours, theirs)


def test_parts_lie_anywhere_in_the_picture() -> None:
    matrix = matrices("random_resized_crop", (30, 30), size_px=4, smallest_area=0.2, largest_area=0.3)
    assert_independent(matrix[:, 0, 2], matrix[:, 1, 2])


def test_crops_of_the_images_chosen_are_shifted_anywhere() -> None:
    """0.6 of them to any of nine places, of which one is that of the others."""
    found = matrices("random_crop", (20, 40), padding_px=1, p=0.6)
    counts = torch.bincount((3 * found[:, 1, 2] + found[:, 0, 2] + 4).long(), minlength=9)
    expected = torch.full((9,), NUM * 0.6 / 9, dtype=torch.float64)
    expected[4] += NUM * 0.4
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("settings", [("brightness", {"strength": 0.5}), ("color_jitter", only("brightness", 0.5))])
def test_brightness_is_uniform_both_ways(settings: tuple[str, dict[str, Any]]) -> None:
    assert_uniform(changed(settings[0], COLOUR, **settings[1])[:, 0] / 0.6, 0.5, 1.5)


@pytest.mark.parametrize("settings", [("contrast", {"strength": 0.5}), ("color_jitter", only("contrast", 0.5))])
def test_contrasts_are_uniform_both_ways(settings: tuple[str, dict[str, Any]]) -> None:
    found = changed(settings[0], TWO_GREYS, **settings[1])
    assert_uniform((found[:, 0, 0, 1] - found[:, 0, 0, 0]) / 0.2, 0.5, 1.5)


@pytest.mark.parametrize("settings", [("saturation", {"strength": 0.5}), ("color_jitter", only("saturation", 0.5))])
def test_saturations_are_uniform_both_ways(settings: tuple[str, dict[str, Any]]) -> None:
    found = changed(settings[0], COLOUR, **settings[1])
    assert_uniform((found[:, 0] - found[:, 2]) / 0.2, 0.5, 1.5)


@pytest.mark.parametrize("settings", [("hue", {"turns": 0.2}), ("color_jitter", only("hue", 0.2))])
def test_turns_of_colours_are_uniform_both_ways(settings: tuple[str, dict[str, Any]]) -> None:
    found = changed(settings[0], COLOUR, **settings[1]).flatten(1)
    hues = torch.tensor([colorsys.rgb_to_hsv(*colour)[0] for colour in found.tolist()])
    turned = (hues - colorsys.rgb_to_hsv(0.6, 0.5, 0.4)[0] + 0.5) % 1 - 0.5
    assert_uniform(turned, -0.2, 0.2)


def test_a_jitter_takes_its_parts_in_either_order() -> None:
    """A saturation keeps the grey of the colour that it sees: that of the first picture, or of the turned one."""
    first, draw, counts = COLOUR[:1], seeded(), {True: 0, False: 0}
    for _ in range(600):
        found = changed("color_jitter", first, draw, brightness=0, contrast=0, saturation=0.5, hue=0.5)
        factor = float(found.max() - found.min()) / 0.2
        seen = (float(found.max()) - factor * 0.6) / (1 - factor) if abs(factor - 1) > 0.02 else math.nan
        turned = abs(float(found[0, 0] - found[0, 2]) - factor * 0.2) > 0.01
        if turned and not math.isnan(seen):
            counts[abs(seen - float(grey(first))) < 1e-3] += 1
    assert sum(counts.values()) > 450
    assert stats.binomtest(counts[True], sum(counts.values()), 0.5).pvalue > 1e-3


@pytest.mark.parametrize("threshold", [0.25, 0.75])
def test_solarized_are_the_values_from_the_threshold_on(threshold: float) -> None:
    ramp = torch.linspace(0, 1, 256).view(1, 1, 1, 256)
    found = changed("solarize", ramp, p=1.0, threshold=threshold)
    assert torch.allclose(found, torch.where(ramp >= threshold, 1 - ramp, ramp))


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_posterized_ramp_has_so_many_levels(bits: int) -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256)
    found = changed("posterize", ramp, p=1.0, bits=bits)
    assert torch.equal(found, ramp // 2 ** (8 - bits) * 2 ** (8 - bits))


@pytest.mark.parametrize("largest", [1.0, 2.0])
def test_deviations_of_blurs_are_uniform(largest: float) -> None:
    """A point and its neighbour under a Gaussian differ by exp(−1 / 2σ²)."""
    point = torch.zeros((NUM, 1, 5, 5))
    point[:, :, 2, 2] = 1
    found = changed("gaussian_blur", point, p=1.0, smallest_px=0.5, largest_px=largest)[:, 0, 2]
    assert_uniform((-0.5 / (found[:, 1] / found[:, 2]).log()).sqrt(), 0.5, largest)


def test_sharpness_goes_both_ways() -> None:
    point = torch.full((NUM, 1, 3, 3), 0.4)
    point[:, :, 1, 1] = 0.6
    smooth = (8 * 0.4 + 5 * 0.6) / 13
    found = changed("sharpness", point, p=1.0, strength=0.8)[:, 0, 1, 1]
    assert_uniform((found - smooth) / (0.6 - smooth), 0.2, 1.8)


@pytest.mark.parametrize("deviation", [0.02, 0.1])
def test_noise_is_normal_with_the_deviation_asked_for(deviation: float) -> None:
    found = changed("gaussian_noise", torch.full((40, 3, 10, 10), 0.5), p=1.0, deviation=deviation)
    assert stats.kstest((found.flatten() - 0.5).numpy(), "norm", (0, deviation)).pvalue > 1e-3


def test_qualities_of_jpeg_are_equally_frequent() -> None:
    picture = torch.rand((1, 1, 16, 16), generator=Generator().manual_seed(0))
    written = {q: jpeg(picture, torch.tensor([q])) for q in range(28, 38)}
    found = changed("jpeg", picture.expand(NUM, -1, -1, -1), p=1.0, smallest_quality=30, largest_quality=36)
    counts = {q: int((found == one).flatten(1).all(dim=1).sum()) for q, one in written.items()}
    assert [counts[q] for q in (28, 29, 37)] == [0, 0, 0]
    assert stats.chisquare([counts[q] for q in range(30, 37)], [NUM / 7] * 7).pvalue > 1e-3


def erased_boxes(found: Tensor) -> Tensor:
    """Top, left, height and width (4, B) of what is black in white pictures; 0 where nothing is."""
    black = found[:, 0] == 0
    rows, columns = black.any(dim=2).int(), black.any(dim=1).int()
    return torch.stack([rows.argmax(dim=1), columns.argmax(dim=1), rows.sum(dim=1), columns.sum(dim=1)]).double()


def test_erased_rectangles_lie_anywhere() -> None:
    white = torch.ones((NUM, 1, 30, 60))
    boxes = erased_boxes(
        changed("random_erasing", white, p=1.0, smallest_area=0.05, largest_area=0.05, largest_ratio=1.0)
    )
    side = round(math.sqrt(0.05 * 30 * 60))
    assert (boxes[2:] == side).all()
    for places, room in ((boxes[0], 30 - side), (boxes[1], 60 - side)):
        counts = torch.bincount(places.long(), minlength=room + 1)
        assert len(counts) == room + 1
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3
    assert_independent(boxes[0], boxes[1])


@pytest.mark.parametrize(("fill", "level"), [("black", 0.0), ("grey", 0.5)])
def test_what_is_erased_has_one_level(fill: str, level: float) -> None:
    found = changed("random_erasing", torch.ones((200, 3, 20, 20)), p=1.0, fill=fill)
    assert set(found.unique().tolist()) == {level, 1.0}


def test_what_is_erased_may_be_noise() -> None:
    """Uniform, and another in every channel and pixel."""
    found = changed("random_erasing", torch.full((200, 3, 20, 20), 0.5), p=1.0, fill="noise")
    noise = found.movedim(1, 0)[(found != 0.5).any(dim=1).expand(3, -1, -1, -1).reshape(3, 200, 20, 20)].view(3, -1)
    assert_uniform(noise, 0, 1)
    assert_independent(noise[0], noise[1])
    assert_independent(noise[0, ::2][: noise.shape[1] // 2], noise[0, 1::2][: noise.shape[1] // 2])


def test_the_middle_of_a_cutout_lies_anywhere() -> None:
    pixels = erased_boxes(changed("cutout", torch.ones((NUM, 1, 6, 9)), size_px=1))
    assert (pixels[2:] == 1).all()
    counts = np.bincount((pixels[0] * 9 + pixels[1]).int().numpy(), minlength=54)
    assert stats.chisquare(counts).pvalue > 1e-3


def torchvision_boxes(size_px: Size, smallest: float, largest: float, ratio: float) -> Tensor:
    """Top, left, height and width (4, B) of what torchvision erases; all 0 where it erases nothing."""
    transform = v2.RandomErasing(p=1.0, scale=(smallest, largest), ratio=(1 / ratio, ratio))
    image = torch.zeros((1, *size_px))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = [transform.make_params([image]) for _ in range(NUM)]
    return torch.tensor([[one[key] if one["v"] is not None else 0 for one in drawn] for key in "ijhw"]).double()


@pytest.mark.parametrize(
    ("size_px", "smallest", "largest", "ratio"),
    [
        ((28, 28), 0.02, 0.33, 3.3),
        ((20, 40), 0.3, 0.9, 2.0),
        ((7, 500), 0.02, 0.04, 3.3),
        ((500, 7), 0.02, 0.1, 3.3),
    ],
)
def test_erased_rectangles_are_those_of_torchvision(
    size_px: Size, smallest: float, largest: float, ratio: float
) -> None:
    """Of long pictures some are left as they are, where none of ten draws fits."""
    settings = {"smallest_area": smallest, "largest_area": largest, "largest_ratio": ratio}
    found = erased_boxes(changed("random_erasing", torch.ones((NUM, 1, *size_px)), p=1.0, **settings))
    expected = torchvision_boxes(size_px, smallest, largest, ratio)
    for ours, theirs in zip(found, expected, strict=True):
        assert_same_distribution(ours, theirs)
    left = [int((boxes[2] == 0).sum()) for boxes in (found, expected)]
    assert stats.fisher_exact([left, [NUM - count for count in left]]).pvalue > 1e-3


def test_erased_areas_of_long_pictures_lie_in_their_range() -> None:
    boxes = erased_boxes(
        changed("random_erasing", torch.ones((NUM, 1, 40, 200)), p=1.0, smallest_area=0.3, largest_area=0.33)
    )
    areas = (boxes[2] * boxes[3] / (40 * 200))[boxes[2] > 0]
    # Half a pixel more or less on each side: the height is at most 39, and so at least √(2400 / 3.3) = 27 that the
    # width is at most 2640 / 27 = 98.
    assert len(areas) > 0
    assert float(areas.min()) > 0.3 - 0.5 * (39.5 + 98) / 8000
    assert float(areas.max()) < 0.33 + 0.5 * (39.5 + 98) / 8000
