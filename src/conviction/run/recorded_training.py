"""One process's work on a run folder: epoch by epoch, so that whatever stops it, another goes on.

At the end of each epoch the checkpoint is written first: it alone decides where a resumed run goes on, and everything
else in the folder can be written again from it.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from functools import partial

from torch import nn

from conviction.core.errors import ConvictionError, LedgerError, RunError, TrainingDiverged
from conviction.core.ledger import Ledger
from conviction.core.records import EpochRecord, RunSummary, Status, Timing, from_json, to_json
from conviction.core.run_folder import RunFolder
from conviction.fit.checkpoint import (
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
    save_weights,
)
from conviction.fit.loop import Trainer
from conviction.fit.stopping import best_of, should_stop
from conviction.fit.watcher import Watcher
from conviction.nets.block import first_layer_filters
from conviction.report.figure import draw_curves, draw_filters, draw_learning_rate
from conviction.run.faults import memory_fault
from conviction.run.prepared import Prepared
from conviction.run.processes import describe_processes
from conviction.run.saved import Run
from conviction.run.starting import network_of_checkpoint, network_to_begin_with


def network_to_go_on_with(folder: RunFolder, prepared: Prepared, watcher: Watcher) -> nn.Module:
    """The network of the last checkpoint, or where there is none yet, of the beginning. Raises: RunError."""
    if not folder.checkpoint.exists():
        return network_to_begin_with(prepared, watcher)
    try:
        return network_of_checkpoint(prepared, folder.checkpoint, watcher)
    except RunError as error:
        raise _cannot_go_on(error) from error


def _cannot_go_on(error: RunError) -> RunError:
    return RunError(
        f"{error} This run cannot go on, but the weights of its best epoch, best.safetensors, are another file."
    )


class Training:
    """One process's work on one run folder.

    The trainer's network may be a part of the whole one, which is what is saved.
    """

    def __init__(
        self,
        folder: RunFolder,
        prepared: Prepared,
        learning: tuple[nn.Module, Trainer],
        ledger: Ledger,
        watcher: Watcher,
        summary: RunSummary,
    ) -> None:
        self._folder = folder
        self._recipe = prepared.recipe
        self._prepared = prepared
        self._network, self._trainer = learning
        self._ledger = ledger
        self._watcher = watcher
        self._summary = dataclasses.replace(summary, status="running", message="")
        self._history: list[EpochRecord] = []
        self._timings: list[Timing] = []
        self._ledger_works = True

    def restore(self) -> None:
        """Go back to the last checkpoint, or to the beginning where there is none yet."""
        if not self._folder.checkpoint.exists():
            return
        try:
            progress = load_checkpoint(self._folder.checkpoint, self._network, self._trainer.optimizer)
        except RunError as error:
            raise _cannot_go_on(error) from error
        try:
            self._history = [from_json(EpochRecord, record) for record in progress["history"]]
            self._timings = [from_json(Timing, timing) for timing in progress["timings"]]
            self._trainer.schedule.restore(progress["schedule"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self._folder.checkpoint} is damaged: {error}.") from error
        best = best_of(self._history, self._recipe.stopping.figure)
        if best.epoch != self._history[-1].epoch:
            _, about = load_tensors(self._folder.weights("best"))
            if about.get("epoch") != best.epoch:
                raise RunError(f"{self._folder.weights('best')} is not of epoch {best.epoch}, the best one.")
        self._publish()

    def run(self) -> None:
        """Train to the end. Whatever ends it before, the folder says so and stays resumable."""
        self._summary = dataclasses.replace(self._summary, epochs=self._num_epochs_done())
        self._set_status("running")
        self._ledger.record_run(self._summary, self._folder.path)
        self._watcher.started(self._summary, self._recipe.fit.epochs, str(self._folder.path))
        self._prepared.machine.engage()
        try:
            status = self._run_epochs()
        except KeyboardInterrupt:
            self._end("interrupted", "Interrupted by the user.")
            raise
        except TrainingDiverged as error:
            self._end("diverged", error.message)
            raise
        except BaseException as error:
            with suppress(ConvictionError, OSError):
                self._set_status("failed", str(memory_fault(error, self._recipe) or error))
            raise
        self._end(status, "")

    def run_as_asked(self, ledger_url: str | None) -> None:
        """Train to the end, in this process or in several others."""
        self._watcher.begun(self._folder.id)
        num_processes = self._prepared.machine.num_processes
        if num_processes == 1:
            self.run()
            return
        from conviction.run.launch import ProcessLost, launch

        if note := describe_processes(self._prepared.machine):
            self._watcher.note(note)
        self._set_status("running")
        try:
            launch(self._folder.path, num_processes, ledger_url, self._watcher)
        except KeyboardInterrupt:
            self._end_for_others("interrupted", "Interrupted by the user.")
            raise
        except ProcessLost as error:
            self._end_for_others("failed", error.message)
            raise
        except BaseException as error:
            if self._folder.read_summary().status == "running":
                with suppress(ConvictionError, OSError):
                    self._end_for_others("failed", str(error))
            raise

    def _end_for_others(self, status: Status, message: str) -> None:
        """Say how the training ended in place of processes that could not."""
        self.restore()
        self._end(status, message)

    def _run_epochs(self) -> Status:
        if not self._history:
            self._keep(*self._trainer.epoch_zero())
        for epoch in range(self._history[-1].epoch + 1, self._recipe.fit.epochs + 1):
            if should_stop(self._history, self._recipe.stopping):
                return "stopped_early"
            record, timing = self._trainer.train_epoch(epoch, partial(self._watcher.step, epoch))
            self._keep(record, timing)
        return "finished"

    def _keep(self, record: EpochRecord, timing: Timing) -> None:
        self._history.append(record)
        self._timings.append(timing)
        progress = {
            "history": [to_json(kept) for kept in self._history],
            "timings": [to_json(kept) for kept in self._timings],
            "schedule": self._trainer.schedule.state(),
        }
        save_checkpoint(self._folder.checkpoint, self._network, self._trainer.optimizer, progress)
        is_best = self._publish()
        self._watcher.epoch(record, timing, is_best)

    def _publish(self) -> bool:
        """Write everything that follows from the checkpoint; returns whether its epoch is the best so far."""
        folder, network, last = self._folder, self._network, self._history[-1]
        best = best_of(self._history, self._recipe.stopping.figure)
        is_best = best.epoch == last.epoch
        if is_best:
            save_weights(folder.weights("best"), network, {"epoch": best.epoch})
        save_weights(folder.weights("last"), network, {"epoch": last.epoch})
        folder.write_history(self._history)
        folder.write_timings(self._timings)
        seconds = sum(timing.train_s + timing.validation_s for timing in self._timings)
        train_s = sum(timing.train_s for timing in self._timings)
        num_images = sum(record.train.count for record in self._history if record.train)
        self._summary = dataclasses.replace(
            self._summary,
            epochs=last.epoch,
            seconds=seconds,
            images_per_second=num_images / train_s if train_s else 0.0,
            peak_memory_bytes=max(timing.peak_memory_bytes for timing in self._timings),
            best=best,
            last=last,
        )
        folder.write_summary(self._summary)
        self._tell_ledger([last])
        return is_best

    def _end(self, status: Status, message: str) -> None:
        """Draw the figures and write the last status, in this order: what is finished has its figures."""
        if self._history:
            self._draw()
        self._set_status(status, message)
        self._ledger_works = True
        self._tell_ledger(self._history)

    def _draw(self) -> None:
        folder, best = self._folder, best_of(self._history, self._recipe.stopping.figure)
        title = f"{folder.id} · seed {self._recipe.seed}"
        draw_curves(self._history, best.epoch, title, folder.figures / "curves.png")
        draw_learning_rate(self._history, title, folder.figures / "learning_rate.png")
        before = load_tensors(folder.filters)[0].get("before")
        if before is not None:
            network = Run(folder).network("best")
            after = first_layer_filters(network, self._prepared.input_shape)
            assert after is not None
            save_tensors(folder.filters, {"before": before, "after": after}, {"epoch": best.epoch})
            draw_filters(before.numpy(), after.numpy(), title, folder.figures / "filters.png")

    def _set_status(self, status: Status, message: str = "") -> None:
        self._summary = dataclasses.replace(self._summary, status=status, message=message)
        self._folder.write_summary(self._summary)

    def _tell_ledger(self, records: list[EpochRecord]) -> None:
        """The ledger is an index: where it fails in the middle of a training, the training goes on without it."""
        if not self._ledger_works:
            return
        try:
            self._ledger.record_run(self._summary, self._folder.path)
            self._ledger.record_epochs(self._folder.id, records)
        except LedgerError as error:
            self._watcher.note(f"{error} The training goes on; `conviction runs rebuild` mends the index.")
            self._ledger_works = False

    def _num_epochs_done(self) -> int:
        return self._history[-1].epoch if self._history else 0
