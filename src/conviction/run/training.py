"""Training a recipe to a run, and going on after whatever stopped it."""

from __future__ import annotations

import dataclasses
import os
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from torch import nn

from conviction.core.environment import check_torch_and_torchvision, describe_environment
from conviction.core.errors import ConvictionError, RunError
from conviction.core.files import write_json, write_text
from conviction.core.ledger import Ledger
from conviction.core.records import DataRecord, RunSummary
from conviction.core.run_folder import RunFolder, create_run_folder, runs_home
from conviction.fit.checkpoint import (
    save_tensors,
)
from conviction.fit.loop import Trainer
from conviction.fit.watcher import Watcher
from conviction.nets.block import first_layer_filters, num_parameters
from conviction.run.cached_frozen import will_cache, with_cached_frozen
from conviction.run.compiling import with_compiled_step
from conviction.run.fastest import settle
from conviction.run.faults import training_faults
from conviction.run.model import load_standardization, write_model
from conviction.run.prepared import Machine, Prepared, describe_change, prepare
from conviction.run.processes import (
    NumProcesses,
    check_processes,
    choose_num_processes,
    describe_another_number,
)
from conviction.run.recipe import Recipe, load_recipe
from conviction.run.recorded_training import Training, network_to_go_on_with
from conviction.run.saved import Run
from conviction.run.starting import build_trainer, drawn_network, network_to_begin_with, with_weights_digest


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
        prepared = prepare(resolved, machine, watcher.packing)
        data = prepared.data_record()
        _tell_of_data(data, watcher)
        if machine.num_processes > 1:
            # Before anything is measured for them.
            check_processes(prepared, drawn_network(prepared))
        began = time.perf_counter()
        prepared = settle(prepared, build_trainer, watcher.note)
        network = network_to_begin_with(prepared, watcher)
        trainer = with_cached_frozen(_built(prepared, network, watcher), prepared, watcher)
        trainer, prepared = with_compiled_step(trainer, prepared)
        preparation_s = time.perf_counter() - began
        folder = create_run_folder(home, resolved.name)
        with folder.held():
            ledger = _open_ledger(folder, home, ledger_url)
            summary = _describe(folder, prepared, network, data, preparation_s)
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
        data = prepared.data_record()
        _refuse_changed_data(folder, summary.data, data)
        _tell_of_data(data, watcher)
        # An audit may have been made meanwhile.
        summary = dataclasses.replace(summary, data=dataclasses.replace(summary.data, notes=data.notes))
        network = network_to_go_on_with(folder, prepared, watcher)
        check_processes(prepared, network)
        if chosen != summary.num_processes:
            watcher.note(describe_another_number(summary.num_processes, chosen))
            summary = dataclasses.replace(summary, num_processes=chosen)
        began = time.perf_counter()
        trainer = with_cached_frozen(_built(prepared, network, watcher), prepared, watcher)
        if summary.epochs < recipe.fit.epochs:
            trainer, prepared = with_compiled_step(trainer, prepared, summary.epochs + 1)
        preparation_s = summary.preparation_s + time.perf_counter() - began
        summary = dataclasses.replace(summary, preparation_s=preparation_s)
        ledger = Ledger.beside(folder.path.resolve().parent, ledger_url)
        training = Training(folder, prepared, (network, trainer), ledger, watcher, summary)
        training.restore()
        training.run_as_asked(ledger_url)
    return Run(folder, ledger_url)


def _built(prepared: Prepared, network: nn.Module, watcher: Watcher) -> Trainer:
    """Its pictures on a GPU where this process is the one that computes, and computes on pictures."""
    on_device = prepared.machine.num_processes == 1 and not will_cache(prepared)
    return build_trainer(prepared, network, note=watcher.note, on_device=on_device)


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


def _tell_of_data(data: DataRecord, watcher: Watcher) -> None:
    """Before all else that is to be said: whether to train on these pictures at all may depend on it."""
    for note in data.notes:
        watcher.note(note)


def _describe(
    folder: RunFolder, prepared: Prepared, network: nn.Module, data: DataRecord, preparation_s: float
) -> RunSummary:
    recipe = prepared.recipe
    return RunSummary(
        run=folder.id,
        name=recipe.name,
        recipe=recipe.name,
        status="running",
        created_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        seed=recipe.seed,
        data=data,
        num_parameters=num_parameters(network),
        num_processes=prepared.machine.num_processes,
        preparation_s=preparation_s,
    )


def _write_beginnings(folder: RunFolder, prepared: Prepared, network: nn.Module, summary: RunSummary) -> None:
    """What does not change while a run trains; `run.json` comes last, so that a folder with it is whole."""
    machine = prepared.machine
    write_text(folder.recipe, prepared.recipe.to_yaml())
    environment = describe_environment(
        machine.threads,
        machine.device.type,
        machine.precision,
        machine.memory_format,
        machine.num_processes,
        machine.compile,
    )
    write_json(folder.environment, environment)
    write_model(folder, prepared)
    folder.write_split(prepared.splits.by_path(prepared.pack.paths))
    if prepared.pack.skipped:
        write_text(folder.skipped, "".join(f"{line}\n" for line in prepared.pack.skipped))
    before = first_layer_filters(network, prepared.input_shape)
    save_tensors(folder.filters, {} if before is None else {"before": before}, {"epoch": 0})
    folder.write_summary(summary)


def _refuse_changed_data(folder: RunFolder, former: DataRecord, now: DataRecord) -> None:
    if change := describe_change(former, now):
        raise RunError(
            f"{change} since {folder.id} began: going on would mix training with test pictures. Bring the former ones "
            "back, or train anew."
        )
