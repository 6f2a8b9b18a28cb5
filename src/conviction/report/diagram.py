"""A network as a picture: a box for each map, as high and wide as it and as deep as it has channels, and arrows."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from conviction.core.architecture import PICTURE_NAME, Architecture, LayerRecord
from conviction.report.figure import BLUE, GREEN, GREY, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_BOXES = 48
# Obliquely drawn: a step into the page goes so far right and up.
_INTO = (0.32, 0.24)
_GAP = 0.75
# A network that is not much longer stays in one row.
_ROW_WIDTH, _ONE_ROW = 18.0, 26.0
# Room over a box for its size, and between the lines that pass over boxes; and below one for its layers.
_SIZE, _LEVEL, _BELOW = 0.5, 0.2, 1.5
_INCHES = 0.72
_ARROW = "#555555"
_COLOURS = {"map": BLUE, "vector": GREEN, "input": GREY}
_JOINS = {"add": "+", "sub": "−", "mul": "×", "div": "÷", "cat": "‖"}
# What hands on what it gets, and is not drawn.
_PASSING = ("Identity", "Dropout", "Dropout2d", "StochasticDepth")
_EXPLAINED = (
    "A box for each map (channels×height×width): as high and wide as the map and as deep as it has channels, on "
    "logarithmic scales. Arrows go from what a layer computes with to what it gives"
)


@dataclass
class _Box:
    """One map or vector, and the layers between it and the one before; a circle where several come together."""

    shape: tuple[int, ...]
    kinds: list[str] = field(default_factory=list)
    parameters: int = 0
    sources: set[int] = field(default_factory=set)
    join: str = ""
    left: float = 0.0
    row: int = 0

    @property
    def is_map(self) -> bool:
        return len(self.shape) == 3

    @property
    def side(self) -> float:
        """The height of the front, in drawing units: logarithmic, so that 224 and 1 both are seen."""
        return 0.35 + 0.38 * math.log2(1 + (max(self.shape[1:]) if self.is_map else 1))

    @property
    def depth(self) -> float:
        """The depth, in drawing units."""
        return 0.12 + 0.11 * math.log2(1 + self.shape[0]) if self.is_map else 0.16

    @property
    def height(self) -> float:
        """What the front takes of the page's height."""
        if self.join:
            return 0.5
        return self.side if self.is_map else 0.3 + 0.3 * math.log2(1 + math.prod(self.shape))

    @property
    def front(self) -> float:
        """The width of the front: the map seen from the side, a third of its height."""
        return self.side * 0.35 if self.is_map else 0.16

    @property
    def width(self) -> float:
        """What the box takes of the page's width."""
        return 0.5 if self.join else self.front + self.depth * (1 + _INTO[0])

    @property
    def full_height(self) -> float:
        """What the box and its top take of the page's height."""
        return self.height if self.join else self.height + self.front * 0.5

    @property
    def middle(self) -> float:
        """Where arrows over the row begin and end."""
        return self.left + self.width / 2

    @property
    def label_top(self) -> float:
        """How far over the row's middle what is written over the box ends."""
        return self.full_height - self.height / 2 + 0.36


@dataclass
class _Row:
    """Boxes side by side, and the lines that pass over them: from, to, and how many lines lie below."""

    boxes: list[_Box]
    lines: list[tuple[float, float, int]] = field(default_factory=list)
    middle: float = 0.0

    @property
    def tallest(self) -> float:
        return max(box.full_height for box in self.boxes)

    @property
    def above(self) -> float:
        """The room over the tallest box."""
        return _SIZE + _LEVEL * (2 + max((level for *_, level in self.lines), default=-2))

    def line(self, start: float, end: float) -> float:
        """A free place for one more line over the row: its height over the row's middle."""
        taken = {level for first, last, level in self.lines if first < end and start < last}
        level = next(number for number in range(len(taken) + 1) if number not in taken)
        self.lines.append((start, end, level))
        return self.tallest / 2 + 0.25 + _SIZE + _LEVEL * level


