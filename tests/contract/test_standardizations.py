"""What every standardisation must do: floats in the images' shape, from the training rows alone, with a way back."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conviction.core.config import Config
from conviction.core.errors import ConfigError
from conviction.core.registry import OneOf
from conviction.data.standardize import (
    STANDARDIZATION_RECORDS,
    STANDARDIZATIONS,
    FixedConfig,
    ImagenetConfig,
    PerImageStandardization,
    Standardization,
    StandardizationRecord,
    StandardizeConfig,
    Whitening,
    channel_statistics,
    fit_standardization,
    restore_standardization,
)

NEEDED: dict[str, dict[str, Any]] = {"fixed": {"mean": [0.5, 0.25, 0.1], "deviation": [0.2, 0.1, 0.3]}}
CONFIGS = {entry.name: entry.config.model_validate(NEEDED.get(entry.name, {})) for entry in STANDARDIZATIONS}
BY_CHANNEL = {"scale", "center", "channel", "fixed", "imagenet"}
TRAIN_ROWS = np.arange(8)


class Saved(Config):
    """What a saved model holds of a standardisation."""

    standardization: Annotated[StandardizationRecord, OneOf(STANDARDIZATION_RECORDS)]


def random_images(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def by_formula(fitted: object) -> np.ndarray:
    """What becomes of the random images, by numpy in float64."""
    values = random_images().transpose(0, 3, 1, 2) / 255
    if isinstance(fitted, Standardization):
        return (values - np.array(fitted.mean)[:, None, None]) / np.array(fitted.deviation)[:, None, None]
    own_mean, own_deviation = (part(values, axis=(1, 2, 3), keepdims=True) for part in (np.mean, np.std))
    if isinstance(fitted, PerImageStandardization):
        return (values - own_mean) / own_deviation
    assert isinstance(fitted, Whitening)
    if fitted.contrast:
        values = (values - own_mean) / own_deviation * fitted.contrast.scale
    rows = values.transpose(0, 2, 3, 1).reshape(12, -1) - fitted.mean.double().numpy()
    components = fitted.components.double().numpy()
    whitened = rows @ components * fitted.gains.double().numpy() @ components.T
    return whitened.reshape(12, 6, 5, 3).transpose(0, 3, 1, 2)


def without_brightness_and_contrast(images: torch.Tensor) -> torch.Tensor:
    deviation, mean = torch.std_mean(images, dim=(1, 2, 3), correction=0, keepdim=True)
    return (images - mean) / deviation


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
        np.testing.assert_allclose(fitted(as_batch(random_images())).numpy(), by_formula(fitted), atol=2e-5)

    def test_there_is_a_way_back(self, config: StandardizeConfig) -> None:
        # The training pictures: of others, PCA loses what lies in no direction in which these vary.
        batch = as_batch(random_images()[:8])
        fitted = fit_standardization(config, random_images(), TRAIN_ROWS)
        back, expected = fitted.inverted(fitted(batch)), batch / 255
        if config.name in ("per_image", "zca"):
            # Brightness and contrast are lost, nothing else is.
            back, expected = without_brightness_and_contrast(back), without_brightness_and_contrast(expected)
        torch.testing.assert_close(back, expected, atol=1e-6 if config.name in BY_CHANNEL else 1e-4, rtol=0)

    def test_it_travels_with_a_saved_model(self, config: StandardizeConfig) -> None:
        fitted = fit_standardization(config, random_images(), TRAIN_ROWS)
        text = Saved(standardization=fitted.record()).model_dump_json()
        record = Saved.model_validate_json(text).standardization
        assert record.fits((3, 6, 5))
        assert record.has_tensors == bool(fitted.tensors())
        restored = restore_standardization(record, {name: t.clone() for name, t in fitted.tensors().items()})
        assert restored == fitted
        batch = as_batch(random_images())
        assert torch.equal(restored(batch), fitted(batch))
        assert torch.equal(restored.inverted(fitted(batch)), fitted.inverted(fitted(batch)))

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
