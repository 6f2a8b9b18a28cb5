"""How far a figure can be trusted."""

from __future__ import annotations

import math

Z_95 = 1.959963984540054


def wilson_interval(num_correct: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a proportion, at 95 % for the default `z`.

    It covers the chance of the sample of images alone: not the seed, not the choice of the network.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22, 1927.

    >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
    [0.4902, 0.9433]
    """
    assert 0 <= num_correct <= count != 0
    share = num_correct / count
    scale = 1 + z * z / count
    centre = (share + z * z / (2 * count)) / scale
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / scale
    # Where all or none are correct, the share is a bound, which rounding must not pass.
    return min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))
