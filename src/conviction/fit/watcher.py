"""Who wants to see a training as it runs."""

from __future__ import annotations

from conviction.core.records import EpochRecord, RunSummary, Timing


class Watcher:
    """Is told what happens and does nothing; faces inherit from it."""

    def packing(self, num_done: int, num_pictures: int) -> None:
        """Pictures are being decoded into the cache."""

    def stage(self, name: str, num_done: int, total: int) -> None:
        """Work before the training goes on."""

    def begun(self, run: str) -> None:
        """From here on there is a run that can be gone on with, whatever happens."""

    def started(self, summary: RunSummary, num_epochs: int, folder: str) -> None:
        """The training begins, or goes on after `summary.epochs` epochs."""

    def note(self, text: str) -> None:
        """Something that a person should know."""

    def step(self, epoch: int, num_done: int, num_steps: int) -> None:
        """A step of training was done."""

    def epoch(self, record: EpochRecord, timing: Timing, is_best: bool) -> None:
        """An epoch ended."""
