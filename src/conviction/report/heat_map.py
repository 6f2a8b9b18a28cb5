"""A map of class scores beside the picture that it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from conviction.report.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_CLASSES = 3
_PANEL_INCHES = 3.2
_WIDE = 0.25


def draw_heat_map(
    picture: np.ndarray,
    maps: Sequence[tuple[str, np.ndarray]],
    stride_px: tuple[int, int],
    window_px: tuple[int, int],
    title: str,
    path: Path,
) -> None:
    """The picture (H, W, C), `uint8`, and the map (h, w) of each named class on [0, 1], laid where its windows are.

    A cell of a map is drawn around the centre of the window that it speaks of. At most three maps are shown.
    """
    from matplotlib.ticker import MaxNLocator

    shown = maps[:_MOST_CLASSES]
    height, width = picture.shape[:2]
    figure, all_axes = _panels(1 + len(shown), height / width)
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[2] == 1 else {}
    pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
    for axes in all_axes:
        axes.imshow(pixels, extent=(0, width, height, 0), **grey)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_xlabel("pixels", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5 if height * 3 > width else 1, integer=True))
    all_axes[0].set_title("the picture, and one window", fontsize=9)
    _draw_window(all_axes[0], window_px)
    image = None
    for axes, (name, values) in zip(all_axes[1:], shown, strict=True):
        top, left = (window_px[side] / 2 - stride_px[side] / 2 for side in (0, 1))
        rows, columns = values.shape
        extent = (left, left + columns * stride_px[1], top + rows * stride_px[0], top)
        image = axes.imshow(values, extent=extent, cmap="viridis", vmin=0, vmax=1, alpha=0.75, interpolation="nearest")
        axes.set_title(f"probability of {name}", fontsize=9, parse_math=False)
    if image is not None:
        bar = figure.colorbar(image, ax=list(all_axes[1:]), shrink=0.7)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("probability", fontsize=8)
    save_figure(figure, title, path)


def _panels(count: int, ratio: float) -> tuple[Figure, list[Axes]]:
    """Panels side by side; below each other for pictures that are much wider than high (`ratio`: height by width)."""
    if ratio < _WIDE:
        figure = new_figure(3 * _PANEL_INCHES, count * (3 * _PANEL_INCHES * max(ratio, 0.03) + 0.65) + 0.6)
        return figure, list(figure.subplots(count, 1, squeeze=False)[:, 0])
    figure = new_figure(_PANEL_INCHES * count + 0.8, _PANEL_INCHES * min(2.0, ratio) + 1.2)
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _draw_window(axes: Axes, window_px: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    frame = Rectangle((0, 0), window_px[1], window_px[0], fill=False, edgecolor="#D55E00", linewidth=1.5)
    axes.add_patch(frame)
