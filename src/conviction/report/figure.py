"""The figures of a run, from its records. Colours are those of Okabe and Ito, which colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conviction.core.errors import ConfigError
from conviction.core.files import write_atomically
from conviction.core.records import EpochRecord, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
FORMATS = ("png", "svg")
DPI = 120
_MOST_FILTERS = 256
_MID_GREY = 0.5
# Between the filters: neither white nor grey, so that a filter's own white is seen as such.
_GAP = (0.80, 0.88, 0.96)
_MOST_MARKED_EPOCHS = 30
# A loss that leaps so far above the untrained network's would press all others onto the axis.
_LEAP = 10.0
_TITLE_TOP_INCHES = 0.12
_TITLE_LINE_INCHES = 0.172


def draw_curves(history: Sequence[EpochRecord], best_epoch: int, title: str, path: Path) -> None:
    """Loss and accuracy against the epoch, for training and validation, with the best epoch marked.

    The loss has a logarithmic axis where it leaps above ten times the untrained network's.
    """
    figure = new_figure(10, 4.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    size = _mark_size(history)
    for axes, name, scale in ((loss_axes, "loss", 1.0), (accuracy_axes, "accuracy", 100.0)):
        for label, colour, style, pick in _CURVES:
            points = [(record.epoch, getattr(found, name) * scale) for record in history if (found := pick(record))]
            if points:
                count = next(found.count for record in history if (found := pick(record)))
                axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{label} (n = {count:,})", ms=size)
        axes.axvline(best_epoch, color=GREY, lw=0.9, ls=":", label=f"best epoch: {best_epoch}")
        _epochs_below(axes, history)
    losses = [found.loss for record in history for *_, pick in _CURVES if (found := pick(record))]
    if max(losses) > _LEAP * history[0].validation.loss:
        loss_axes.set_yscale("log", nonpositive="mask")
        loss_axes.set_ylabel("loss (nats per image, logarithmic)")
    else:
        loss_axes.set_ylim(bottom=0)
        loss_axes.set_ylabel("loss (nats per image)")
    accuracy_axes.set_ylabel("accuracy (%)")
    accuracy_axes.set_ylim(0, min(101.0, max(accuracy_axes.get_ylim()[1], 1.0)))
    figure.legend(
        *loss_axes.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    save_figure(figure, title, path)


def draw_learning_rate(history: Sequence[EpochRecord], title: str, path: Path) -> None:
    """The learning rate of each epoch's last step."""
    figure = new_figure(5.5, 3.4)
    axes = figure.subplots()
    axes.plot([r.epoch for r in history], [r.learning_rate for r in history], "o-", color=BLUE, ms=_mark_size(history))
    _epochs_below(axes, history)
    axes.set_ylabel("learning rate of the last step")
    axes.set_ylim(bottom=0)
    save_figure(figure, title, path)


def draw_filters(before: np.ndarray, after: np.ndarray, title: str, path: Path) -> None:
    """First-layer weights (F, C, h, w) before and after training; mid grey is zero, each filter on its own scale.

    Three channels are shown as red, green and blue; of other numbers the first channel alone. At most 256 filters are.
    """
    num_shown = min(len(before), _MOST_FILTERS)
    columns = int(np.ceil(np.sqrt(num_shown)))
    figure = new_figure(10, 5.4)
    for axes, filters, label in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        axes.imshow(_mosaic(filters[:num_shown], columns), interpolation="nearest")
        axes.set_title(f"{label} training", fontsize=9)
        axes.set_axis_off()
    num, channels, height, width = before.shape
    size = f"{num} filter{'s' if num > 1 else ''} of {height}×{width}×{channels}"
    seen = "" if num == num_shown else f", {num_shown} of them shown"
    shown = " (red, green, blue)" if channels == 3 else "" if channels == 1 else ", the first channel alone"
    save_figure(figure, f"{title}\n{size}{seen}{shown}; each on its own scale, mid grey is 0", path)


def _train(record: EpochRecord) -> Score | None:
    return record.train


def _train_fixed(record: EpochRecord) -> Score | None:
    return record.train_fixed


def _validation(record: EpochRecord) -> Score | None:
    return record.validation


_CURVES = (
    ("training, as it ran", BLUE, "o-", _train),
    ("training, fixed weights", GREEN, "^--", _train_fixed),
    ("validation", ORANGE, "s-", _validation),
)


def _mosaic(filters: np.ndarray, columns: int) -> np.ndarray:
    """The filters side by side as one image (H, W, 3), one pixel between them."""
    num, channels, height, width = filters.shape
    shown = filters if channels == 3 else np.repeat(filters[:, :1], 3, axis=1)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    tiles = _MID_GREY + shown / np.where(largest > 0, 2 * largest, 1)
    rows = -(-num // columns)
    canvas = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, 3), _GAP)
    for index, tile in enumerate(tiles):
        top, left = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    return canvas


def new_figure(width: float, height: float, arranged: bool = True) -> Figure:
    """An empty figure, in inches, that needs no screen; what is drawn in it is `arranged`, or stays where it is put."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained" if arranged else None)
    FigureCanvasAgg(figure)
    return figure


def _mark_size(history: Sequence[EpochRecord]) -> float:
    """Each epoch has a mark where there are few enough of them to be told apart."""
    return 3.5 if len(history) <= _MOST_MARKED_EPOCHS else 0.0


def _epochs_below(axes: Axes, history: Sequence[EpochRecord]) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch (0: untrained)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    if len(history) == 1:
        axes.set_xlim(history[0].epoch - 1, history[0].epoch + 1)
        axes.set_xticks([history[0].epoch])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def picture_kind(path: Path) -> str:
    """`png` or `svg`, by the file's name. Raises: ConfigError for another ending."""
    kind = path.suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"A picture is written as .png or .svg, but got {path.name!r}.")
    return kind


def title_inches(title: str) -> float:
    """What a title takes at the top of a figure that is not arranged."""
    return _TITLE_TOP_INCHES + _TITLE_LINE_INCHES * (1 + title.count("\n"))


def save_figure(figure: Figure, title: str, path: Path) -> None:
    """Write a figure with its title, as SVG or PNG by the file's name, atomically.

    Raises: ConfigError for another ending, StorageError.
    """
    kind = picture_kind(path)
    # A title that is not arranged lies at 98 % of the height otherwise: the higher the figure, the lower.
    place = {} if figure.get_layout_engine() else {"y": 1 - _TITLE_TOP_INCHES / figure.get_figheight()}
    # A run's name may hold a dollar sign, which would begin a formula.
    figure.suptitle(title, fontsize=10, parse_math=False, **place)
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=DPI, format=kind))
