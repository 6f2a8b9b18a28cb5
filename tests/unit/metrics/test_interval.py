from __future__ import annotations

import math

import pytest
from scipy.stats import binomtest, norm

from conviction.metrics.interval import Z_95, wilson_interval

CASES = [
    (0, 1),
    (1, 1),
    (0, 10),
    (10, 10),
    (8, 10),
    (1, 3),
    (50, 100),
    (8_070, 10_000),
    (1, 1_000_000),
    (999_999, 1_000_000),
]


@pytest.mark.parametrize(("num_correct", "count"), CASES)
def test_agrees_with_scipy(num_correct: int, count: int) -> None:
    expected = binomtest(num_correct, count).proportion_ci(0.95, method="wilson")
    assert wilson_interval(num_correct, count) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_other_confidences_agree_with_scipy(confidence: float) -> None:
    expected = binomtest(7, 20).proportion_ci(confidence, method="wilson")
    found = wilson_interval(7, 20, z=float(norm.ppf((1 + confidence) / 2)))
    assert found == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_half_of_four_by_hand() -> None:
    # With z = 2 and p = 1/2: the centre is 1/2, the half width 2 · √(1/16 + 4/64) / (1 + 4/4) = √(1/8).
    assert wilson_interval(2, 4, z=2.0) == pytest.approx((0.5 - math.sqrt(1 / 8), 0.5 + math.sqrt(1 / 8)))


@pytest.mark.parametrize("count", [1, 7, 10_000])
def test_it_stays_in_0_1_and_holds_the_share(count: int) -> None:
    for num_correct in {0, 1, count // 2, count - 1, count}:
        low, high = wilson_interval(num_correct, count)
        assert 0 <= low <= num_correct / count <= high <= 1


def test_z_is_the_normal_distributions() -> None:
    assert pytest.approx(norm.ppf(0.975), abs=1e-15) == Z_95


@pytest.mark.parametrize(("num_correct", "count"), [(-1, 5), (6, 5), (0, 0)])
def test_impossible_counts_are_our_own_bugs(num_correct: int, count: int) -> None:
    with pytest.raises(AssertionError):
        wilson_interval(num_correct, count)
