"""A map of class scores beside the picture that it speaks of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from conviction.report.figure import new_figure, save_figure

_MOST_CLASSES = 3
_PANEL_INCHES = 3.2


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
    shown = maps[:_MOST_CLASSES]
    height, width = picture.shape[:2]
    figure = new_figure(_PANEL_INCHES * (1 + len(shown)) + 0.8, _PANEL_INCHES * min(2.0, height / width) + 1.2)
    all_axes = figure.subplots(1, 1 + len(shown), squeeze=False)[0]
    grey = {"cmap": "gray", "vmin": 0, "vmax": 255} if picture.shape[2] == 1 else {}
    pixels = picture[:, :, 0] if picture.shape[2] == 1 else picture
    for axes in all_axes:
        axes.imshow(pixels, extent=(0, width, height, 0), **grey)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_xlabel("pixels", fontsize=8)
        axes.tick_params(labelsize=7)
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


def _draw_window(axes: object, window_px: tuple[int, int]) -> None:
    from matplotlib.patches import Rectangle

    frame = Rectangle((0, 0), window_px[1], window_px[0], fill=False, edgecolor="#D55E00", linewidth=1.5)
    axes.add_patch(frame)  # type: ignore[attr-defined]
