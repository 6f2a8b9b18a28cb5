"""A training as it is seen in a terminal (a bar and a line for each epoch) or in a log (lines alone)."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING

from conviction.cli.output import console, percent, print_aside
from conviction.core.records import EpochRecord, RunSummary, Score, Timing
from conviction.fit.watcher import Watcher

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_EVERY_S = 10.0
# Of lines that go to a file.
_WIDTH = 80
# In a narrow terminal the last of these are left out.
_HEADINGS = (
    (f"{'epoch':>9}", " " * 9),
    (f"{'training':^18}", f"{'loss':>9} {'accuracy':>8}"),
    (f"{'validation':^18}", f"{'loss':>9} {'accuracy':>8}"),
    (f"{'learning':>9}", f"{'rate':>9}"),
    (f"{'images':>9}", f"{'a second':>9}"),
)
_BETWEEN = "  "


def headings(width: int) -> list[str]:
    """The two lines above the epochs' lines, for a terminal of `width` columns."""
    return [_joined([parts[line] for parts in _HEADINGS], width) for line in (0, 1)]


def epoch_line(record: EpochRecord, timing: Timing, num_epochs: int, is_best: bool, width: int) -> str:
    """One line of the table under `headings`; `*` marks the best epoch so far."""
    train = record.train or record.train_fixed
    cells = [
        f"{f'{record.epoch}/{num_epochs}':>9}",
        _score_cell(train) if train else f"{'–':>9} {'–':>8}",
        _score_cell(record.validation),
        f"{record.learning_rate:9.3g}",
        f"{timing.images_per_second:9,.0f}" if timing.train_s else f"{'–':>9}",
    ]
    return _joined(cells, width) + (" *" if is_best else "")


def _score_cell(score: Score) -> str:
    return f"{score.loss:9.4f} {percent(score.accuracy):>8}"


def _joined(cells: Sequence[str], width: int) -> str:
    """As many of the cells as leave room for the mark of the best epoch."""
    line = cells[0]
    for cell in cells[1:]:
        if len(line) + len(_BETWEEN) + len(cell) > width - len(" *"):
            break
        line += _BETWEEN + cell
    return line


def describe_start(summary: RunSummary) -> list[str]:
    """What is about to be trained, in three lines."""
    data = summary.data
    num_pictures = data.num_train + data.num_validation + data.num_test
    processes = f", {summary.num_processes} processes" if summary.num_processes > 1 else ""
    return [
        f"{summary.run}",
        f"{data.path}: {num_pictures:,} pictures of {len(data.classes)} classes, "
        f"{data.channels}×{data.height_px}×{data.width_px}: {data.num_train:,} training, "
        f"{data.num_validation:,} validation, {data.num_test:,} test (sealed)",
        f"{summary.num_parameters:,} parameters, seed {summary.seed}{processes}",
    ]


class PlainWatcher(Watcher):
    """Lines on standard error, for logs and pipes."""

    def __init__(self) -> None:
        self.run = ""
        self._num_epochs = 0
        self._last_line = time.monotonic()

    def __enter__(self) -> PlainWatcher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def packing(self, num_done: int, num_pictures: int) -> None:
        self.stage("packing pictures", num_done, num_pictures)

    def stage(self, name: str, num_done: int, total: int) -> None:
        """Work before or without a training goes on."""
        if num_done == total or self._is_time():
            print_aside(f"{name}: {num_done:,} of {total:,}")

    def fetching(self, num_done: int, num_pictures: int, num_kept: int) -> None:
        """Pictures are being fetched; `num_kept` counts the faces in the folder so far."""
        if num_done == num_pictures or self._is_time():
            print_aside(f"fetching pictures: {num_done:,} of {num_pictures:,}; {num_kept:,} faces kept")

    def begun(self, run: str) -> None:
        self.run = run

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        self._num_epochs = num_epochs
        for line in describe_start(summary):
            print_aside(line)
        if summary.epochs:
            print_aside(f"going on after epoch {summary.epochs}")
        for line in headings(_WIDTH):
            print_aside(line)

    def note(self, text: str) -> None:
        print_aside(f"note: {text}")

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        if num_done < num_steps and self._is_time():
            print_aside(f"{f'{epoch}/{self._num_epochs}':>9}  step {num_done:,} of {num_steps:,}")

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        print_aside(epoch_line(record, timing, self._num_epochs, is_best, _WIDTH))
        self._last_line = time.monotonic()

    def _is_time(self) -> bool:
        now = time.monotonic()
        if now - self._last_line < _LINE_EVERY_S:
            return False
        self._last_line = now
        return True


class LiveWatcher(PlainWatcher):
    """A bar for what is going on, above it the epochs that are done."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        super().__init__()
        self._progress = Progress(
            TextColumn("{task.description:>9}"),
            BarColumn(bar_width=36),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console(stderr=True),
            transient=True,
            refresh_per_second=8,
        )
        self._task: TaskID | None = None
        self._shown = ""

    def __enter__(self) -> LiveWatcher:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def packing(self, num_done: int, num_pictures: int) -> None:
        self._show("packing", num_done, num_pictures)

    def fetching(self, num_done: int, num_pictures: int, num_kept: int) -> None:
        self._show("fetching", num_done, num_pictures)
        assert self._task is not None
        self._progress.update(self._task, description=f"{num_kept:,} faces kept")

    def stage(self, name: str, num_done: int, total: int) -> None:
        self._show(name, num_done, total)

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        self._num_epochs = num_epochs
        from rich.markup import escape

        first, *others = describe_start(summary)
        self._progress.print(f"[bold]{escape(first)}[/bold]")
        for line in others:
            self._progress.print(escape(line))
        if summary.epochs:
            self._progress.print(f"going on after epoch {summary.epochs}")
        for line in headings(self._progress.console.width):
            self._progress.print(f"[dim]{line}[/dim]")

    def note(self, text: str) -> None:
        from rich.markup import escape

        self._progress.print(f"[yellow]note:[/yellow] {escape(text)}")

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        self._show(f"epoch {epoch}", num_done, num_steps)

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        line = epoch_line(record, timing, self._num_epochs, is_best, self._progress.console.width)
        self._progress.print(f"[bold]{line}[/bold]" if is_best else line)

    def _show(self, description: str, num_done: int, total: int) -> None:
        if self._task is None or description != self._shown:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._shown = self._progress.add_task(description, total=total), description
        self._progress.update(self._task, completed=num_done)


def watcher() -> PlainWatcher:
    """The watcher that fits where standard error goes."""
    return LiveWatcher() if sys.stderr.isatty() else PlainWatcher()
