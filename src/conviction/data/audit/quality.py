"""What is odd about single pictures: empty, dark, bright, blurred, of another size than the rest.

Dark and bright are absolute. Blurred and odd sizes are relative to the judged pictures. What more than one in twenty of
them share describes the set and is counted, not listed: written digits are thin on black by nature.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from conviction.core.audit_record import FindingKind

MEASURES = ("lowest", "highest", "level_5", "level_95", "deviation", "detail")
_LOWEST, _HIGHEST, _LEVEL_5, _LEVEL_95, _DEVIATION, _DETAIL = range(len(MEASURES))

# Of 255: below is night, above is glare, for 95 of 100 pixels.
DARK_LEVEL, BRIGHT_LEVEL = 25, 240
COMMON_SHARE = 0.05
# Robust deviations from the median; of normally distributed values, 3 in 100,000 lie further below.
BLUR_DEVIATIONS = 4.0
MOST_TIMES_AREA, MOST_TIMES_ASPECT = 4.0, 2.0
_FEWEST_TO_COMPARE = 20
# Sharpness is judged at no more than this, as a network would see it.
_JUDGED_SIDE_PX = 256
_NORMAL = 1.4826
# Of 255: a picture with less contrast is not judged for sharpness.
_LEAST_DEVIATION = 2.0
# Of a constant set's deviations.
_LEAST_SPREAD = 0.05


@dataclass(frozen=True)
class Judgement:
    """By kind, the rows that are odd and the reason of each; and how many where the set is so by nature."""

    reasons: dict[FindingKind, dict[int, str]]
    by_nature: dict[FindingKind, int]


def measured(grey: Image.Image) -> np.ndarray:
    """`MEASURES` of a grey picture: levels of 255, their deviation, and detail, the deviation of the Laplacian."""
    counts = np.array(grey.histogram()[:256], np.float64)
    levels = np.arange(256)
    total = counts.sum()
    present = np.flatnonzero(counts)
    heap = counts.cumsum()
    low, high = np.searchsorted(heap, (0.05 * total, 0.95 * total))
    mean = counts @ levels / total
    deviation = (max(0.0, counts @ levels**2 / total - mean**2)) ** 0.5
    if max(grey.size) > _JUDGED_SIDE_PX:
        grey = grey.copy()
        grey.thumbnail((_JUDGED_SIDE_PX, _JUDGED_SIDE_PX))
    return np.array([present[0], present[-1], low, high, deviation, _detail(np.asarray(grey, np.int16))], np.float32)


def _detail(levels: np.ndarray) -> float:
    """The deviation of the Laplacian over the inner pixels; 0 where there are none."""
    if min(levels.shape) < 3:
        return 0.0
    inner = 4 * levels[1:-1, 1:-1]
    inner = inner - levels[:-2, 1:-1] - levels[2:, 1:-1] - levels[1:-1, :-2] - levels[1:-1, 2:]
    return float(inner.std())


def judge(measures: np.ndarray, sizes_px: np.ndarray, judged: np.ndarray, readable: np.ndarray) -> Judgement:
    """What is odd about the rows `judged`; of all `readable` rows, which are of one colour alone.

    `measures` is (N, `len(MEASURES)`), `sizes_px` (N, 2).
    """
    empty = {
        row: f"is of one colour alone (grey level {measures[row, _LOWEST]:.0f} of 255)"
        for row in readable[measures[readable, _LOWEST] == measures[readable, _HIGHEST]].tolist()
    }
    full = np.array([row for row in judged.tolist() if row not in empty], np.int64)
    found: dict[FindingKind, dict[int, str]] = {
        "empty": empty,
        "dark": {
            row: f"is very dark: 95 % of its pixels are at {measures[row, _LEVEL_95]:.0f} of 255 or below"
            for row in full[measures[full, _LEVEL_95] < DARK_LEVEL].tolist()
        },
        "bright": {
            row: f"is very bright: 95 % of its pixels are at {measures[row, _LEVEL_5]:.0f} of 255 or above"
            for row in full[measures[full, _LEVEL_5] > BRIGHT_LEVEL].tolist()
        },
        "blurred": _blurred(measures, full),
        "odd_size": _odd_sizes(sizes_px, judged),
    }
    common = {kind: len(rows) for kind, rows in found.items() if len(rows) > COMMON_SHARE * max(1, len(judged))}
    # Nothing is to be seen in an empty picture, however many there are.
    common.pop("empty", None)
    return Judgement({kind: rows for kind, rows in found.items() if kind not in common}, common)


def _blurred(measures: np.ndarray, rows: np.ndarray) -> dict[int, str]:
    """Pictures with far less fine detail for their contrast than the others."""
    rows = rows[measures[rows, _DEVIATION] >= _LEAST_DEVIATION]
    if len(rows) < _FEWEST_TO_COMPARE:
        return {}
    share = measures[rows, _DETAIL] / measures[rows, _DEVIATION]
    sharpness = np.log(np.maximum(share, 1e-3))
    median = np.median(sharpness)
    spread = max(_LEAST_SPREAD, _NORMAL * float(np.median(np.abs(sharpness - median))))
    return {
        row: f"looks blurred: its fine detail is {100 * np.exp(value - median):.0f} % of the usual"
        for row, value in zip(rows.tolist(), sharpness.tolist(), strict=True)
        if value < median - BLUR_DEVIATIONS * spread
    }


def _odd_sizes(sizes_px: np.ndarray, rows: np.ndarray) -> dict[int, str]:
    """Where nearly all have one size, those of another; elsewhere, those far from the median area or proportions."""
    if len(rows) == 0:
        return {}
    sizes, counts = np.unique(sizes_px[rows], axis=0, return_counts=True)
    height, width = sizes[counts.argmax()].tolist()
    if counts.max() >= (1 - COMMON_SHARE) * len(rows):
        return {
            row: f"is stored as {sizes_px[row, 0]}×{sizes_px[row, 1]} pixels, nearly all others as {height}×{width}"
            for row in rows[(sizes_px[rows] != (height, width)).any(axis=1)].tolist()
        }
    area = np.log(sizes_px[rows].prod(axis=1))
    aspect = np.log(sizes_px[rows, 0] / sizes_px[rows, 1])
    odd = np.abs(area - np.median(area)) > np.log(MOST_TIMES_AREA)
    odd |= np.abs(aspect - np.median(aspect)) > np.log(MOST_TIMES_ASPECT)
    typical = np.exp(np.median(area) / 2)
    return {
        row: f"is stored as {sizes_px[row, 0]}×{sizes_px[row, 1]} pixels; the usual area is that of "
        f"{typical:.0f}×{typical:.0f}"
        for row in rows[odd].tolist()
    }
