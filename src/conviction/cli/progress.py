"""A training as it is seen in a terminal (a bar and a line for each epoch) or in a log (lines alone)."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from conviction.cli.output import console, percent, print_aside
from conviction.core.records import EpochRecord, RunSummary, Timing
from conviction.fit.watcher import Watcher

if TYPE_CHECKING:
    from rich.progress import TaskID

_LINE_EVERY_S = 10.0
HEADINGS = (
    f"{'epoch':>9}  {'training':^18}  {'validation':^18}  {'learning':>9}  {'images':>9}\n"
    f"{'':>9}  {'loss':>9} {'accuracy':>8}  {'loss':>9} {'accuracy':>8}  {'rate':>9}  {'a second':>9}"
)


def epoch_line(record: EpochRecord, timing: Timing, num_epochs: int, is_best: bool) -> str:
    """One line of the table under `HEADINGS`; `*` marks the best epoch so far."""
    train = record.train or record.train_fixed
    train_loss = f"{train.loss:9.4f}" if train else f"{'–':>9}"
    train_accuracy = percent(train.accuracy) if train else "–"
    speed = f"{timing.images_per_second:9,.0f}" if timing.train_s else f"{'–':>9}"
    return (
        f"{f'{record.epoch}/{num_epochs}':>9}  {train_loss} {train_accuracy:>8}  {record.validation.loss:9.4f} "
        f"{percent(record.validation.accuracy):>8}  {record.learning_rate:9.3g}  {speed} {'*' if is_best else ''}"
    ).rstrip()


def describe_start(summary: RunSummary) -> list[str]:
    """What is about to be trained, in three lines."""
    data = summary.data
    num_pictures = data.num_train + data.num_validation + data.num_test
    return [
        f"{summary.run}",
        f"{data.path}: {num_pictures:,} pictures of {len(data.classes)} classes, "
        f"{data.channels}×{data.height_px}×{data.width_px}: {data.num_train:,} training, "
        f"{data.num_validation:,} validation, {data.num_test:,} test (sealed)",
        f"{summary.num_parameters:,} parameters, seed {summary.seed}",
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
        if num_done == num_pictures or self._is_time():
            print_aside(f"packing pictures: {num_done:,} of {num_pictures:,}")

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        self._num_epochs = num_epochs
        self.run = summary.run
        for line in describe_start(summary):
            print_aside(line)
        if summary.epochs:
            print_aside(f"going on after epoch {summary.epochs}")
        print_aside(HEADINGS)

    def note(self, text: str) -> None:
        print_aside(f"note: {text}")

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        if num_done < num_steps and self._is_time():
            print_aside(f"{f'{epoch}/{self._num_epochs}':>9}  step {num_done:,} of {num_steps:,}")

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        print_aside(epoch_line(record, timing, self._num_epochs, is_best))
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

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        self._num_epochs = num_epochs
        from rich.markup import escape

        self.run = summary.run
        first, *others = describe_start(summary)
        self._progress.print(f"[bold]{escape(first)}[/bold]")
        for line in others:
            self._progress.print(escape(line))
        if summary.epochs:
            self._progress.print(f"going on after epoch {summary.epochs}")
        self._progress.print(f"[dim]{HEADINGS}[/dim]")

    def note(self, text: str) -> None:
        from rich.markup import escape

        self._progress.print(f"[yellow]note:[/yellow] {escape(text)}")

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        self._show(f"epoch {epoch}", num_done, num_steps)

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        line = epoch_line(record, timing, self._num_epochs, is_best)
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
