from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from hypothesis import given
from hypothesis import strategies as st

from conviction.data.audit.signature import (
    SIGNATURE_LENGTH,
    STRICTEST,
    least_similarities,
    mirror_signs,
    signatures,
)
from pictures import scene


def thumbnail(seed: int) -> np.ndarray:
    return scene(seed, (32, 32))[:, :, 0]


def signature(*thumbnails: np.ndarray) -> torch.Tensor:
    return signatures(torch.from_numpy(np.stack(thumbnails)))[0]


def wave(across: int, down: int) -> np.ndarray:
    """The picture whose cosine transform has one number alone."""
    place = np.arange(32)
    columns, rows = (np.cos(np.pi * (2 * place + 1) * frequency / 64) for frequency in (across, down))
    return np.rint(128 + 100 * np.outer(rows, columns)).astype(np.uint8)


class TestSignatures:
    @pytest.mark.parametrize(("across", "down"), [(1, 0), (0, 1), (3, 4), (11, 11)])
    def test_a_single_wave_is_a_single_number(self, across: int, down: int) -> None:
        [found] = signature(wave(across, down))
        expected = torch.zeros(144)
        expected[12 * down + across] = 1
        # Rounding to whole grey levels leaves up to a hundredth elsewhere, most at high frequencies.
        assert (found - expected[1:]).abs().max() < 0.02

    def test_frequencies_are_weighted_by_hand(self) -> None:
        # The amplitudes 60 and 20 at the frequencies 1 and 3, weighted to 60 and 60: half of the length each.
        place = np.arange(32)
        row = 60 * np.cos(np.pi * (2 * place + 1) / 64) + 20 * np.cos(np.pi * (2 * place + 1) * 3 / 64)
        [found] = signature(np.rint(128 + np.tile(row, (32, 1))).astype(np.uint8))
        assert found[0] == pytest.approx(math.sqrt(1 / 2), abs=0.01)
        assert found[2] == pytest.approx(math.sqrt(1 / 2), abs=0.01)

    def test_equal_to_scipys_transform(self) -> None:
        picture = thumbnail(1)
        transformed = scipy.fft.dctn(picture.astype(np.float64), norm="ortho")[:12, :12]
        frequency = np.hypot(*np.mgrid[:12, :12])
        expected = (transformed * frequency).ravel()[1:]
        assert np.allclose(signature(picture)[0], expected / np.linalg.norm(expected), atol=1e-5)

    def test_the_deviation_of_grey_levels(self) -> None:
        halves = np.full((32, 32), 100, np.uint8)
        halves[:16] = 110
        assert signatures(torch.from_numpy(halves[None]))[1].tolist() == [5.0]

    @given(st.floats(0.3, 1.7), st.floats(-10, 10))
    def test_brightness_and_contrast_do_not_count(self, gain: float, offset: float) -> None:
        levels = 120 + 0.4 * (thumbnail(2).astype(np.float64) - 120)
        changed = np.clip(np.rint(120 + gain * (levels - 120) + offset), 0, 255).astype(np.uint8)
        plain, other = signature(np.rint(levels).astype(np.uint8), changed)
        assert float(plain @ other) > 0.98

    def test_unrelated_pictures_are_unlike(self) -> None:
        found = signature(*(thumbnail(seed) for seed in range(60)))
        alike = (found @ found.T).fill_diagonal_(0)
        assert alike.abs().max() < 0.5

    def test_a_constant_picture_has_no_direction(self) -> None:
        found, deviations = signatures(torch.full((1, 32, 32), 200, dtype=torch.uint8))
        assert deviations.tolist() == [0]
        assert found.norm() < 1.001

    def test_mirroring_changes_signs_alone(self) -> None:
        picture = thumbnail(3)
        plain, mirrored = signature(picture, np.ascontiguousarray(picture[:, ::-1]))
        assert len(mirror_signs()) == SIGNATURE_LENGTH
        assert torch.allclose(plain * mirror_signs(), mirrored, atol=1e-5)
        assert not torch.allclose(plain, mirrored, atol=0.1)


class TestLeastSimilarities:
    def test_few_pictures_tell_nothing_of_one_another(self) -> None:
        found = signature(*(thumbnail(seed) for seed in range(19)))
        assert least_similarities(found, 0.85).tolist() == pytest.approx([0.95] * 19)
        assert least_similarities(found, 0.97).tolist() == pytest.approx([0.97] * 19)

    def test_by_hand_on_a_line(self) -> None:
        """Directions on a quarter circle, one degree apart: one dimension, the sample is the whole set."""
        angles = torch.deg2rad(torch.arange(0, 90, 1, dtype=torch.float32))
        least = least_similarities(torch.stack([angles.cos(), angles.sin()], dim=1), 0.5)
        # At the end the fifth nearest is 5 degrees away. In one dimension the nearest is expected at 5 / 5 = 1 degree:
        # 1 - cos 1° = 0.000152, of which three tenths are allowed; but the strictest threshold is 0.995.
        assert least[0] == pytest.approx(STRICTEST)

    def test_by_hand_in_many_dimensions(self) -> None:
        """All at one distance: it does not grow with the rank, as in infinitely many dimensions; 60 are the most."""
        least = least_similarities(torch.eye(100), 0.5)
        # Every other is at distance 1; the nearest is expected at 1 * (1 / 5) ** (2 / 60).
        assert least.tolist() == pytest.approx([1 - 0.3 * 0.2 ** (1 / 30)] * 100, abs=1e-4)

    def test_never_below_what_is_asked_for(self) -> None:
        assert least_similarities(torch.eye(100), 0.85).tolist() == pytest.approx([0.85] * 100)
        assert least_similarities(torch.eye(100), 0.999).tolist() == pytest.approx([0.999] * 100)

    def test_where_pictures_crowd_more_is_asked_for(self) -> None:
        random = torch.Generator().manual_seed(0)
        apart = torch.randn(200, 40, generator=random)
        crowd = torch.randn(1, 40, generator=random) + 0.4 * torch.randn(200, 40, generator=random)
        found = torch.cat([apart, crowd])
        least = least_similarities(found / found.norm(dim=1, keepdim=True), 0.5)
        assert least[200:].min() > least[:200].max()
