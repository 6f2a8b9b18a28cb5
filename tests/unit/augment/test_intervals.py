"""Settings that are one number or a range [low, high]: what is drawn of them, and what is refused."""

from __future__ import annotations

import colorsys
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional

from conviction.augment import AUGMENTATIONS
from conviction.core.config import parse
from conviction.core.errors import ConfigError
from draws import COLOUR, NUM, TWO_GREYS, assert_independent, assert_uniform, changed, matrices, only
from pictures import smooth_pictures


@pytest.mark.parametrize("settings", [("brightness", "strength"), ("color_jitter", "brightness")])
def test_factors_of_brightness(settings: tuple[str, str]) -> None:
    name, key = settings
    values = {key: [0.2, 0.7]} if key == "strength" else only(key, [0.2, 0.7])
    assert_uniform(changed(name, COLOUR, **values)[:, 0] / 0.6, 0.2, 0.7)


@pytest.mark.parametrize("settings", [("contrast", "strength"), ("color_jitter", "contrast")])
def test_factors_of_contrast(settings: tuple[str, str]) -> None:
    name, key = settings
    found = changed(name, TWO_GREYS, **({key: [1.2, 3.0]} if key == "strength" else only(key, [1.2, 3.0])))
    assert_uniform((found[:, 0, 0, 1] - found[:, 0, 0, 0]) / 0.2, 1.2, 3.0)


@pytest.mark.parametrize("settings", [("saturation", "strength"), ("color_jitter", "saturation")])
def test_factors_of_saturation(settings: tuple[str, str]) -> None:
    name, key = settings
    found = changed(name, COLOUR, **({key: [0.0, 0.5]} if key == "strength" else only(key, [0.0, 0.5])))
    assert_uniform((found[:, 0] - found[:, 2]) / 0.2, 0.0, 0.5)


@pytest.mark.parametrize("settings", [("hue", "turns"), ("color_jitter", "hue")])
def test_turns_of_hue(settings: tuple[str, str]) -> None:
    name, key = settings
    found = changed(name, COLOUR, **({key: [0.05, 0.3]} if key == "turns" else only(key, [0.05, 0.3]))).flatten(1)
    hues = torch.tensor([colorsys.rgb_to_hsv(*colour)[0] for colour in found.tolist()])
    assert_uniform((hues - colorsys.rgb_to_hsv(0.6, 0.5, 0.4)[0]) % 1, 0.05, 0.3)


def test_factors_of_sharpness() -> None:
    point = torch.full((NUM, 1, 3, 3), 0.4)
    point[:, :, 1, 1] = 0.6
    smooth = (8 * 0.4 + 5 * 0.6) / 13
    found = changed("sharpness", point, p=1.0, strength=[1.0, 2.5])[:, 0, 1, 1]
    assert_uniform((found - smooth) / (0.6 - smooth), 1.0, 2.5)


def test_angles_of_rotations() -> None:
    found = matrices("rotate", (20, 40), degrees=[-10, 30])
    assert_uniform(torch.atan2(found[:, 1, 0], found[:, 0, 0]).rad2deg(), -10, 30)


def test_angles_of_slants_along_both_sides() -> None:
    found = matrices("shear", (20, 40), degrees=[5, 20])
    along_x, along_y = found[:, 0, 1].atan().rad2deg(), found[:, 1, 0].atan().rad2deg()
    assert_uniform(along_x, 5, 20)
    assert_uniform(along_y, 5, 20)
    assert_independent(along_x, along_y)


def test_thresholds_are_drawn_for_each_image() -> None:
    """Of a ramp, the first value that is turned into dark tells the threshold."""
    ramp = torch.linspace(0, 1, 1001).view(1, 1, 1, -1).expand(NUM, -1, -1, -1)
    kept = (changed("solarize", ramp, p=1.0, threshold=[0.6, 0.9]) == ramp).sum(dim=(1, 2, 3))
    assert_uniform((kept + 0.0) / 1000, 0.6, 0.9)


