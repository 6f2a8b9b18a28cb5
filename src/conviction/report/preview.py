"""Pictures beside what augmentations make of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conviction.report.figure import DPI, new_figure, save_figure, title_inches
from conviction.report.sheet import picture_axes, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# A sheet of large pictures is no wider, so that it is seen at once.
_MOST_WIDTH_PX = 2400
_LEAST_WIDTH_PX = 504
# Small pictures are enlarged to about this, or, where many stand side by side, to this at the least.
_SIDE_PX, _LEAST_SIDE_PX = 128, 96
_MOST_VARIANTS, _FEWEST_VARIANTS = 8, 3
_BETWEEN_PX = 8
# Between the originals and the variants.
_GUTTER_PX = 20
_MARGIN_PX = 14
_HEAD_PX = 54
_LEAST_LABELS_PX = 80
_LABEL_LETTER_PX = 10.5
_TITLE_LETTER_PX = 10.5
_CAPTION_LINE_PX = 14
# A class and its share.
_CAPTION_WIDTH_PX = 116
_LEAST_CELL_WIDTH_PX = 60
_MOST_SHARES = 4
_LONGEST_CLASS = 11


@dataclass(frozen=True)
class PreviewRow:
    """A picture (H, W, C), variants of it (B, H2, W2, C), and the shares of classes that each of them has, if any."""

    label: str
    original: np.ndarray
    variants: np.ndarray
    shares: tuple[dict[str, float], ...] = ()


def fitting_variants(longest_px: int, labels: Sequence[str]) -> int:
    """How many variants stand beside originals of such a side in full size: at most eight, and at least three."""
    room_px = _MOST_WIDTH_PX - _labels_px(labels) - _GUTTER_PX - _MARGIN_PX
    num = room_px // (max(longest_px, _SIDE_PX) + _BETWEEN_PX) - 1
    return max(_FEWEST_VARIANTS, min(num, _MOST_VARIANTS))


def draw_preview(rows: Sequence[PreviewRow], title: str, path: Path) -> None:
    """A row for each picture: the original first, the variants beside it, all in cells of one size.

    Small pictures are enlarged by whole factors. Where labels are mixed, the shares of the classes stand below.

    Raises: ConfigError for another ending than .png or .svg, StorageError.
    """
    grid = _Grid.fitting(rows)
    width = max(grid.left_of(len(rows[0].variants)) + grid.width + _MARGIN_PX, _LEAST_WIDTH_PX)
    title = _wrapped(title, width)
    top = round(title_inches(title) * DPI) + _HEAD_PX
    height = top + len(rows) * grid.height + _MARGIN_PX
    # A little more: the rounding of inches may not cost a pixel.
    figure = new_figure((width + 0.01) / DPI, (height + 0.01) / DPI, arranged=False)
    _head(figure, rows[0], grid, height - top + _BETWEEN_PX // 2)
    for index, row in enumerate(rows):
        _draw_row(figure, row, height - top - (index + 1) * grid.height, grid)
    save_figure(figure, title, path)


@dataclass(frozen=True)
class _Grid:
    """Pixels of the drawing: a cell, the longest side of a picture in it, the lines below it, the labels beside all."""

    width: int
    height: int
    side: int
    captions: int
    labels: int

    @classmethod
    def fitting(cls, rows: Sequence[PreviewRow]) -> _Grid:
        shapes = [picture.shape for row in rows for picture in (row.original, row.variants[0])]
        labels = _labels_px([row.label for row in rows])
        room = (_MOST_WIDTH_PX - labels - _GUTTER_PX - _MARGIN_PX) // (1 + len(rows[0].variants)) - _BETWEEN_PX
        longest = max(max(shape[:2]) for shape in shapes)
        side = max(_LEAST_SIDE_PX, min(room, max(longest, _SIDE_PX)))
        heights, widths = zip(*(_drawn_size(shape, side) for shape in shapes), strict=True)
        lines = max((len(_described(shares)) for row in rows for shares in row.shares), default=0)
        captions = lines * _CAPTION_LINE_PX
        width = max(_CAPTION_WIDTH_PX if lines else _LEAST_CELL_WIDTH_PX, *widths)
        return cls(width + _BETWEEN_PX, max(heights) + captions + _BETWEEN_PX, side, captions, labels)

    def left_of(self, place: int) -> int:
        """Of the cells in a row: 0 is the original, then come the variants."""
        return self.labels + place * self.width + (_GUTTER_PX if place else 0)


def _labels_px(labels: Sequence[str]) -> int:
    longest = max(len(shortened(label)) for label in labels)
    return max(_LEAST_LABELS_PX, 2 * _MARGIN_PX + round(longest * _LABEL_LETTER_PX))


def _drawn_size(shape: Sequence[int], side: int) -> tuple[int, int]:
    """Height and width as drawn: a whole multiple where the picture is not larger than the side."""
    longest = max(shape[:2])
    factor = side // longest if longest <= side else side / longest
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _wrapped(title: str, width: int) -> str:
    """A title's lines broken after commas, and within a part only where it alone is too long."""
    letters = int(width / _TITLE_LETTER_PX)
    lines = []
    for line in title.split("\n"):
        lines.append("")
        for part in line.split(", "):
            before = f"{lines[-1]}, " if lines[-1] else ""
            # One more for the comma that may follow.
            if len(before + part) < letters:
                lines[-1] = before + part
                continue
            if lines[-1]:
                lines[-1] += ","
                lines.append("")
            lines[-1:] = textwrap.wrap(part, letters - 1, break_on_hyphens=False)
    return "\n".join(lines)


