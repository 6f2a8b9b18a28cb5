"""ZCA and PCA beside numpy's eigendecomposition, scikit-learn's PCA and numbers derived by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sklearn.decomposition import PCA

from conviction.core.errors import ConfigError, DataError
from conviction.data.standardize import (
    MOST_VALUES,
    Contrast,
    PcaConfig,
    StandardizeConfig,
    Whitening,
    ZcaConfig,
    fit_standardization,
    restore_standardization,
)
from conviction.data.standardize.whitening import mean_and_covariance

PLAIN_ZCA = {"contrast": False, "epsilon": 1e-3}


def pictures(count: int = 400, seed: int = 0, side: int = 4, num_channels: int = 3) -> np.ndarray:
    """Pictures whose values vary together: a few patterns in random strength, and noise."""
    drawn = np.random.default_rng(seed)
    patterns = drawn.normal(0, 14, (5, side * side * num_channels))
    values = 128 + drawn.normal(0, 1, (count, 5)) @ patterns + drawn.normal(0, 6, (count, patterns.shape[1]))
    return values.round().clip(0, 255).astype(np.uint8).reshape(count, side, side, num_channels)


def as_batch(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def rows_of(images: torch.Tensor) -> np.ndarray:
    """Pictures as rows, in the order in which the whitening takes their values."""
    return images.permute(0, 2, 3, 1).flatten(1).double().numpy()


def fit(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray | None = None) -> Whitening:
    fitted = fit_standardization(config, images, np.arange(len(images)) if rows is None else rows)
    assert isinstance(fitted, Whitening)
    return fitted


def whitened_rows(config: StandardizeConfig, images: np.ndarray) -> np.ndarray:
    return rows_of(fit(config, images)(as_batch(images)))


def on_unit_scale(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1) / 255


def zca_by_numpy(values: np.ndarray, epsilon: float) -> np.ndarray:
    centred = values - values.mean(axis=0)
    variances, components = np.linalg.eigh(centred.T @ centred / len(values))
    return centred @ components @ np.diag(1 / np.sqrt(variances + epsilon)) @ components.T


class TestStatistics:
    @given(st.integers(2, 40), st.integers(0, 999), st.booleans())
    @settings(max_examples=30)
    def test_mean_and_covariance_are_those_of_numpy(self, count: int, seed: int, normalize: bool) -> None:
        images = np.random.default_rng(seed).integers(0, 256, (count, 3, 2, 3), dtype=np.uint8)
        contrast = Contrast(scale=1.0, floor=0.05, mean=0.5, deviation=0.2) if normalize else None
        rows = np.arange(0, count, 2)
        mean, covariance = mean_and_covariance(images, rows, contrast)
        values = on_unit_scale(images[rows])
        if contrast:
            centred = values - values.mean(axis=1, keepdims=True)
            values = centred / np.maximum(centred.std(axis=1, keepdims=True), 0.05)
        np.testing.assert_allclose(mean, values.mean(axis=0), atol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(values.T, bias=True), atol=1e-12)

    def test_many_chunks_are_one_pass(self) -> None:
        images = pictures(2500, side=2)
        mean, covariance = mean_and_covariance(images, np.arange(2500), None)
        np.testing.assert_allclose(mean, on_unit_scale(images).mean(axis=0), rtol=1e-12)
        np.testing.assert_allclose(covariance, np.cov(on_unit_scale(images).T, bias=True), atol=1e-12)

    def test_other_pictures_than_the_training_ones_have_no_influence(self) -> None:
        images, rows = pictures(60), np.arange(0, 60, 3)
        changed = images.copy()
        changed[1::3] = 255
        assert fit(ZcaConfig(), changed, rows) == fit(ZcaConfig(), images, rows)
        assert fit(ZcaConfig(), changed, np.arange(60)) != fit(ZcaConfig(), images, np.arange(60))


class TestZca:
    def test_by_hand(self) -> None:
        # One row of two pixels: (0, 0), (255, 255), (255, 0), (0, 255) are uncorrelated with variance 1/4 each, so that
        # each pixel is divided by sqrt(1/4 + 3/4) = 1 once the mean of 1/2 is gone.
        images = np.array([[0, 0], [255, 255], [255, 0], [0, 255]], np.uint8).reshape(4, 1, 2, 1)
        found = whitened_rows(ZcaConfig(contrast=False, epsilon=0.75), images)
        np.testing.assert_allclose(found, [[-0.5, -0.5], [0.5, 0.5], [0.5, -0.5], [-0.5, 0.5]], atol=1e-6)

    def test_correlated_pixels_by_hand(self) -> None:
        # Always equal pixels: variance 1/2 along (1, 1), none along (1, -1). (1/2, 1/2) has the length 1/sqrt(2) along
        # (1, 1), and divided by sqrt(1/2 + 1/2) = 1 stays as it is.
        images = np.array([[0, 0], [255, 255]], np.uint8).reshape(2, 1, 2, 1)
        fitted = fit(ZcaConfig(contrast=False, epsilon=0.5), images)
        np.testing.assert_allclose(rows_of(fitted(as_batch(images))), [[-0.5, -0.5], [0.5, 0.5]], atol=1e-6)
        # What never varied in training has the gain 1/sqrt(epsilon): (1/2, -1/2) becomes sqrt(2) times that.
        odd = np.array([[255, 0]], np.uint8).reshape(1, 1, 2, 1)
        np.testing.assert_allclose(rows_of(fitted(as_batch(odd))), [[0.5**0.5, -(0.5**0.5)]], atol=1e-6)

    def test_it_is_numpys(self) -> None:
        expected = zca_by_numpy(on_unit_scale(pictures()), 1e-3)
        np.testing.assert_allclose(whitened_rows(ZcaConfig(**PLAIN_ZCA), pictures()), expected, atol=1e-4)

    def test_with_contrast_it_is_numpys(self) -> None:
        values = on_unit_scale(pictures())
        values = values - values.mean(axis=1, keepdims=True)
        values = 2 * values / np.maximum(values.std(axis=1, keepdims=True), 0.01)
        found = whitened_rows(ZcaConfig(contrast_scale=2.0), pictures())
        np.testing.assert_allclose(found, zca_by_numpy(values, 0.1), atol=1e-4)

    @pytest.mark.parametrize("config", [ZcaConfig(**PLAIN_ZCA), ZcaConfig(), ZcaConfig(epsilon=0.01)], ids=repr)
    def test_covariance_of_the_whitened_split_is_the_identity_up_to_epsilon(self, config: ZcaConfig) -> None:
        fitted = fit(config, pictures())
        covariance = np.cov(rows_of(fitted(as_batch(pictures()))).T, bias=True)
        _, before = mean_and_covariance(pictures(), np.arange(400), fitted.contrast)
        variances, components = np.linalg.eigh(before)
        expected = components @ np.diag(variances / (variances + config.epsilon)) @ components.T
        np.testing.assert_allclose(covariance, expected, atol=1e-4)

    def test_as_epsilon_vanishes_it_is_the_identity(self) -> None:
        covariance = np.cov(whitened_rows(ZcaConfig(contrast=False, epsilon=1e-9), pictures()).T, bias=True)
        np.testing.assert_allclose(covariance, np.eye(48), atol=1e-4)

    def test_the_matrix_is_symmetric_which_makes_it_zca(self) -> None:
        mean, matrix = fit(ZcaConfig(), pictures())._matrix(torch.device("cpu"))
        torch.testing.assert_close(matrix, matrix.T, atol=1e-5, rtol=0)
        assert mean.shape == (48,)

    def test_the_way_back_is_exact(self) -> None:
        unseen = as_batch(pictures(seed=1))
        fitted = fit(ZcaConfig(**PLAIN_ZCA), pictures())
        torch.testing.assert_close(fitted.inverted(fitted(unseen)), unseen / 255, atol=1e-4, rtol=0)

    def test_with_contrast_the_whitening_is_undone_exactly(self) -> None:
        unseen = as_batch(pictures(seed=1))
        fitted = fit(ZcaConfig(), pictures())
        assert fitted.contrast is not None
        expected = fitted.contrast.inverted(fitted.contrast(unseen))
        torch.testing.assert_close(fitted.inverted(fitted(unseen)), expected, atol=1e-4, rtol=0)

    def test_fewer_pictures_than_values(self) -> None:
        found = whitened_rows(ZcaConfig(**PLAIN_ZCA), pictures(10))
        np.testing.assert_allclose(found, zca_by_numpy(on_unit_scale(pictures(10)), 1e-3), atol=1e-3)

    @pytest.mark.parametrize("wrong", [{"epsilon": 0.0}, {"epsilon": -1.0}, {"contrast_floor": 0.0}, {"scale": 1}])
    def test_senseless_settings_are_refused(self, wrong: dict[str, float]) -> None:
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            ZcaConfig.model_validate(wrong)


class TestPca:
    def test_whitened_scores_are_scikit_learns(self) -> None:
        values = on_unit_scale(pictures())
        known = PCA(n_components=7, whiten=True, svd_solver="full").fit(values)
        # scikit-learn divides by n - 1, we by n as for every deviation here; and we turn the scores back into pictures.
        expected = known.transform(values) * np.sqrt(400 / 399) @ known.components_
        found = whitened_rows(PcaConfig(components=7, epsilon=0.0), pictures())
        np.testing.assert_allclose(found, expected, atol=1e-4)

    def test_projection_is_scikit_learns(self) -> None:
        values = on_unit_scale(pictures())
        known = PCA(n_components=7, svd_solver="full").fit(values)
        expected = known.inverse_transform(known.transform(values))
        fitted = fit(PcaConfig(components=7, whiten=False), pictures())
        back = rows_of(fitted.inverted(fitted(as_batch(pictures()))))
        np.testing.assert_allclose(back, expected, atol=1e-5)

    @pytest.mark.parametrize("share", [0.3, 0.8, 0.95, 0.999])
    def test_a_share_of_the_variance_is_scikit_learns(self, share: float) -> None:
        known = PCA(n_components=share, svd_solver="full").fit(on_unit_scale(pictures()))
        assert len(fit(PcaConfig(components=share), pictures()).gains) == known.n_components_

    def test_by_hand(self) -> None:
        # As in ZCA's case, but the pixels differ in variance: 1/4 and (51 / 255)² = 1/25 about their means.
        images = np.array([[0, 0], [255, 102], [255, 0], [0, 102]], np.uint8).reshape(4, 1, 2, 1)
        first = whitened_rows(PcaConfig(components=1, epsilon=0.0), images)
        np.testing.assert_allclose(first, [[-1, 0], [1, 0], [1, 0], [-1, 0]], atol=1e-6)
        both = whitened_rows(PcaConfig(epsilon=0.0), images)
        np.testing.assert_allclose(both, [[-1, -1], [1, 1], [1, -1], [-1, 1]], atol=1e-6)
        plain = whitened_rows(PcaConfig(whiten=False), images)
        np.testing.assert_allclose(plain, [[-0.5, -0.2], [0.5, 0.2], [0.5, -0.2], [-0.5, 0.2]], atol=1e-6)

    def test_directions_without_variance_are_left_out(self) -> None:
        # Ten pictures vary along nine directions at most.
        fitted = fit(PcaConfig(epsilon=0.0), pictures(10))
        assert fitted.components.shape == (48, 9)
        assert fitted(as_batch(pictures(10, seed=1))).isfinite().all()

    def test_more_components_than_there_are(self) -> None:
        with pytest.raises(ConfigError, match="50 are asked for, but the training pictures vary along 48 alone"):
            fit(PcaConfig(components=50), pictures())

    def test_equal_pictures(self) -> None:
        with pytest.raises(ConfigError, match="differ from one another"):
            fit(PcaConfig(), np.full((5, 2, 2, 1), 9, np.uint8))

    @pytest.mark.parametrize("components", [0, -1, 1.0, 0.0, 1.5, True])
    def test_senseless_numbers_of_components(self, components: object) -> None:
        with pytest.raises(ValidationError, match="components"):
            PcaConfig.model_validate({"components": components})


class TestSizes:
    @pytest.mark.parametrize("config", [ZcaConfig(), PcaConfig()], ids=["zca", "pca"])
    def test_large_pictures_are_refused_before_anything_is_computed(self, config: StandardizeConfig) -> None:
        # Nothing is read: the array is a view of one number.
        images = np.broadcast_to(np.uint8(0), (10**6, 64, 64, 3))
        with pytest.raises(ConfigError) as caught:
            fit_standardization(config, images, np.arange(10**6))
        # 12,288² values of eight bytes are 1,207,959,552 bytes.
        for part in (f"{MOST_VALUES:,}", "12,288", "3×64×64", "1.2 GB", "4.8 GB", "data.image_size_px=52"):
            assert part in caught.value.message

    def test_other_sizes_than_it_was_fitted_to(self) -> None:
        with pytest.raises(ConfigError, match="fitted to pictures of 3×4×4 and cannot be applied to 3×5×5"):
            fit(ZcaConfig(), pictures(20))(as_batch(pictures(2, side=5)))

    def test_mixed_precision_around_it_changes_nothing(self) -> None:
        fitted, batch = fit(ZcaConfig(), pictures()), as_batch(pictures())
        with torch.autocast("cpu", torch.bfloat16):
            mixed = fitted(batch)
        assert mixed.dtype == torch.float32
        assert torch.equal(mixed, fitted(batch))


class TestRestoring:
    """What a damaged or hostile file may hold. Its checksum is that of what it holds."""

    FITTED = fit(ZcaConfig(), pictures(20))

    def refused(self, match: str, **changed: torch.Tensor) -> None:
        with pytest.raises(DataError, match=match):
            restore_standardization(self.FITTED.record(), {**self.FITTED.tensors(), **changed})

    def test_a_tensor_that_is_missing(self) -> None:
        with pytest.raises(DataError, match="needs tensors of the shapes"):
            restore_standardization(self.FITTED.record(), {"mean": self.FITTED.mean})

    def test_wrong_shapes(self) -> None:
        self.refused("needs tensors of the shapes", mean=torch.zeros(47))
        self.refused("needs tensors of the shapes", components=torch.zeros(48, 47))
        self.refused("needs tensors of the shapes", more=torch.zeros(1))

    def test_wrong_numbers(self) -> None:
        self.refused("finite numbers of float32", mean=torch.full((48,), torch.nan))
        self.refused("finite numbers of float32", mean=torch.zeros(48, dtype=torch.float64))
        self.refused("finite numbers of float32", components=torch.full((48, 48), torch.inf))
        self.refused("gains must be positive", gains=torch.zeros(48))

    def test_those_of_another_model(self) -> None:
        self.refused("not those that the model was saved with", **fit(ZcaConfig(), pictures(30)).tensors())

    def test_a_size_beyond_all_memory_is_refused_unread(self) -> None:
        record = self.FITTED.record().model_copy(update={"input_shape": (3, 65536, 65536)})
        with pytest.raises(DataError, match="needs tensors of the shapes"):
            restore_standardization(record, self.FITTED.tensors())

    def test_equal_ones_are_equal(self) -> None:
        again = dataclasses.replace(self.FITTED, gains=self.FITTED.gains.clone())
        assert (again, hash(again)) == (self.FITTED, hash(self.FITTED))
        assert dataclasses.replace(self.FITTED, gains=2 * self.FITTED.gains) != self.FITTED
