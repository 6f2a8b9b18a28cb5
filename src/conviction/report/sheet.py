"""A sheet of example pictures, a row for each class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conviction.report.figure import new_figure, save_figure, title_inches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_CLASSES = 60
# Beyond so many rows a sheet is no longer seen at once: two columns.
_MOST_ROWS = 16
_CELL_INCHES = 0.75
_LABEL_INCHES = 1.7
_GAP_INCHES = 0.06
_LONGEST_LABEL = 22
# Of the title, at the most.
_LETTER_INCHES = 0.085


def draw_sheet(examples: Mapping[str, np.ndarray], counts: Mapping[str, int], title: str, path: Path) -> None:
    """Pictures (B, H, W, C), `uint8`, of each class in a row, beside its name and its count.

    At most 60 classes are shown, and the title says so.

    Raises: ConfigError for another ending than .png or .svg, StorageError.
    """
    shown = list(examples)[:_MOST_CLASSES]
    if len(shown) < len(examples):
        title = f"{title}\nthe first {len(shown)} of {len(examples):,} classes"
    num_columns = 1 if len(shown) <= _MOST_ROWS else 2
    num_rows = -(-len(shown) // num_columns)
    per_row = max(len(pictures) for pictures in examples.values())
    height, width = next(iter(examples.values())).shape[1:3]
    cell_width, cell_height = _cell_inches(height, width)
    column_width = _LABEL_INCHES + per_row * cell_width
    top = title_inches(title) + 0.12
    titled = 0.4 + _LETTER_INCHES * max(map(len, title.split("\n")))
    size = (max(titled, num_columns * column_width + 0.3), top + num_rows * cell_height + 0.1)
    figure = new_figure(*size, arranged=False)
    for index, name in enumerate(shown):
        left = 0.15 + index // num_rows * column_width
        bottom = size[1] - top - (index % num_rows + 1) * cell_height
        _label(figure, name, counts[name], (left + _LABEL_INCHES - 0.12, bottom + cell_height / 2), size)
        for place, picture in enumerate(examples[name]):
            corner = (left + _LABEL_INCHES + place * cell_width + _GAP_INCHES / 2, bottom + _GAP_INCHES / 2)
            box = (*corner, cell_width - _GAP_INCHES, cell_height - _GAP_INCHES)
            picture_axes(figure, picture, box, size)
    save_figure(figure, title, path)


def _cell_inches(height_px: int, width_px: int) -> tuple[float, float]:
    """Width and height of a cell in the pictures' proportions, but neither below a third of the usual."""
    longer = max(height_px, width_px)
    sides = (max(1 / 3, width_px / longer), max(1 / 3, height_px / longer))
    return sides[0] * _CELL_INCHES, sides[1] * _CELL_INCHES


def shortened(name: str, longest: int = _LONGEST_LABEL) -> str:
    """The name, or its beginning and an ellipsis."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _label(figure: Figure, name: str, count: int, place: tuple[float, float], size: tuple[float, float]) -> None:
    x, y = place[0] / size[0], place[1] / size[1]
    # A class may hold a dollar sign, which would begin a formula.
    figure.text(x, y, shortened(name), ha="right", va="bottom", fontsize=9, parse_math=False)
    figure.text(x, y - 0.02 / size[1], f"{count:,}", ha="right", va="top", fontsize=8, color="#555555")


def picture_axes(
    figure: Figure,
    picture: np.ndarray,
    box: tuple[float, float, float, float],
    size: tuple[float, float],
    interpolation: str = "antialiased",
) -> None:
    """A picture (H, W, C), `uint8`, in a box of left, bottom, width and height, in a figure of `size`: all inches."""
    left, bottom, width, height = box
    place = (left / size[0], bottom / size[1], width / size[0], height / size[1])
    axes = figure.add_axes(place)
    grey = picture.shape[2] == 1
    shown, colours = (picture[:, :, 0], "gray") if grey else (picture, None)
    # Where `antialiased`, matplotlib smooths what is enlarged by less than three, and shows the pixels beyond that.
    axes.imshow(shown, cmap=colours, vmin=0, vmax=255, interpolation=interpolation)
    axes.set_xticks([])
    axes.set_yticks([])
    # A thin frame: white pictures end somewhere.
    for spine in axes.spines.values():
        spine.set(color="#BBBBBB", linewidth=0.5)
