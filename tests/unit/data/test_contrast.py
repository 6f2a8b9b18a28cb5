"""Contrast normalisation and per-image standardisation, by hand and beside TensorFlow's formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from conviction.data.standardize import Contrast, PerImageConfig, fit_standardization
from conviction.data.standardize.contrast import average_mean_and_deviation


def picture(*values: int) -> np.ndarray:
    """One picture of one row and one channel."""
    return np.array(values, np.uint8).reshape(1, 1, -1, 1)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def per_image(images: np.ndarray) -> np.ndarray:
    fitted = fit_standardization(PerImageConfig(), images, np.arange(len(images)))
    return fitted(as_batch(images)).permute(0, 2, 3, 1).numpy()


def test_per_image_by_hand() -> None:
    # Mean 25; squared distances 225, 25, 25, 225 have the mean 125, and its root is 11.18.
    found = per_image(picture(10, 20, 30, 40))
    assert found.ravel().tolist() == pytest.approx([-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6)


def test_mean_and_deviation_are_over_all_channels_together() -> None:
    # One pixel, channels 10, 20 and 30: mean 20, deviation sqrt(200 / 3) = 8.165.
    found = per_image(np.array([10, 20, 30], np.uint8).reshape(1, 1, 1, 3))
    assert found.ravel().tolist() == pytest.approx([-1.224745, 0.0, 1.224745], abs=1e-6)


def test_the_floor_is_tensorflows() -> None:
    # 100 values, one of them a level above: mean 0.01, deviation sqrt(0.01 · 0.99) = 0.0995 < 1 / sqrt(100) = 0.1.
    found = per_image(picture(*[0] * 99, 1)).ravel()
    assert found[-1] == pytest.approx(0.99 / 0.1, rel=1e-5)
    assert found[0] == pytest.approx(-0.01 / 0.1, rel=1e-4)


@pytest.mark.parametrize("level", [0, 77, 255])
def test_a_constant_picture_becomes_zero(level: int) -> None:
    found = per_image(picture(level, level, level))
    assert found.ravel().tolist() == [0.0, 0.0, 0.0]


@given(st.integers(0, 10_000), st.integers(1, 6), st.sampled_from([1, 3]))
def test_per_image_is_tensorflows_formula(seed: int, side: int, num_channels: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, (3, side, side + 1, num_channels), dtype=np.uint8)
    values = images.astype(np.float64)
    mean = values.mean(axis=(1, 2, 3), keepdims=True)
    floor = 1 / np.sqrt(values[0].size)
    expected = (values - mean) / np.maximum(values.std(axis=(1, 2, 3), keepdims=True), floor)
    np.testing.assert_allclose(per_image(images), expected, atol=2e-5)


def test_brightness_and_contrast_do_not_matter() -> None:
    dim = np.random.default_rng(0).integers(0, 60, (4, 5, 5, 3), dtype=np.uint8)
    np.testing.assert_allclose(per_image(dim * 3 + 20), per_image(dim), atol=1e-5)


def test_the_way_back_has_the_average_brightness_and_contrast() -> None:
    # Means 25 and 100 and deviations 5 and 50 grey levels: on the average 62.5 and 27.5.
    images = np.concatenate([picture(20, 30), picture(50, 150)])
    assert average_mean_and_deviation(images, np.arange(2)) == pytest.approx((62.5 / 255, 27.5 / 255))
    fitted = fit_standardization(PerImageConfig(), images, np.arange(2))
    back = fitted.inverted(fitted(as_batch(images)))
    assert (back * 255).flatten(1).tolist() == [pytest.approx([35, 90], abs=1e-4)] * 2


def test_training_pictures_that_are_all_constant_have_a_way_back() -> None:
    images = np.concatenate([picture(51, 51), picture(153, 153)])
    fitted = fit_standardization(PerImageConfig(), images, np.arange(2))
    assert fitted.inverted(fitted(as_batch(images))).ravel().tolist() == pytest.approx([0.4] * 4)


class TestContrast:
    CONTRAST = Contrast(scale=2.0, floor=0.1, mean=0.5, deviation=0.2)

    def test_scale_and_floor_by_hand(self) -> None:
        # Deviation 51 grey levels, 0.2: above the floor; 10.2 grey levels, 0.04: the floor of 0.1 stands for it.
        images = np.concatenate([picture(49, 151), picture(90, 110)])
        found = self.CONTRAST(as_batch(images)).flatten(1).tolist()
        assert found[0] == pytest.approx([-2, 2], abs=1e-6)
        assert found[1] == pytest.approx([-2 * 10 / 25.5, 2 * 10 / 25.5], abs=1e-6)

    def test_it_is_the_same_in_double_precision(self) -> None:
        images = np.random.default_rng(1).integers(0, 256, (6, 4, 3, 3), dtype=np.uint8)
        images[2] = 9
        expected = self.CONTRAST.of_rows(images.reshape(6, -1).astype(np.float64))
        found = self.CONTRAST(as_batch(images)).permute(0, 2, 3, 1).flatten(1)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-5)

    def test_the_memory_layout_does_not_matter(self) -> None:
        batch = as_batch(np.random.default_rng(2).integers(0, 256, (6, 4, 3, 3), dtype=np.uint8))
        torch.testing.assert_close(self.CONTRAST(batch.contiguous()), self.CONTRAST(batch), atol=1e-6, rtol=0)

    @pytest.mark.parametrize("wrong", [{"scale": 0.0}, {"floor": 0.0}, {"floor": -1.0}, {"deviation": float("nan")}])
    def test_senseless_numbers_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            Contrast.model_validate({"scale": 1.0, "floor": 0.1, "mean": 0.5, "deviation": 0.2, **wrong})