def test_numbers_of_bits_are_drawn_for_each_image() -> None:
    ramp = torch.arange(256, dtype=torch.uint8).view(1, 1, 1, 256).expand(NUM, -1, -1, -1)
    found = changed("posterize", ramp, p=1.0, bits=[3, 6])
    expected = {bits: functional.posterize(ramp[:1], bits)[0] for bits in range(1, 9)}
    counts = [int((found == one).flatten(1).all(dim=1).sum()) for one in expected.values()]
    assert [counts[bits - 1] for bits in (1, 2, 7, 8)] == [0, 0, 0, 0]
    assert stats.chisquare(counts[2:6], [NUM / 4] * 4).pvalue > 1e-3


def test_deviations_of_noise_are_drawn_for_each_image() -> None:
    """As the samples of 3,072 values tell them, to 1.3 %."""
    grey = torch.full((2000, 3, 32, 32), 0.5)
    noise = changed("gaussian_noise", grey, p=1.0, deviation=[0.02, 0.1]) - 0.5
    deviations = noise.flatten(1).std(dim=1)
    assert 0.02 * 0.94 < float(deviations.min()) < 0.021
    assert 0.099 < float(deviations.max()) < 0.1 * 1.06
    assert stats.kstest(deviations.numpy(), "uniform", (0.02, 0.08)).pvalue > 1e-3
    # Normal within each.
    assert stats.kstest((noise[:20] / deviations[:20, None, None, None]).flatten().numpy(), "norm").pvalue > 1e-3


def test_sides_of_cutouts_are_drawn_for_each_image() -> None:
    """Of those that do not reach the edge, in a picture so wide that few do."""
    found = changed("cutout", torch.ones((NUM, 1, 90, 90)), size_px=[2, 5])
    black = found[:, 0] == 0
    heights, widths = black.any(dim=2).sum(dim=1), black.any(dim=1).sum(dim=1)
    assert set(heights.tolist()) == {1, 2, 3, 4, 5}
    whole = ~(black[:, [0, -1]].flatten(1).any(dim=1) | black[:, :, [0, -1]].flatten(1).any(dim=1))
    assert torch.equal(heights[whole], widths[whole])
    # Within three pixels of the edge there is less to see of larger ones.
    assert float(whole.float().mean()) > 0.85
    counts = torch.bincount(heights[whole], minlength=6)[2:]
    chances = torch.tensor([(90 - side - 1.0) ** 2 for side in (2, 3, 4, 5)]).double()
    assert stats.chisquare(counts.numpy(), (chances / chances.sum() * counts.sum()).numpy()).pvalue > 1e-3


# An image of a range of one value, and torchvision's of that value.
ONE_VALUE: dict[str, tuple[dict[str, Any], Any]] = {
    "brightness": ({"strength": [1.7, 1.7]}, lambda image: functional.adjust_brightness(image, 1.7)),
    "contrast": ({"strength": [0.0, 0.0]}, lambda image: functional.adjust_contrast(image, 0.0)),
    "saturation": ({"strength": [4.0, 4.0]}, lambda image: functional.adjust_saturation(image, 4.0)),
    "hue": ({"turns": [-0.2, -0.2]}, lambda image: functional.adjust_hue(image, -0.2)),
    "sharpness": ({"strength": [5.0, 5.0]}, lambda image: functional.adjust_sharpness(image, 5.0)),
    "solarize": ({"threshold": [0.3, 0.3]}, lambda image: functional.solarize(image, 0.3)),
    "rotate": (
        {"degrees": [170, 170]},
        lambda image: functional.rotate(image, 170, functional.InterpolationMode.BILINEAR),
    ),
    "shear": (
        {"degrees": [-25, -25]},
        lambda image: functional.affine(image, 0.0, [0, 0], 1.0, [-25.0, -25.0], functional.InterpolationMode.BILINEAR),
    ),
}


