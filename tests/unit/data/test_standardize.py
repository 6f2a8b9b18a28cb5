from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conviction.core.errors import ConfigError
from conviction.data.standardize import (
    CenterConfig,
    ChannelConfig,
    FixedConfig,
    ImagenetConfig,
    ScaleConfig,
    Standardization,
    StandardizeConfig,
    channel_statistics,
    fit_standardization,
)

NUM_CHANNELS = [1, 3]


def noise(num_images: int = 20, num_channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num_images, 5, 4, num_channels), np.uint8)


def levels(*values: int) -> torch.Tensor:
    """One picture of one row and one channel."""
    return torch.tensor(values, dtype=torch.uint8)[None, None, None]


def test_scale_and_center_by_hand() -> None:
    images, rows = noise(2, 1), np.arange(2)
    scale = fit_standardization(ScaleConfig(), images, rows)
    assert scale(levels(0, 51, 255)).ravel().tolist() == pytest.approx([0, 0.2, 1])
    center = fit_standardization(CenterConfig(), images, rows)
    assert center(levels(0, 51, 255)).ravel().tolist() == pytest.approx([-0.5, -0.3, 0.5])


def test_channel_by_hand() -> None:
    # Grey levels 0, 0, 102 and 102 are 0, 0, 0.4 and 0.4: mean 0.2, deviation 0.2.
    images = np.array([0, 0, 102, 102], np.uint8).reshape(2, 1, 2, 1)
    fitted = fit_standardization(ChannelConfig(), images, np.arange(2))
    assert (fitted.mean, fitted.deviation) == (pytest.approx((0.2,)), pytest.approx((0.2,)))
    assert fitted(levels(0, 51, 102, 255)).ravel().tolist() == pytest.approx([-1, 0, 1, 4], abs=1e-6)


@given(st.integers(1, 60), st.sampled_from(NUM_CHANNELS), st.integers(0, 999))
def test_statistics_are_those_of_numpy(num_images: int, num_channels: int, seed: int) -> None:
    images = noise(num_images, num_channels, seed)
    rows = np.arange(0, num_images, 2)
    mean, deviation = channel_statistics(images, rows)
    exact = images[rows].astype(np.float64) / 255
    assert np.abs(mean - exact.mean(axis=(0, 1, 2))).max() < 1e-9
    assert np.abs(deviation - exact.std(axis=(0, 1, 2))).max() < 1e-9


def test_statistics_over_many_chunks_do_not_depend_on_the_order() -> None:
    images = noise(3000)
    rows = np.arange(3000)
    plain, mixed = channel_statistics(images, rows), channel_statistics(images, rows[::-1])
    assert (plain[0].tolist(), plain[1].tolist()) == (mixed[0].tolist(), mixed[1].tolist())
    assert np.abs(plain[0] - (images / 255).mean(axis=(0, 1, 2))).max() < 1e-9


def test_statistics_of_the_brightest_pictures_do_not_overflow() -> None:
    # 4 million pixels of 255 have a sum of squares of 2.6e11, beyond 32 bits.
    mean, deviation = channel_statistics(np.full((4, 1000, 1000, 1), 255, np.uint8), np.arange(4))
    assert (mean.tolist(), deviation.tolist()) == ([1.0], [0.0])


def test_standardised_training_pictures_have_mean_zero_and_deviation_one() -> None:
    images = noise(200)
    fitted = fit_standardization(ChannelConfig(), images, np.arange(200))
    values = fitted(torch.from_numpy(images).permute(0, 3, 1, 2)).double()
    assert values.mean(dim=(0, 2, 3)).abs().max() < 1e-6
    assert (values.std(dim=(0, 2, 3), correction=0) - 1).abs().max() < 1e-6


def test_other_pictures_than_the_training_ones_have_no_influence() -> None:
    images, train_rows = noise(20), np.arange(0, 20, 3)
    before = fit_standardization(ChannelConfig(), images, train_rows)
    others = np.setdiff1d(np.arange(20), train_rows)
    images[others] = 255 - images[others] // 3
    assert fit_standardization(ChannelConfig(), images, train_rows) == before


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_channel_becomes_zero(level: int) -> None:
    images = noise(7)
    images[..., 1] = level
    fitted = fit_standardization(ChannelConfig(), images, np.arange(7))
    assert fitted.deviation[1] == 1
    values = fitted(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert values[:, 1].abs().max() < 1e-6
    assert values.isfinite().all()


@pytest.mark.parametrize("config", [ScaleConfig(), CenterConfig(), ChannelConfig(), ImagenetConfig()])
def test_inverse(config: StandardizeConfig) -> None:
    images = noise()
    fitted = fit_standardization(config, images, np.arange(20))
    tensor = torch.from_numpy(images).permute(0, 3, 1, 2)
    back = fitted.inverted(fitted(tensor))
    assert torch.equal((back * 255).round().to(torch.uint8), tensor)
    assert (back - tensor / 255).abs().max() < 1e-6


def test_imagenet_by_hand() -> None:
    fitted = fit_standardization(ImagenetConfig(), noise(), np.arange(20))
    white = fitted(torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)).ravel().tolist()
    # (1 - 0.485) / 0.229, (1 - 0.456) / 0.224 and (1 - 0.406) / 0.225.
    assert white == pytest.approx([2.248908, 2.428571, 2.64], abs=1e-5)


def test_fixed() -> None:
    config = FixedConfig(mean=(0.2, 0.4, 0.6), deviation=(0.1, 0.2, 0.4))
    fitted = fit_standardization(config, noise(), np.arange(20))
    assert fitted(torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)).ravel().tolist() == pytest.approx([0, -1, -1])


@pytest.mark.parametrize(
    ("config", "num_channels", "counts"),
    [
        (ImagenetConfig(), 1, "3 means and 3 deviations"),
        (FixedConfig(mean=(0.5,), deviation=(0.5,)), 3, "1 means and 1 deviations"),
        (FixedConfig(mean=(0.5,) * 3, deviation=(0.5,) * 2), 3, "3 means and 2 deviations"),
    ],
)
def test_other_numbers_of_channels_are_refused(config: StandardizeConfig, num_channels: int, counts: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"'{config.name}' has {counts}, but the pictures have {num_channels} channels"
    ):
        fit_standardization(config, noise(2, num_channels), np.arange(2))


@pytest.mark.parametrize("deviation", [0.0, -1.0, float("nan"), float("inf")])
def test_deviations_are_positive(deviation: float) -> None:
    with pytest.raises(ValidationError):
        FixedConfig(mean=(0.5,), deviation=(deviation,))


def test_images_are_not_changed_in_place() -> None:
    images = levels(1, 2, 3)
    Standardization((0.5,), (0.5,))(images)
    assert images.ravel().tolist() == [1, 2, 3]


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("num_images", [1, 7])
def test_many_values_are_standardised_in_parts_alike(
    num_images: int,
    layout: torch.memory_format,
    mode: Callable[[], AbstractContextManager[None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("conviction.data.standardize.channel._VALUES_AT_ONCE", 100)
    images = torch.randint(
        0, 256, (num_images, 3, 5, 11), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    mean, deviation = (0.1, 0.5, 0.7), (0.2, 0.3, 1.0)
    with mode():
        found = Standardization(mean, deviation)(images.contiguous(memory_format=layout))
    for number in range(3):
        scale = 1 / (torch.tensor(deviation[number]) * 255)
        shift = torch.tensor(mean[number]) / torch.tensor(deviation[number])
        assert torch.equal(found[:, number], images[:, number].float() * scale - shift)
