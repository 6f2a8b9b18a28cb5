"""Training a recipe to a run, and going on after whatever stopped it.

At the end of each epoch the checkpoint is written first: it alone decides where a resumed run goes on, and everything
else in the folder can be written again from it.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from conviction.core.environment import check_torch_and_torchvision, describe_environment
from conviction.core.errors import ConvictionError, LedgerError, RunError, TrainingDiverged
from conviction.core.files import write_json, write_text
from conviction.core.ledger import Ledger
from conviction.core.records import EpochRecord, RunSummary, Status, Timing, from_json, to_json
from conviction.core.run_folder import RunFolder, create_run_folder, runs_home
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
from conviction.nets.block import first_layer_filters, num_parameters
from conviction.report.figure import draw_curves, draw_filters, draw_learning_rate
from conviction.run.cached_frozen import with_cached_frozen
from conviction.run.fastest import settle
from conviction.run.faults import memory_fault, training_faults
from conviction.run.model import load_standardization, write_model
from conviction.run.prepared import Machine, Prepared, describe_change, prepare
from conviction.run.processes import (
    NumProcesses,
    check_processes,
    choose_num_processes,
    describe_another_number,
    describe_processes,
)
from conviction.run.recipe import Recipe, load_recipe
from conviction.run.saved import Run
from conviction.run.starting import build_trainer, network_of_checkpoint, network_to_begin_with, with_weights_digest


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any] | None = None,
    *,
    processes: NumProcesses = 1,
    home: str | Path | None = None,
    ledger_url: str | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Train a recipe: a built-in name, a YAML file, a mapping or a `Recipe`, with dotted keys replaced.

    Ctrl-C ends the training with the best weights kept; `resume` goes on from there. Several `processes` share each
    batch and compute what one would; `auto` is one for each GPU.

    Raises: ConvictionError of the family that fits: ConfigError, DataError, StorageError, LedgerError, OutOfMemory,
    TrainingDiverged (the best weights are kept), InstallationError.

    >>> run = train("digits", {"fit.epochs": 3})  # doctest: +SKIP
    """
    check_torch_and_torchvision()
    watcher = watcher or Watcher()
    resolved = with_weights_digest(_with_whole_path(load_recipe(recipe, overrides)))
    machine = Machine.for_recipe(resolved)
    machine = dataclasses.replace(machine, num_processes=choose_num_processes(processes, machine, resolved))
    home = Path(home or runs_home())
    with training_faults(resolved):
        prepared = settle(prepare(resolved, machine, watcher.packing), build_trainer, watcher.note)
        network = network_to_begin_with(prepared, watcher)
        check_processes(prepared, network)
        trainer = with_cached_frozen(build_trainer(prepared, network), prepared, watcher)
        folder = create_run_folder(home, resolved.name)
        with folder.held():
            ledger = _open_ledger(folder, home, ledger_url)
            summary = _describe(folder, prepared, network)
            _write_beginnings(folder, prepared, network, summary)
            Training(folder, prepared, (network, trainer), ledger, watcher, summary).run_as_asked(ledger_url)
    return Run(folder, ledger_url)


