"""A network as a picture: a box for each map, as high and as wide as the map, and as deep as it has channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conviction.core.architecture import Architecture, LayerRecord
from conviction.core.errors import ConfigError
from conviction.report.figure import BLUE, GREEN, GREY, ORANGE, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BOXES = 26
# Obliquely drawn: a step into the page goes so far right and up.
_INTO = (0.32, 0.24)
_GAP = 0.75
_COLOURS = {"map": BLUE, "vector": GREEN, "input": GREY}


@dataclass
class _Box:
    """One map or vector, and the layers between it and the one before."""

    shape: tuple[int, ...]
    kinds: list[str] = field(default_factory=list)
    parameters: int = 0

    @property
    def side(self) -> float:
        """The height of the front, in drawing units: logarithmic, so that 224 and 1 both are seen."""
        return 0.35 + 0.38 * math.log2(1 + (max(self.shape[1:]) if len(self.shape) == 3 else 1))

    @property
    def depth(self) -> float:
        """The depth, in drawing units."""
        return 0.12 + 0.11 * math.log2(1 + self.shape[0]) if len(self.shape) == 3 else 0.16

    @property
    def height(self) -> float:
        """What the box takes of the page's height."""
        if len(self.shape) == 3:
            return self.side
        return 0.3 + 0.3 * math.log2(1 + math.prod(self.shape))


def draw_diagram(found: Architecture, path: Path) -> None:
    """Write the picture as `.png` or `.svg`. Layers that keep the shape stand together with the one before them.

    Raises: ConfigError for another ending, StorageError.
    """
    boxes = _boxes(found)
    widths = [box.depth * (1 + _INTO[0]) + box.side * 0.35 for box in boxes]
    total = sum(widths) + _GAP * len(boxes)
    tallest = max(box.height + box.depth * _INTO[1] for box in boxes)
    figure = new_figure(max(6.0, min(30.0, total * 0.95)), max(2.8, tallest * 0.75 + 1.7))
    axes = figure.subplots()
    x = 0.0
    for number, (box, width) in enumerate(zip(boxes, widths, strict=True)):
        _draw_box(axes, box, x, tallest / 2, is_input=number == 0)
        x += width + _GAP
    axes.set_xlim(-0.3, x)
    axes.set_ylim(-1.45, tallest + 0.55)
    axes.set_aspect("equal")
    axes.set_axis_off()
    title = (
        f"{found.name}: {found.parameters:,} weights, {found.macs:,} MACs a picture\n"
        "a box for each map (channels×height×width): as high and wide as the map, as deep as it has channels, on "
        "logarithmic scales"
    )
    save_figure(figure, title, path)


def _boxes(found: Architecture) -> list[_Box]:
    boxes, before = [_Box(found.input)], 0
    for layer in found.layers:
        if layer.output is None:
            # Weights that no layer has, as those of a class token, belong to some map, and not to the picture.
            if len(boxes) > 1:
                boxes[-1].parameters += layer.parameters
            else:
                before += layer.parameters
        elif layer.output != boxes[-1].shape or layer.kind == "Conv2d":
            boxes.append(_Box(layer.output, [_kind(layer)], layer.parameters + before))
            before = 0
        else:
            boxes[-1].kinds.append(_kind(layer))
            boxes[-1].parameters += layer.parameters
    if len(boxes) > _MOST_BOXES:
        boxes = _merged(boxes)
    return boxes


def _merged(boxes: Sequence[_Box]) -> list[_Box]:
    """Of a deep network, one box for each shape in a row."""
    merged = [boxes[0]]
    for box in boxes[1:]:
        # Bottlenecks widen and narrow within a stage: its maps' sides tell the stages apart.
        if box.shape[1:] == merged[-1].shape[1:] and len(box.shape) == len(merged[-1].shape) == 3:
            wide = max(box.shape, merged[-1].shape)
            merged[-1] = _Box(wide, [*merged[-1].kinds, *box.kinds], merged[-1].parameters + box.parameters)
        else:
            merged.append(box)
    num_hidden = len(merged) - _MOST_BOXES
    if num_hidden <= 0:
        return merged
    # The end of a network is always shown, and what is not is counted.
    first, hidden, last = merged[: _MOST_BOXES - 3], merged[_MOST_BOXES - 3 : -2], merged[-2:]
    weights = sum(box.parameters for box in hidden)
    return [*first, _Box(hidden[-1].shape, [f"… {len(hidden)} maps"], weights), *last]


def _kind(layer: LayerRecord) -> str:
    short = {
        "Conv2d": "convolution",
        "MaxPool2d": "max-pooling",
        "AvgPool2d": "average pooling",
        "AdaptiveAvgPool2d": "global pooling",
        "BatchNorm2d": "batch norm",
        "BatchNorm1d": "batch norm",
        "Linear": "fully connected",
        "ZeroPad2d": "padding",
    }
    return short.get(layer.kind, layer.kind)


def _draw_box(axes: Axes, box: _Box, left: float, middle: float, is_input: bool) -> None:
    from matplotlib.patches import Polygon

    is_map = len(box.shape) == 3
    colour = _COLOURS["input" if is_input else "map" if is_map else "vector"]
    low, high = middle - box.height / 2, middle + box.height / 2
    # The front face is the map seen from the side, as wide as a third of its height.
    width = box.side * 0.35 if is_map else 0.16
    into = (box.depth * (1 + _INTO[0]), box.depth * _INTO[1])
    front = [(left, low), (left + width, low + width * 0.5), (left + width, high + width * 0.5), (left, high)]
    side = [front[0], (left + into[0], low), (left + into[0], high), front[3]]
    faces = [
        ([(x + into[0], y) for x, y in front], 0.45),
        ([front[3], front[2], (front[2][0] + into[0], front[2][1]), (front[3][0] + into[0], front[3][1])], 0.30),
        (side, 0.75),
    ]
    for corners, shade in faces:
        axes.add_patch(Polygon(corners, closed=True, facecolor=colour, alpha=shade, edgecolor="white", linewidth=0.8))
    centre = left + into[0] / 2
    shown = "×".join(f"{size:,}" for size in box.shape)
    axes.text(centre, high + width * 0.5 + 0.12, shown, ha="center", va="bottom", fontsize=8)
    lines = ["picture"] if is_input else _shortened(box.kinds)
    if box.parameters:
        lines.append(f"{box.parameters:,} weights")
    axes.text(centre, low - 0.12, "\n".join(lines), ha="center", va="top", fontsize=6.5)


def _shortened(kinds: Sequence[str], most: int = 4) -> list[str]:
    """Each kind once, with how often it comes."""
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    lines = [kind if count == 1 else f"{count} × {kind}" for kind, count in counts.items()]
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more"]


def draw_fields(found: Architecture, picture: np.ndarray, path: Path) -> None:
    """The field of the middle position of each map that looks at part of the picture (H, W, 3), `uint8`, growing.

    Raises: ConfigError where no layer has such a field, StorageError.
    """
    from matplotlib.patches import Rectangle

    growing = _growing(found)
    if not growing:
        raise ConfigError(f"No layer of {found.name} looks at a part of the picture only.")
    figure = new_figure(7.5, 6.2)
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
        label = f"{layer.name}: {size[0]}×{size[1]}, stride {seen.stride_px[0]:g}"
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
    axes.set_xlim(columns[0] - 0.5, columns[1] + 0.5)
    axes.set_ylim(rows[1] + 0.5, rows[0] - 0.5)
    axes.set_xlabel("pixels")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=7, frameon=False)
    save_figure(figure, f"{found.name}: what the middle position of each map sees of {width}×{height} pixels", path)


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