def draw_diagram(found: Architecture, path: Path) -> None:
    """Write the picture as `.png` or `.svg`. Layers that keep the shape stand together with the one before them.

    Raises: ConfigError for another ending, StorageError.
    """
    boxes = _boxes(found)
    is_whole = len(boxes) <= _MOST_BOXES
    if not is_whole:
        boxes = _merged(boxes)
    rows, width = _lay_out(boxes)
    arrows = _arrows(boxes, rows, width)
    below = 0.0
    for row in rows:
        row.middle = below - row.above - row.tallest / 2
        below = row.middle - row.tallest / 2 - _BELOW
    inches = max(6.0, (width + 0.6) * _INCHES)
    left_out = "; maps of one size stand together, and what branches among them is not drawn"
    explained = textwrap.wrap(_EXPLAINED + ("" if is_whole else left_out) + ".", round(inches * 13))
    figure = new_figure(inches, -below * _INCHES + 0.4 + 0.15 * len(explained))
    axes = figure.subplots()
    for number, box in enumerate(boxes):
        _draw_box(axes, box, rows[box.row].middle, is_input=number == 0)
    for points, row in arrows:
        _draw_arrow(axes, [(x, y + row.middle) for x, y in points])
    axes.set_xlim(-0.5, width + 0.2)
    axes.set_ylim(below, 0)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title("\n".join(explained), fontsize=7.5, color="#444444")
    save_figure(figure, f"{found.name}: {found.parameters:,} weights, {found.macs:,} MACs a picture", path)


def _boxes(found: Architecture) -> list[_Box]:
    boxes, before = [_Box(found.input)], 0
    box_of = {PICTURE_NAME: 0}
    for layer in found.layers:
        if layer.output is None:
            # Weights that no layer has, as those of a class token, belong to some map, and not to the picture.
            if len(boxes) > 1:
                boxes[-1].parameters += layer.parameters
            else:
                before += layer.parameters
            continue
        sources = {box_of[name] for name in layer.inputs if name in box_of} or {len(boxes) - 1}
        source = max(sources)
        same = layer.output == boxes[source].shape and len(sources) == 1
        if same and layer.kind in _PASSING:
            box_of[layer.name] = source
        elif same and source == len(boxes) - 1 and layer.kind != "Conv2d" and source > 0:
            boxes[-1].kinds.append(_kind(layer))
            boxes[-1].parameters += layer.parameters
            box_of[layer.name] = source
        else:
            join = _JOINS.get(layer.kind, "") if len(sources) > 1 else ""
            boxes.append(_Box(layer.output, [_kind(layer)], layer.parameters + before, sources, join))
            before = 0
            box_of[layer.name] = len(boxes) - 1
    return boxes


def _merged(boxes: Sequence[_Box]) -> list[_Box]:
    """Of a deep network, one box for each size of map in a row."""
    merged = [boxes[0]]
    for box in boxes[1:]:
        # Bottlenecks widen and narrow within a stage, and some weigh their channels by one number each.
        in_stage = box.is_map and merged[-1].is_map and box.shape[1:] in (merged[-1].shape[1:], (1, 1))
        if in_stage and len(merged) > 1:
            shape = max(box.shape, merged[-1].shape) if box.shape[1:] == merged[-1].shape[1:] else merged[-1].shape
            merged[-1] = _Box(shape, [*merged[-1].kinds, *box.kinds], merged[-1].parameters + box.parameters)
        else:
            merged.append(_Box(box.shape, list(box.kinds), box.parameters))
    if len(merged) > _MOST_BOXES:
        # The end of a network is always shown, and what is not is counted.
        first, hidden, last = merged[: _MOST_BOXES - 3], merged[_MOST_BOXES - 3 : -2], merged[-2:]
        weights = sum(box.parameters for box in hidden)
        merged = [*first, _Box(hidden[-1].shape, [f"… {len(hidden)} maps"], weights), *last]
    for number, box in enumerate(merged[1:]):
        box.sources = {number}
    return merged


def _lay_out(boxes: Sequence[_Box]) -> tuple[list[_Row], float]:
    """Give each box its place, in rows that a page holds; the rows and the width of the widest."""
    total = sum(box.width + _GAP for box in boxes)
    most = total if total <= _ONE_ROW else _ROW_WIDTH
    rows: list[_Row] = [_Row([])]
    x, widest = 0.0, 0.0
    for box in boxes:
        if rows[-1].boxes and x + box.width > most:
            x = 0.0
            rows.append(_Row([]))
        rows[-1].boxes.append(box)
        box.left, box.row = x, len(rows) - 1
        x += box.width + _GAP
        widest = max(widest, x)
    return rows, widest


