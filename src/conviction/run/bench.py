"""What this machine does: its ceilings, and how near to them a recipe trains. No pictures are needed."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from conviction.core import rng
from conviction.core.bench_record import BenchRecord, Ceiling, Rate, TrainingSpeed
from conviction.core.device import device_name
from conviction.core.environment import check_torch_and_torchvision, describe_environment
from conviction.core.errors import ConfigError, UnknownName
from conviction.fit.loop import Trainer
from conviction.nets import PRESETS
from conviction.nets.block import num_parameters
from conviction.nets.named import TORCHVISION, build_torchvision
from conviction.nets.step_cost import training_step_macs
from conviction.recipes import recipe_names
from conviction.run.architecture import Shape, pictures_of
from conviction.run.ceiling import measure_ceilings, measure_copying, waiting
from conviction.run.faults import training_faults
from conviction.run.prepared import Machine, Prepared
from conviction.run.random_pictures import with_random_pictures
from conviction.run.recipe import Recipe, load_recipe
from conviction.run.starting import build_trainer
from conviction.run.stopwatch import time_repeatedly

DEFAULT_RECIPE, DEFAULT_SECONDS = "convnet-cifar10", 20.0
LEAST_SECONDS, MOST_SECONDS = 1.0, 3600.0
# Of the time: the rest goes to the whole loop.
_CEILING_SHARE, _COPYING_SHARE, _STEP_SHARE = 0.45, 0.05, 0.2
_NUM_LOOPS, _LEAST_LOOP_STEPS, _MOST_PICTURE_BYTES = 4, 2, 2**29
# Labels drawn at random teach nothing; at this rate no optimiser can spoil the weights meanwhile.
_LEARNING_RATE = 1e-6
_USUAL_NUM_CLASSES = 10


def bench_machine(
    recipe: str | Path | Mapping[str, Any] | Recipe = DEFAULT_RECIPE,
    overrides: Mapping[str, Any] | None = None,
    *,
    input_shape: Shape | None = None,
    num_classes: int | None = None,
    seconds: float = DEFAULT_SECONDS,
    on_stage: Callable[[str], None] = lambda stage: None,
) -> BenchRecord:
    """Measure this machine for about so many seconds, and the training of a recipe or a network on random pictures.

    A network is a preset or one of torchvision's, `torchvision:NAME`.

    `on_stage` hears what is measured next.

    Raises: UnknownName; ConfigError where the recipe does not say how large its pictures are; OutOfMemory.

    >>> bench_machine("digits", seconds=1).training.step_images_per_s.median > 0  # doctest: +SKIP
    True
    """
    check_torch_and_torchvision()
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        raise ConfigError(f"`{LEAST_SECONDS:g} <= seconds <= {MOST_SECONDS:g}` must hold, but got {seconds:g}.")
    load_average = _load_average()
    began = time.perf_counter()
    resolved, shape, classes = _resolved(recipe, overrides or {}, input_shape, num_classes)
    machine = Machine.for_recipe(resolved)
    machine.engage()
    with training_faults(resolved):
        # Before anything is timed: what is wrong with the recipe shows here.
        # Of three batches the first is whole even where that is one picture; of two, the last would join it.
        trainer = _built(with_random_pictures(resolved, shape, classes, machine, 3))
        on_stage("matrix products and convolutions")
        ceilings = measure_ceilings(machine.device, _CEILING_SHARE * seconds)
        on_stage("copying memory")
        copying = measure_copying(machine.device, _COPYING_SHARE * seconds)
        on_stage(f"training steps of {resolved.name}")
        step_s = _time_steps(trainer, resolved.seed, _STEP_SHARE * seconds)
        on_stage(f"the whole loop of {resolved.name}")
        loop_s = (1 - _CEILING_SHARE - _COPYING_SHARE - _STEP_SHARE) * seconds
        num_steps = _num_loop_steps(resolved, shape, median(step_s), loop_s)
        prepared = with_random_pictures(resolved, shape, classes, machine, num_steps)
        loops = _run_loops(build_trainer(prepared, on_device=True))
    training = _describe(trainer, prepared, ceilings, step_s, loops)
    about = (machine.threads, machine.device.type, machine.precision, machine.memory_format)
    environment = describe_environment(*about, compile=machine.compile)
    name = device_name(machine.device)
    return BenchRecord(environment, name, ceilings, copying, training, load_average, time.perf_counter() - began)


def _resolved(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    overrides: Mapping[str, Any],
    input_shape: Shape | None,
    num_classes: int | None,
) -> tuple[Recipe, Shape, int]:
    """The recipe, the shape of its pictures and the number of classes. Raises: ConfigError."""
    if isinstance(recipe, str) and (known := _pictures_of_network(recipe)):
        if "network" in overrides:
            raise ConfigError(f"{recipe} is a network: `network` cannot name another one.")
        resolved = load_recipe({"name": recipe.removeprefix(TORCHVISION), "network": recipe}, overrides)
        shape, classes = input_shape or known[0], num_classes or known[1]
    else:
        resolved = _loaded(recipe, overrides)
        known_shape, known_classes, _ = pictures_of(resolved)
        if input_shape is None and known_shape is None:
            raise ConfigError(
                f"The recipe {resolved.name!r} does not say how large its pictures are. Give --input, for example "
                "--input 3x64x64."
            )
        shape, classes = input_shape or known_shape, num_classes or known_classes or _USUAL_NUM_CLASSES  # type: ignore[assignment]
    return load_recipe(resolved, _steady(resolved)), shape, classes


def _pictures_of_network(name: str) -> tuple[Shape, int] | None:
    """What a network that is named itself is made for: the shape of pictures, and the number of classes."""
    if name.startswith(TORCHVISION):
        _, side_px = build_torchvision(name.removeprefix(TORCHVISION))
        return (3, side_px, side_px), _USUAL_NUM_CLASSES
    if name in PRESETS and name not in recipe_names():
        return PRESETS[name].input_shape, PRESETS[name].num_classes
    return None


def _steady(recipe: Recipe) -> dict[str, Any]:
    """What lets all epochs be alike, on whole pictures, however few the recipe has."""
    rates = [key for key in type(recipe.optimizer).model_fields if key in ("learning_rate", "rest_learning_rate")]
    return {
        **{f"optimizer.{key}": _LEARNING_RATE for key in rates},
        "fit.epochs": max(recipe.fit.epochs, _NUM_LOOPS),
        "fit.progressive_sizes": [],
    }


def _loaded(recipe: str | Path | Mapping[str, Any] | Recipe, overrides: Mapping[str, Any]) -> Recipe:
    try:
        return load_recipe(recipe, overrides)
    except UnknownName as error:
        if error.what != "recipe":
            raise
        raise UnknownName("recipe or preset", error.name, {*error.known, *PRESETS}) from error


def _built(prepared: Prepared) -> Trainer:
    """Raises: ConfigError where the step should be compiled and cannot be."""
    notes: list[str] = []
    trainer = build_trainer(prepared, note=notes.append)
    if trainer.compile != "none" and trainer.compile_step() is None:
        raise ConfigError(f"`fit.compile: {trainer.compile}` cannot be measured here. {' '.join(notes)}")
    return trainer


def _time_steps(trainer: Trainer, seed: int, budget_s: float) -> list[float]:
    """Seconds of a training step on a batch that lies ready."""
    trainer.network.train()
    with rng.torch_default(seed, "bench"):
        batch = next(iter(trainer.train.shuffled(rng.generator(seed, "bench"), seed=seed)))
        return time_repeatedly(lambda: trainer.take_step(batch), budget_s, waiting(trainer.train.device))


def _num_loop_steps(recipe: Recipe, shape: Shape, step_s: float, budget_s: float) -> int:
    """How many steps an epoch needs so that all epochs together take the time; few where pictures are large."""
    in_time = round(budget_s / _NUM_LOOPS / step_s)
    in_memory = _MOST_PICTURE_BYTES // (math.prod(shape) * recipe.fit.batch_size)
    return max(_LEAST_LOOP_STEPS, min(in_time, in_memory))


def _run_loops(trainer: Trainer) -> list[float]:
    """Seconds of the training part of some epochs; the first one is for warming up."""
    timings = [trainer.train_epoch(epoch, lambda done, steps: None)[1] for epoch in range(1, _NUM_LOOPS + 1)]
    return [timing.train_s for timing in timings[1:]]


def _describe(
    trainer: Trainer, prepared: Prepared, ceilings: tuple[Ceiling, ...], step_s: list[float], loop_s: list[float]
) -> TrainingSpeed:
    recipe = prepared.recipe
    possible = [ceiling for ceiling in ceilings if ceiling.precision == trainer.precision]
    # A convolution finds more of its numbers in the cache, and is faster than the product on some machines.
    ceiling = max(possible, key=lambda one: one.flops.median)
    (matrix,) = (one for one in possible if one.operation == "matrix product")
    macs = training_step_macs(trainer.network, prepared.input_shape, recipe.fit.batch_size)
    return TrainingSpeed(
        recipe=recipe.name,
        input=prepared.input_shape,
        batch_size=recipe.fit.batch_size,
        precision=trainer.precision,
        num_parameters=num_parameters(trainer.network),
        step_flop=2 * macs,
        step_images_per_s=Rate.of(recipe.fit.batch_size, step_s),
        loop_images_per_s=Rate.of(len(prepared.splits.train), loop_s),
        ceiling_operation=ceiling.shown_operation,
        ceiling_flops=ceiling.flops.median,
        matrix_flops=matrix.flops.median,
    )


def _load_average() -> float | None:
    with suppress(OSError, AttributeError):
        return os.getloadavg()[0]
    return None
