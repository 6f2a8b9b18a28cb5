"""Receptive fields laid over a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from conviction.core.architecture import Architecture, LayerRecord
from conviction.core.errors import ConfigError
from conviction.report.figure import BLUE, GREEN, ORANGE, new_figure, save_figure


def draw_fields(found: Architecture, picture: np.ndarray, path: Path) -> None:
    """The field of the middle position of each map that looks at part of the picture (H, W, 3), `uint8`, growing.

    Raises: ConfigError where no layer has such a field, StorageError.
    """
    from matplotlib.patches import Rectangle

    growing = _growing(found)
    if not growing:
        raise ConfigError(f"No layer of {found.name} looks at a part of the picture only.")
    figure = new_figure(9.0, 6.2)
    axes = figure.subplots()
    height, width = found.input[1:]
    axes.imshow(picture, extent=(0, width, height, 0))
    reach = [(0.0, float(height)), (0.0, float(width))]
    palette = [BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#000000"]
    for number, layer in enumerate(growing):
        seen = layer.receptive_field
        assert seen.size_px is not None
        assert seen.stride_px is not None
        assert seen.start_px is not None
        assert layer.output is not None
        corner, size = [], []
        for side in (0, 1):
            stride = seen.stride_px[side] or 0
            middle = (seen.start_px[side] or 0.0) + (layer.output[1 + side] // 2) * stride
            corner.append(middle - seen.size_px[side] / 2)
            size.append(seen.size_px[side])
        label = f"{layer.name}: {size[0]}×{size[1]}, stride {_by(seen.stride_px)}"
        colour = palette[number % len(palette)]
        frame = Rectangle((corner[1], corner[0]), size[1], size[0], fill=False, edgecolor=colour, linewidth=2)
        frame.set_label(label)
        axes.add_patch(frame)
        reach = [(min(reach[side][0], corner[side]), max(reach[side][1], corner[side] + size[side])) for side in (0, 1)]
    # Fields go beyond the picture, into the padding; of very large ones the beginning is shown.
    rows, columns = (
        (max(low, -length / 2), min(high, 1.5 * length))
        for (low, high), length in zip(reach, (height, width), strict=True)
    )
    axes.set_facecolor("#EEEEEE")
    # A frame at the edge is told from the axes by some room.
    room = 0.03 * max(columns[1] - columns[0], rows[1] - rows[0])
    axes.set_xlim(columns[0] - room, columns[1] + room)
    axes.set_ylim(rows[1] + room, rows[0] - room)
    for spine in axes.spines.values():
        spine.set_color("#BBBBBB")
    axes.set_xlabel("pixels")
    figure.legend(loc="outside right center", fontsize=7, frameon=False)
    save_figure(
        figure,
        f"{found.name}: what the middle position of each map sees of {height}×{width} (height×width) pixels",
        path,
    )


def _by(pair: tuple[float | None, float | None]) -> str:
    shown = [f"{side:g}" for side in pair if side is not None]
    return shown[0] if len(set(shown)) == 1 else "×".join(shown)


def _growing(found: Architecture, most: int = 8) -> list[LayerRecord]:
    """The layers at which the field grows, evenly chosen where they are many."""
    layers: list[LayerRecord] = []
    for layer in found.layers:
        seen = layer.receptive_field
        # Where the first position sees nothing, nothing tells where the middle one looks.
        moves = seen.stride_px is not None and None not in (*seen.stride_px, *(seen.start_px or (None,)))
        former = layers[-1].receptive_field.size_px if layers else None
        if moves and layer.output and len(layer.output) == 3 and seen.size_px != former:
            layers.append(layer)
    if len(layers) <= most:
        return layers
    return [layers[round(index * (len(layers) - 1) / (most - 1))] for index in range(most)]
