"""What every standardisation must do: floats in the images' shape, from the training rows alone, with a way back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conviction.core.errors import ConfigError
from conviction.data.standardize import (
    STANDARDIZATIONS,
    FixedConfig,
    ImagenetConfig,
    Standardization,
    StandardizeConfig,
    channel_statistics,
    fit_standardization,
)

NEEDED: dict[str, dict[str, Any]] = {"fixed": {"mean": [0.5, 0.25, 0.1], "deviation": [0.2, 0.1, 0.3]}}
CONFIGS = {entry.name: entry.config.model_validate(NEEDED.get(entry.name, {})) for entry in STANDARDIZATIONS}
TRAIN_ROWS = np.arange(8)


def random_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
class TestEveryStandardization:
    def test_shape_type_and_range(self, config: StandardizeConfig) -> None:
        batch = as_batch(random_images())
        found = fit_standardization(config, random_images(), TRAIN_ROWS)(batch)
        assert found.shape == batch.shape
        assert found.dtype == torch.float32
        assert found.isfinite().all()

    def test_it_is_the_formula(self, config: StandardizeConfig) -> None:
        fitted = fit_standardization(config, random_images(), TRAIN_ROWS)
        mean, deviation = (np.array(part)[:, None, None] for part in (fitted.mean, fitted.deviation))
        expected = (random_images().transpose(0, 3, 1, 2) / 255 - mean) / deviation
        np.testing.assert_allclose(fitted(as_batch(random_images())).numpy(), expected, atol=2e-6)

    def test_there_is_a_way_back(self, config: StandardizeConfig) -> None:
        batch = as_batch(random_images())
        fitted = fit_standardization(config, random_images(), TRAIN_ROWS)
        torch.testing.assert_close(fitted.inverted(fitted(batch)), batch / 255, atol=1e-6, rtol=0)

    def test_the_images_stay_as_they_are(self, config: StandardizeConfig) -> None:
        batch = as_batch(random_images())
        fit_standardization(config, random_images(), TRAIN_ROWS)(batch)
        assert torch.equal(batch, as_batch(random_images()))

    def test_rows_outside_the_training_split_do_not_matter(self, config: StandardizeConfig) -> None:
        changed = random_images()
        changed[8:] = 255
        assert fit_standardization(config, changed, TRAIN_ROWS) == fit_standardization(
            config, random_images(), TRAIN_ROWS
        )

    def test_the_order_of_the_rows_does_not_matter(self, config: StandardizeConfig) -> None:
        backwards = fit_standardization(config, random_images(), TRAIN_ROWS[::-1])
        assert backwards == fit_standardization(config, random_images(), TRAIN_ROWS)

    def test_channels_last_stays_channels_last(self, config: StandardizeConfig) -> None:
        batch = as_batch(random_images())
        assert batch.is_contiguous(memory_format=torch.channels_last)
        found = fit_standardization(config, random_images(), TRAIN_ROWS)(batch)
        assert found.is_contiguous(memory_format=torch.channels_last)


class TestChannel:
    def test_statistics_by_hand(self) -> None:
        images = np.array([0, 255, 255, 0, 51, 102], np.uint8).reshape(3, 1, 2, 1)
        mean, deviation = channel_statistics(images, np.array([0, 1]))
        assert (mean.tolist(), deviation.tolist()) == ([0.5], [0.5])
        mean, deviation = channel_statistics(images, np.array([2]))
        # (0.2 + 0.4) / 2, and half of their distance
        assert mean.tolist() == pytest.approx([0.3])
        assert deviation.tolist() == pytest.approx([0.1])

    def test_the_training_split_gets_mean_0_and_deviation_1(self) -> None:
        found = fit_standardization(CONFIGS["channel"], random_images(), TRAIN_ROWS)(as_batch(random_images()[:8]))
        torch.testing.assert_close(found.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
        torch.testing.assert_close(found.std(dim=(0, 2, 3), correction=0), torch.ones(3), atol=1e-5, rtol=0)

    def test_many_images_are_summed_exactly(self) -> None:
        images = np.random.default_rng(0).integers(0, 256, (2100, 3, 3, 2), dtype=np.uint8)
        mean, deviation = channel_statistics(images, np.arange(2100))
        np.testing.assert_allclose(mean, (images / 255).mean(axis=(0, 1, 2)), rtol=1e-12)
        np.testing.assert_allclose(deviation, (images / 255).std(axis=(0, 1, 2)), rtol=1e-10)

    def test_a_channel_of_one_grey_level_becomes_zero(self) -> None:
        images = random_images()
        images[..., 1] = 77
        found = fit_standardization(CONFIGS["channel"], images, TRAIN_ROWS)(as_batch(images))
        torch.testing.assert_close(found[:, 1], torch.zeros(12, 6, 5), atol=1e-6, rtol=0)


class TestFixedNumbers:
    @pytest.mark.parametrize(("name", "expected"), [("scale", [0.0, 0.2, 1.0]), ("center", [-0.5, -0.3, 0.5])])
    def test_grey_levels_by_hand(self, name: str, expected: list[float]) -> None:
        images = np.array([0, 51, 255], np.uint8).reshape(1, 1, 3, 1)
        found = fit_standardization(CONFIGS[name], images, np.array([0]))(as_batch(images))
        assert found.flatten().tolist() == pytest.approx(expected, abs=1e-7)

    def test_grey_pictures_do_not_fit_imagenet(self) -> None:
        with pytest.raises(
            ConfigError, match="'imagenet' has 3 means and 3 deviations, but the pictures have 1 channels"
        ):
            fit_standardization(ImagenetConfig(), random_images()[..., :1], TRAIN_ROWS)

    def test_as_many_deviations_as_means(self) -> None:
        config = FixedConfig(mean=(0.5, 0.5, 0.5), deviation=(0.5,))
        with pytest.raises(ConfigError, match="3 means and 1 deviations"):
            fit_standardization(config, random_images(), TRAIN_ROWS)

    def test_a_deviation_of_zero_is_refused(self) -> None:
        with pytest.raises(ValidationError, match=r"deviation\.0"):
            FixedConfig(mean=(0.5,), deviation=(0.0,))

    def test_equal_numbers_are_equal_standardisations(self) -> None:
        assert Standardization((0.5,), (1.0,)) == fit_standardization(
            CONFIGS["center"], random_images()[..., :1], TRAIN_ROWS
        )
