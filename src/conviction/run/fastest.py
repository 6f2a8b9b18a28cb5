"""The fastest way to compute a network on this machine, measured once and remembered."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from conviction.core import rng
from conviction.core.device import (
    device_name,
    give_back_freed_memory,
    has_bfloat16,
    num_physical_cores,
    threads_asked_for,
)
from conviction.core.errors import ConvictionError
from conviction.core.files import make_folder, read_json, write_json
from conviction.data.source.locate import cache_folder
from conviction.data.stream import Batch
from conviction.fit.loop import Trainer
from conviction.run.cached_frozen import sampled_rest, will_cache
from conviction.run.compiling import open_modes, settle_compiling
from conviction.run.prepared import Machine, Prepared
from conviction.run.recipe import Recipe

# Counted up whenever the ways, or how they are measured, change.
_FORMAT = 6
# In fewer steps a faster way does not make up for the time of measuring.
LEAST_STEPS = 500
_WARMUP_STEPS, _MEASURED_STEPS, _LONGEST_S = 2, 5, 4.0
# Of the shortest steps more are taken: else other work, in a moment, takes the core from all of them.
_SHORTEST_S = 0.1
# Through the frozen layers: enough to tell one way from another, and few beside all that are computed once.
_FROZEN_PICTURES = 16
# Another way than the usual one has to be so much faster: less is noise, and machines alike should compute alike.
LEAST_GAIN = 1.1


@dataclass(frozen=True)
class Way:
    """One way to compute, and the seconds that a training step took."""

    machine: Machine
    step_s: float

    def __str__(self) -> str:
        return f"{self.machine.precision}, {self.machine.memory_format} {1000 * self.step_s:.1f} ms"


def settle(
    prepared: Prepared,
    build: Callable[[Prepared], Trainer],
    note: Callable[[str], None],
    try_compiling: bool = True,
) -> Prepared:
    """The same, on the machine in its fastest way, where the recipe leaves how to compute to `auto`.

    Each way takes a few training steps on the first batch, with networks that are thrown away. Where cores share their
    arithmetic units, a thread for each unit is tried in the fastest of them. What was found is kept in the cache
    folder, for this machine, network, size of pictures and batch size, so that the next training measures nothing and
    computes alike. Trainings of fewer than 500 steps take the usual way. Frozen layers that a training computes once
    count once. In the fastest way, long trainings try whether compiling repays itself.
    """
    every_way = ways(prepared.recipe, prepared.machine)
    fewer = fewer_threads(prepared.recipe, prepared.machine)
    num_steps = prepared.recipe.fit.epochs * prepared.training_stream().num_batches
    may_compile = try_compiling and bool(open_modes(prepared))
    if num_steps < LEAST_STEPS or not (len(every_way) > 1 or fewer or may_compile):
        return prepared
    about = _about(prepared, every_way, fewer)
    path = cache_folder() / "fastest" / f"{hashlib.sha256(json.dumps(about).encode()).hexdigest()[:32]}.json"
    chosen = _remembered(path, about, every_way, fewer)
    if chosen is None:

        def measure(machine: Machine) -> Way:
            return _measured(prepared, machine, build)

        measured = measured_in_turns(every_way, measure)
        chosen = choose(measured)
        shown = "; ".join(map(str, measured))
        if fewer:
            of_both = measured_in_turns([chosen.machine, replace(chosen.machine, threads=fewer)], measure)
            measured.append(of_both[1])
            chosen = choose(of_both)
            shown += f"; {measured[-1]} with {fewer} thread{'s' * (fewer > 1)}"
        chosen.machine.engage()
        note(f"Measured once for this network on this machine, a step: {shown}.")
        # Where it cannot be kept, the next start measures again.
        with suppress(ConvictionError):
            make_folder(path.parent)
            seconds = [way.step_s for way in measured]
            found = {**_settings(chosen.machine), "step_s": chosen.step_s, "steps_s": seconds}
            write_json(path, {**found, "measured_at": datetime.now(UTC).isoformat(timespec="seconds"), "about": about})
    prepared = replace(prepared, machine=chosen.machine)
    return settle_compiling(prepared, chosen.step_s, about, build, note) if may_compile else prepared


def ways(recipe: Recipe, machine: Machine) -> list[Machine]:
    """All ways that a recipe leaves open on a machine, the usual one first."""
    precisions, formats = [machine.precision], [machine.memory_format]
    if recipe.fit.precision == "auto" and has_bfloat16(machine.device):
        precisions = ["bfloat16", "float32"]
    if recipe.fit.memory_format == "auto":
        formats = ["channels_last", "contiguous"]
    return [
        replace(machine, precision=precision, memory_format=memory_format)
        for precision, memory_format in itertools.product(precisions, formats)
    ]


def fewer_threads(recipe: Recipe, machine: Machine) -> int | None:
    """A thread for each core that shares no arithmetic unit with another, where that leaves some idle.

    None where it leaves none, and where the recipe, the user or several processes say how many threads there are.
    """
    is_settled = recipe.fit.threads is not None or threads_asked_for() is not None or machine.num_processes > 1
    if is_settled or machine.device.type != "cpu":
        return None
    fewer = num_physical_cores()
    return fewer if fewer < machine.threads else None


def measured_in_turns(machines: list[Machine], measure: Callable[[Machine], Way]) -> list[Way]:
    """Each way, and where another than the first looks faster, each once more: the shorter step counts.

    Else other work that fell on the first alone would decide, and be remembered.
    """
    measured = [measure(machine) for machine in machines]
    if choose(measured) is not measured[0]:
        again = [measure(machine) for machine in machines]
        measured = [min(pair, key=lambda way: way.step_s) for pair in zip(measured, again, strict=True)]
    return measured


def choose(measured: list[Way]) -> Way:
    """The fastest; the first, which is the usual one, unless another gains a tenth."""
    usual, fastest = measured[0], min(measured, key=lambda way: way.step_s)
    return fastest if fastest.step_s * LEAST_GAIN < usual.step_s else usual


def _about(prepared: Prepared, machines: list[Machine], fewer: int | None) -> dict[str, Any]:
    """All that the measured times depend on."""
    recipe, machine = prepared.recipe, prepared.machine
    return {
        "format": _FORMAT,
        "torch": torch.__version__,
        "device": device_name(machine.device),
        "threads": machine.threads,
        "fewer_threads": fewer,
        "num_processes": machine.num_processes,
        # Whatever its weights are.
        "network": recipe.network.model_dump(mode="json", exclude={"weights", "weights_sha256"}),
        "input_shape": list(prepared.input_shape),
        "num_classes": len(prepared.pack.classes),
        "batch_size": recipe.fit.batch_size,
        "optimizer": recipe.optimizer.name,
        "ways": [[machine.precision, machine.memory_format] for machine in machines],
        # Over so many epochs the one pass of frozen layers is spread.
        "epochs_of_one_pass": recipe.fit.epochs if will_cache(prepared) else None,
    }


def _settings(machine: Machine) -> dict[str, Any]:
    return {"precision": machine.precision, "memory_format": machine.memory_format, "threads": machine.threads}


def _remembered(path: Path, about: dict[str, Any], every_way: list[Machine], fewer: int | None) -> Way | None:
    if fewer:
        every_way = [*every_way, *(replace(machine, threads=fewer) for machine in every_way)]
    try:
        found = read_json(path)
        if found["about"] != about:
            return None
        machine = next(way for way in every_way if _settings(way).items() <= found.items())
        step_s = float(found["step_s"])
        return Way(machine, step_s) if 0 < step_s < math.inf else None
    except (ConvictionError, KeyError, TypeError, ValueError, StopIteration):
        return None


def _measured(prepared: Prepared, machine: Machine, build: Callable[[Prepared], Trainer]) -> Way:
    machine.engage()
    way = Way(machine, _step_s(replace(prepared, machine=machine), build))
    # In float32 it may have been twice of what the training will need.
    give_back_freed_memory()
    return way


def _step_s(prepared: Prepared, build: Callable[[Prepared], Trainer]) -> float:
    """The shortest of a few steps, and of frozen layers that are computed once a step's share."""
    trainer, once_s = sampled_rest(build(prepared), prepared, _FROZEN_PICTURES)
    seed = prepared.recipe.seed
    batch = _part_of_a_process(next(trainer.train.shuffled(rng.generator(seed, "fastest"), seed=seed)), prepared)
    trainer.network.train()
    with rng.torch_default(seed, "fastest"):
        for _ in range(_WARMUP_STEPS):
            take_step(trainer, batch)
        steps: list[float] = []
        while is_worth_a_step(len(steps), math.fsum(steps)):
            steps.append(take_step(trainer, batch))
    return min(steps) + (once_s or 0.0) / (prepared.recipe.fit.epochs * trainer.train.num_batches)


def is_worth_a_step(num_steps: int, seconds: float) -> bool:
    """Whether one more is measured: of the shortest many, of the longest two."""
    if num_steps < _MEASURED_STEPS:
        return num_steps < 2 or seconds < _LONGEST_S
    return seconds < _SHORTEST_S


def _part_of_a_process(batch: Batch, prepared: Prepared) -> Batch:
    """The images that the first of several processes has."""
    count = math.ceil(len(batch.labels) / prepared.machine.num_processes)
    return replace(batch, images=batch.images[:count], labels=batch.labels[:count], targets=batch.targets[:count])


def take_step(trainer: Trainer, batch: Batch) -> float:
    """The seconds of a training step."""
    start = time.perf_counter()
    loss, _ = trainer.take_step(batch)
    # A GPU is waited for.
    loss.item()
    return time.perf_counter() - start