def _head(figure: Figure, row: PreviewRow, grid: _Grid, bottom: int) -> None:
    _, original = _drawn_size(row.original.shape, grid.side)
    _, augmented = _drawn_size(row.variants.shape[1:], grid.side)
    right = grid.left_of(0) + (grid.width + original) // 2
    left = grid.left_of(1) + (grid.width - augmented) // 2
    size = _described_size(row.original.shape, grid.side)
    _write(figure, (right, bottom), f"original\n{size}", ha="right", va="bottom", fontsize=8, color="#555555")
    head = f"augmented, one epoch each\n{_described_size(row.variants.shape[1:], grid.side)}"
    _write(figure, (left, bottom), head, ha="left", va="bottom", fontsize=8, color="#555555")


def _described_size(shape: Sequence[int], side: int) -> str:
    """`32×32, enlarged 4 times`."""
    longest = max(shape[:2])
    factor = side // longest
    scale = ", reduced" if longest > side else f", enlarged {factor} times" if factor > 1 else ""
    return f"{shape[0]}×{shape[1]}{scale}"


def _write(figure: Figure, place: tuple[float, float], text: str, **style: Any) -> None:
    width, height = figure.get_size_inches() * DPI
    figure.text(place[0] / width, place[1] / height, text, parse_math=False, **style)


def _draw_row(figure: Figure, row: PreviewRow, bottom: int, grid: _Grid) -> None:
    middle = bottom + (grid.height + grid.captions) / 2
    _write(figure, (grid.labels - 12, middle), shortened(row.label), ha="right", va="center", fontsize=9)
    _draw_cell(figure, row.original, (grid.left_of(0), bottom), grid)
    for index, picture in enumerate(row.variants):
        left = grid.left_of(1 + index)
        lowest = _draw_cell(figure, picture, (left, bottom), grid)
        if row.shares:
            shares = "\n".join(_described(row.shares[index]))
            _write(figure, (left + grid.width / 2, lowest - 5), shares, ha="center", va="top", fontsize=6)


def _draw_cell(figure: Figure, picture: np.ndarray, corner: tuple[int, int], grid: _Grid) -> int:
    """A picture in the middle of its cell, at whole pixels; how high its lower edge lies."""
    height, width = _drawn_size(picture.shape, grid.side)
    left = corner[0] + (grid.width - width) // 2
    lowest = corner[1] + grid.captions + (grid.height - grid.captions - height) // 2
    box = (left / DPI, lowest / DPI, width / DPI, height / DPI)
    inches = figure.get_size_inches()
    is_smaller = max(picture.shape[:2]) > grid.side
    picture_axes(figure, picture, box, (inches[0], inches[1]), "antialiased" if is_smaller else "nearest")
    return lowest


def _described(shares: dict[str, float]) -> list[str]:
    """`cat: 70 %` and `dog: 30 %`, the largest first; at most four lines, which add up to 100 %."""
    percents = sorted(_percents(shares).items(), key=lambda one: -one[1])
    shown = [(shortened(name, _LONGEST_CLASS), percent) for name, percent in percents if percent > 0]
    if len(shown) > _MOST_SHARES:
        shown, others = shown[: _MOST_SHARES - 1], shown[_MOST_SHARES - 1 :]
        shown.append(("others", sum(percent for _, percent in others)))
    return [f"{name}: {percent} %" for name, percent in shown]


def _percents(shares: dict[str, float]) -> dict[str, int]:
    """Whole percents that add up to 100: rounded down, and what is missing given to the largest remainders."""
    exact = {name: 100 * share / sum(shares.values()) for name, share in shares.items()}
    # Of a computed 30 %, 29.999998 may be left.
    whole = {name: int(percent + 1e-4) for name, percent in exact.items()}
    for name in sorted(exact, key=lambda name: whole[name] - exact[name])[: 100 - sum(whole.values())]:
        whole[name] += 1
    return whole