def resume(
    reference: str | Path | Run = "latest",
    *,
    processes: NumProcesses | None = None,
    home: str | Path | None = None,
    ledger_url: str | None = None,
    watcher: Watcher | None = None,
) -> Run:
    """Go on with a run that was killed, interrupted or crashed, as if nothing had happened.

    On the CPU its weights and history end bit for bit as those of a run that was never interrupted. A run that is
    complete is returned as it is. None: as many `processes` as before; another number rounds otherwise.

    Raises: RunError where the run is being trained, is damaged, has diverged, or its pictures changed.
    """
    check_torch_and_torchvision()
    watcher = watcher or Watcher()
    folder = Run.open(reference, home).folder
    recipe = load_recipe(folder.recipe)
    with folder.held(), training_faults(recipe):
        summary = folder.read_summary()
        if summary.status in ("finished", "stopped_early"):
            watcher.note(f"The run {folder.id} is complete: there is nothing to resume.")
            return Run(folder, ledger_url)
        if summary.status == "diverged":
            raise RunError(
                f"The run {folder.id} diverged, and going on would repeat it: {summary.message} Train anew: "
                f"conviction train {folder.recipe} --set optimizer.learning_rate=…"
            )
        machine = Machine.recorded(folder, recipe)
        chosen = choose_num_processes(summary.num_processes if processes is None else processes, machine, recipe)
        machine = dataclasses.replace(machine, num_processes=chosen)
        # The saved one: fitting anew takes time, and rounds otherwise with another number of threads.
        prepared = prepare(recipe, machine, watcher.packing, load_standardization(folder))
        _refuse_changed_data(folder, summary, prepared)
        network = network_to_go_on_with(folder, prepared, watcher)
        check_processes(prepared, network)
        if chosen != summary.num_processes:
            watcher.note(describe_another_number(summary.num_processes, chosen))
            summary = dataclasses.replace(summary, num_processes=chosen)
        trainer = with_cached_frozen(build_trainer(prepared, network), prepared, watcher)
        ledger = Ledger.beside(folder.path.resolve().parent, ledger_url)
        training = Training(folder, prepared, (network, trainer), ledger, watcher, summary)
        training.restore()
        training.run_as_asked(ledger_url)
    return Run(folder, ledger_url)


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
        for note in self._summary.data.notes:
            self._watcher.note(note)
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


def _with_whole_path(recipe: Recipe) -> Recipe:
    """The recipe with relative paths made absolute, so that the run can be used from any folder."""
    named = {
        "data.path": recipe.data.path,
        "split.file": recipe.split.file,
        "network.weights": recipe.network.weights,
    }
    paths = {key: Path(os.path.expanduser(path)) for key, path in named.items() if path}
    whole = {key: str(path.absolute()) for key, path in paths.items() if path.exists()}
    return load_recipe(recipe, whole) if whole else recipe


def _open_ledger(folder: RunFolder, home: Path, url: str | None) -> Ledger:
    """The ledger for a new run; where there is none, the folder that was just made goes again."""
    try:
        return Ledger.beside(home, url)
    except ConvictionError:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _describe(folder: RunFolder, prepared: Prepared, network: nn.Module) -> RunSummary:
    recipe = prepared.recipe
    return RunSummary(
        run=folder.id,
        name=recipe.name,
        recipe=recipe.name,
        status="running",
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        seed=recipe.seed,
        data=prepared.data_record(),
        num_parameters=num_parameters(network),
        num_processes=prepared.machine.num_processes,
    )


def _write_beginnings(folder: RunFolder, prepared: Prepared, network: nn.Module, summary: RunSummary) -> None:
    """What does not change while a run trains; `run.json` comes last, so that a folder with it is whole."""
    machine = prepared.machine
    write_text(folder.recipe, prepared.recipe.to_yaml())
    environment = describe_environment(
        machine.threads, machine.device.type, machine.precision, machine.memory_format, machine.num_processes
    )
    write_json(folder.environment, environment)
    write_model(folder, prepared)
    folder.write_split(prepared.splits.by_path(prepared.pack.paths))
    if prepared.pack.skipped:
        write_text(folder.skipped, "".join(f"{line}\n" for line in prepared.pack.skipped))
    before = first_layer_filters(network, prepared.input_shape)
    save_tensors(folder.filters, {} if before is None else {"before": before}, {"epoch": 0})
    folder.write_summary(summary)


def _refuse_changed_data(folder: RunFolder, summary: RunSummary, prepared: Prepared) -> None:
    if change := describe_change(summary.data, prepared.data_record()):
        raise RunError(
            f"{change} since {folder.id} began: going on would mix training with test pictures. Bring the former ones "
            "back, or train anew."
        )
