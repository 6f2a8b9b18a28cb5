"""The figures of a run, from its records. Colours are those of Okabe and Ito, which colour-blind readers tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from conviction.core.files import write_atomically
from conviction.core.records import EpochRecord, Score

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#777777"
_DPI = 120
_MOST_FILTERS = 256
_SLIGHTLY_GREY = 0.5


def draw_curves(history: Sequence[EpochRecord], best_epoch: int, title: str, path: Path) -> None:
    """Loss and accuracy against the epoch, for training and validation, with the best epoch marked."""
    figure = _figure(10, 4.2)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for axes, name, scale in ((loss_axes, "loss", 1.0), (accuracy_axes, "accuracy", 100.0)):
        for label, colour, style, pick in _CURVES:
            points = [(record.epoch, getattr(found, name) * scale) for record in history if (found := pick(record))]
            if points:
                count = next(found.count for record in history if (found := pick(record)))
                axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{label} (n = {count:,})", ms=3.5)
        axes.axvline(best_epoch, color=GREY, lw=0.9, ls=":", label=f"best epoch: {best_epoch}")
        _epochs_below(axes)
    loss_axes.set_ylabel("loss (nats per image)")
    loss_axes.set_ylim(bottom=0)
    accuracy_axes.set_ylabel("accuracy (%)")
    accuracy_axes.set_ylim(top=min(101.0, max(accuracy_axes.get_ylim()[1], 1.0)))
    loss_axes.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_learning_rate(history: Sequence[EpochRecord], title: str, path: Path) -> None:
    """The learning rate of each epoch's last step."""
    figure = _figure(5.5, 3.4)
    axes = figure.subplots()
    axes.plot([r.epoch for r in history], [r.learning_rate for r in history], "o-", color=BLUE, ms=3.5)
    _epochs_below(axes)
    axes.set_ylabel("learning rate at the epoch's last step")
    axes.set_ylim(bottom=0)
    figure.suptitle(title, fontsize=10)
    _save(figure, path)


def draw_filters(before: np.ndarray, after: np.ndarray, title: str, path: Path) -> None:
    """First-layer weights (F, C, h, w) before and after training; mid grey is zero, each filter on its own scale.

    Three channels are shown as red, green and blue; of other numbers the first channel alone is.
    """
    num_shown = min(len(before), _MOST_FILTERS)
    columns = int(np.ceil(np.sqrt(num_shown)))
    figure = _figure(10, 5.4)
    for axes, filters, label in zip(figure.subplots(1, 2), (before, after), ("before", "after"), strict=True):
        axes.imshow(_mosaic(filters[:num_shown], columns), interpolation="nearest", vmin=0, vmax=1, cmap="gray")
        axes.set_title(f"{label} training", fontsize=9)
        axes.set_axis_off()
    num, channels, height, width = before.shape
    seen = "" if num == num_shown else f", the first {num_shown}"
    shown = " (red, green, blue)" if channels == 3 else "" if channels == 1 else ", the first channel"
    figure.suptitle(f"{title}\n{num} filters of {height}×{width}×{channels}{seen}{shown}; mid grey is 0", fontsize=10)
    _save(figure, path)


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
    """The filters side by side as one image (H, W, 3), one pixel of white between them."""
    num, channels, height, width = filters.shape
    shown = filters if channels == 3 else np.repeat(filters[:, :1], 3, axis=1)
    largest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    tiles = _SLIGHTLY_GREY + shown / np.where(largest > 0, 2 * largest, 1)
    rows = -(-num // columns)
    canvas = np.ones((rows * (height + 1) + 1, columns * (width + 1) + 1, 3))
    for index, tile in enumerate(tiles):
        top, left = 1 + index // columns * (height + 1), 1 + index % columns * (width + 1)
        canvas[top : top + height, left : left + width] = tile.transpose(1, 2, 0)
    return canvas


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _epochs_below(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch (0: untrained)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    write_atomically(path, lambda temporary: figure.savefig(temporary, dpi=_DPI, format="png"))