Points = list[tuple[float, float]]


def _arrows(boxes: Sequence[_Box], rows: Sequence[_Row], width: float) -> list[tuple[Points, _Row]]:
    """The lines of each arrow, from the middle of its row: straight to a neighbour, over the row to others.

    Where a row ends between two boxes, the line leaves on the right and comes back on the left of the other row.
    """
    arrows: list[tuple[Points, _Row]] = []
    for number, box in enumerate(boxes):
        for source in (boxes[index] for index in sorted(box.sources)):
            first, last = rows[source.row], rows[box.row]
            end = source.left + source.width
            if boxes[number - 1] is source:
                if first is last:
                    arrows.append(([(end + 0.06, 0.0), (box.left - 0.06, 0.0)], first))
                else:
                    arrows += [
                        ([(end + 0.06, 0.0), (end + 0.5, 0.0)], first),
                        ([(box.left - 0.4, 0.0), (box.left - 0.06, 0.0)], last),
                    ]
                continue
            # Beside one another where a box has several.
            leave, arrive = source.middle + 0.12, box.middle - 0.12
            if first is last:
                level = first.line(leave, arrive)
                arrows.append(
                    ([(leave, source.label_top), (leave, level), (arrive, level), (arrive, box.label_top)], first)
                )
                continue
            up, down = first.line(leave, width), last.line(-1.0, arrive)
            arrows += [
                ([(leave, source.label_top), (leave, up), (width, up)], first),
                ([(-0.4, down), (arrive, down), (arrive, box.label_top)], last),
            ]
    return arrows


def _draw_arrow(axes: Axes, points: Points) -> None:
    xs, ys = zip(*points[:-1], strict=True)
    axes.plot(xs, ys, color=_ARROW, lw=0.9, solid_joinstyle="round")
    style = {"arrowstyle": "-|>", "color": _ARROW, "lw": 0.9, "shrinkA": 0, "shrinkB": 0, "mutation_scale": 7}
    axes.annotate("", points[-1], points[-2], arrowprops=style)


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


def _draw_box(axes: Axes, box: _Box, middle: float, is_input: bool) -> None:
    from matplotlib.patches import Circle, Polygon

    low, high = middle - box.height / 2, middle + box.height / 2
    if box.join:
        axes.add_patch(Circle((box.middle, middle), box.width / 2, facecolor="white", edgecolor=GREY, linewidth=1.2))
        axes.text(box.middle, middle, box.join, ha="center", va="center", fontsize=11)
    else:
        colour = _COLOURS["input" if is_input else "map" if box.is_map else "vector"]
        left, width = box.left, box.front
        into = (box.depth * (1 + _INTO[0]), box.depth * _INTO[1])
        front = [(left, low), (left + width, low + width * 0.5), (left + width, high + width * 0.5), (left, high)]
        side = [front[0], (left + into[0], low), (left + into[0], high), front[3]]
        faces = [
            ([(x + into[0], y) for x, y in front], 0.45),
            ([front[3], front[2], (front[2][0] + into[0], front[2][1]), (front[3][0] + into[0], front[3][1])], 0.30),
            (side, 0.75),
        ]
        for corners, shade in faces:
            axes.add_patch(
                Polygon(corners, closed=True, facecolor=colour, alpha=shade, edgecolor="white", linewidth=0.8)
            )
    shown = "×".join(f"{size:,}" for size in box.shape) or "one number"
    axes.text(
        box.middle, middle + box.full_height - box.height / 2 + 0.1, shown, ha="center", va="bottom", fontsize=7.5
    )
    lines = ["picture"] if is_input else _shortened(box.kinds)
    if box.parameters:
        lines.append(f"{box.parameters:,} weights")
    axes.text(box.middle, low - 0.1, "\n".join(lines), ha="center", va="top", fontsize=6)


def _shortened(kinds: Sequence[str], most: int = 4) -> list[str]:
    """Each kind once, with how often it comes."""
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    lines = [kind if count == 1 else f"{count} × {kind}" for kind, count in counts.items()]
    return lines if len(lines) <= most else [*lines[: most - 1], f"and {len(lines) - most + 1} more"]
