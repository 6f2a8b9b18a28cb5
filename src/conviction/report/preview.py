"""Pictures beside what augmentations make of them."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conviction.report.figure import new_figure, save_figure, title_inches
from conviction.report.sheet import GAP_INCHES, picture_axes, shortened

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL_INCHES = 1.0
_SMALLEST_CELL_INCHES = 0.5
_CAPTION_INCHES = 0.14
_MARGIN_INCHES = 0.12
# Between the originals and the variants.
_GUTTER_INCHES = 0.16
_LETTER_INCHES = 0.088
_HEAD_INCHES = 0.29
_MOST_SHARES = 4
_LEAST_WIDTH_INCHES = 4.2
_HEADS = ("original", "augmented, one epoch each")
_LONGEST_CLASS = 11


@dataclass(frozen=True)
class PreviewRow:
    """A picture (H, W, C), variants of it (B, H2, W2, C), and the shares of classes that each of them has, if any."""

    label: str
    original: np.ndarray
    variants: np.ndarray
    shares: tuple[dict[str, float], ...] = ()


def draw_preview(rows: Sequence[PreviewRow], title: str, path: Path) -> None:
    """A row for each picture: the original first, the variants beside it, all in one scale.

    Where labels are mixed, the shares of the classes stand below each variant.

    Raises: ConfigError for another ending than .png or .svg, StorageError.
    """
    cell = _Cell.fitting(rows)
    width = cell.left + _GUTTER_INCHES + (1 + len(rows[0].variants)) * cell.width + _MARGIN_INCHES
    width = max(width, _LEAST_WIDTH_INCHES)
    title = _wrapped(title, width)
    top = title_inches(title) + _HEAD_INCHES
    height = top + len(rows) * cell.height + _MARGIN_INCHES
    figure = new_figure(width, height, arranged=False)
    _head(figure, rows[0], cell, top)
    for index, row in enumerate(rows):
        _draw_row(figure, row, height - top - (index + 1) * cell.height, cell)
    save_figure(figure, title, path)


@dataclass(frozen=True)
class _Cell:
    """Inches of a cell, of one pixel in it, of the lines below a picture, and of the labels to the left of all."""

    width: float
    height: float
    pixel: float
    captions: float
    left: float

    @classmethod
    def fitting(cls, rows: Sequence[PreviewRow]) -> _Cell:
        pictures = [picture.shape for row in rows for picture in (row.original, row.variants[0])]
        height_px, width_px = (max(shape[axis] for shape in pictures) for axis in (0, 1))
        pixel = (_CELL_INCHES - GAP_INCHES) / max(height_px, width_px)
        captions = _CAPTION_INCHES * max((len(_described(shares)) for row in rows for shares in row.shares), default=0)
        width, height = (max(_SMALLEST_CELL_INCHES, side * pixel + GAP_INCHES) for side in (width_px, height_px))
        longest = max(len(shortened(row.label)) for row in rows)
        return cls(width, height + captions, pixel, captions, 2 * _MARGIN_INCHES + longest * _LETTER_INCHES)


def _wrapped(title: str, width: float) -> str:
    """A title's lines broken after commas, and within a part only where it alone is too long."""
    letters = max(30, int(width / _LETTER_INCHES))
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


def _head(figure: Figure, row: PreviewRow, cell: _Cell, top: float) -> None:
    width, height = figure.get_size_inches()
    y = 1 - (top - 0.04) / height
    before, after = (f"{shape[0]}×{shape[1]}" for shape in (row.original.shape, row.variants.shape[1:]))
    heads = (f"original, {before}", f"augmented, {after}, one epoch each") if before != after else _HEADS
    x = cell.left + cell.width / 2
    figure.text(x / width, y, heads[0], ha="center", va="bottom", fontsize=8, color="#555555")
    x = cell.left + cell.width + _GUTTER_INCHES + (cell.width - row.variants.shape[2] * cell.pixel) / 2
    figure.text(x / width, y, heads[1], ha="left", va="bottom", fontsize=8, color="#555555")


def _draw_row(figure: Figure, row: PreviewRow, bottom: float, cell: _Cell) -> None:
    width, height = figure.get_size_inches()
    middle = bottom + (cell.height + cell.captions) / 2
    x, y = (cell.left - 0.1) / width, middle / height
    figure.text(x, y, shortened(row.label), ha="right", va="center", fontsize=9, parse_math=False)
    _draw_cell(figure, row.original, (cell.left, bottom), cell)
    for index, picture in enumerate(row.variants):
        left = cell.left + _GUTTER_INCHES + (1 + index) * cell.width
        lowest = _draw_cell(figure, picture, (left, bottom), cell)
        if row.shares:
            x, y = (left + cell.width / 2) / width, (lowest - 0.02) / height
            shares = "\n".join(_described(row.shares[index]))
            figure.text(x, y, shares, ha="center", va="top", fontsize=6, linespacing=1.1, parse_math=False)


def _draw_cell(figure: Figure, picture: np.ndarray, corner: tuple[float, float], cell: _Cell) -> float:
    """A picture in the middle of its cell; how high its lower edge lies."""
    height, width = (side * cell.pixel + GAP_INCHES for side in picture.shape[:2])
    left = corner[0] + (cell.width - width) / 2
    lowest: float = corner[1] + cell.captions + (cell.height - cell.captions - height) / 2
    inches = figure.get_size_inches()
    picture_axes(figure, picture, (left, lowest, width, height), (inches[0], inches[1]))
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