@pytest.mark.parametrize("name", ONE_VALUE)
def test_a_range_of_one_value_is_torchvisions_function_of_it(name: str) -> None:
    settings, theirs = ONE_VALUE[name]
    images = smooth_pictures().float() / 255
    found: Tensor = changed(name, images, p=1.0, **settings)
    for image, one in zip(images, found, strict=True):
        assert (theirs(image) - one).abs().max() < 1e-4


NOTHING = "alone would leave every picture as it is"
ORDER = "`low <= high` must hold"
REFUSED: list[tuple[str, str, Any, str]] = [
    ("brightness", "strength", [0.5, 0.2], f"{ORDER}, but got 0.5 and 0.2"),
    ("brightness", "strength", [1, 1], f"a range of 1 {NOTHING}"),
    ("contrast", "strength", [-0.1, 1], "strength.0: must be at least 0, but got -0.1"),
    ("saturation", "strength", [0.5, 11], "strength.1: must be at most 10, but got 11"),
    ("sharpness", "strength", [1, 1], NOTHING),
    ("hue", "turns", [-0.6, 0.2], "turns.0: must be at least -0.5"),
    ("hue", "turns", [0, 0], f"a range of 0 {NOTHING}"),
    ("color_jitter", "brightness", [2, 1], ORDER),
    ("color_jitter", "hue", [0.1, 0.6], "hue.1: must be at most 0.5"),
    ("color_jitter", "contrast", 1.5, "contrast: must be at most 1, but got 1.5"),
    ("rotate", "degrees", [30, -10], ORDER),
    ("rotate", "degrees", [-400, 0], "degrees.0: must be at least -360"),
    ("rotate", "degrees", [0, 0], NOTHING),
    ("rotate", "degrees", [10], "must be a number, or a range \\[low, high\\], but got \\[10\\]"),
    ("rotate", "degrees", [1, 2, 3], "must be a number, or a range \\[low, high\\], but got \\[1, 2, 3\\]"),
    ("rotate", "degrees", "far", "must be a number, or a range \\[low, high\\], but got 'far'"),
    ("rotate", "degrees", [0, "far"], "degrees.1: must be a number, but got 'far'"),
    ("rotate", "degrees", [True, 5], "must be a number"),
    ("rotate", "degrees", {"low": 1}, "must be a number"),
    ("shear", "degrees", [-90, 0], "degrees.0: must be greater than -90"),
    ("solarize", "threshold", [0.5, 1.5], "threshold.1: must be at most 1"),
    ("posterize", "bits", [4, 8], "bits.1: must be at most 7"),
    ("posterize", "bits", [2.5, 4], "bits.0: must be a whole number"),
    ("gaussian_noise", "deviation", [0, 0.1], "deviation.0: must be greater than 0"),
    ("cutout", "size_px", [0, 4], "size_px.0: must be at least 1"),
    ("cutout", "size_px", [5, 4], f"{ORDER}, but got 5 and 4"),
]


@pytest.mark.parametrize(("name", "key", "value", "message"), REFUSED)
def test_senseless_ranges_are_refused(name: str, key: str, value: Any, message: str) -> None:
    config: Any = AUGMENTATIONS[name].config
    with pytest.raises(ConfigError, match=message) as caught:
        parse(config, {key: value}, "x")
    # One fault, one line.
    assert len(str(caught.value).splitlines()) == 2
    assert f"  {key}" in str(caught.value)


def test_the_largest_cutout_of_a_range_must_leave_something() -> None:
    with pytest.raises(ConfigError, match=r"cutout: `size_px < 12`.* must hold, but got size_px=12"):
        changed("cutout", torch.ones((2, 1, 9, 12)), size_px=[1, 12])
    assert changed("cutout", torch.ones((2, 1, 9, 12)), size_px=[1, 11]).shape == (2, 1, 9, 12)
