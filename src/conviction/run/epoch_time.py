"""How long an epoch will take on this machine, from a few measured steps."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median

from conviction.core import rng
from conviction.core.environment import check_torch_and_torchvision
from conviction.core.errors import ConfigError
from conviction.fit.loop import Trainer
from conviction.fit.watcher import Watcher
from conviction.predict import predict_batches
from conviction.run.cached_frozen import sampled_rest, will_cache, with_cached_frozen
from conviction.run.ceiling import waiting
from conviction.run.fastest import settle
from conviction.run.faults import training_faults
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.recipe import Recipe
from conviction.run.starting import build_trainer, network_to_begin_with

_WARMUP_STEPS = 5
_LEAST_STEPS, _LONGEST_S = 8, 6.0


@dataclass(frozen=True)
class EpochTime:
    """An estimate in seconds, what it rests on, and, where one was run, what a real epoch took.

    `frozen_s` is what frozen layers take that are computed once, before the first epoch: 0 where they are kept from an
    earlier training, None where nothing of the kind is done.
    """

    seconds: float
    train_s: float
    validation_s: float
    num_steps: int
    measured_steps: int
    frozen_s: float | None = None
    real_s: float | None = None
    real_frozen_s: float | None = None

    @property
    def error(self) -> float | None:
        """How far the estimate is from the real epoch, as a fraction of it; negative where it was too low."""
        return None if self.real_s is None else (self.seconds - self.real_s) / self.real_s


def estimate_epoch(recipe: Recipe, check: bool = False) -> EpochTime:
    """Measure some steps of training and some batches of validation, and work out an epoch; nothing is kept.

    Frozen layers that training computes once are counted apart. With `check`, a real epoch is run behind it, and what
    its frozen layers make of the pictures is kept for the training.

    Raises: DataError, ConfigError, OutOfMemory, as training does.
    """
    check_torch_and_torchvision()
    machine = Machine.for_recipe(recipe)
    with training_faults(recipe):
        # What compiling would gain is left out: trying it takes longer than the estimate.
        prepared = settle(prepare(recipe, machine), build_trainer, lambda _: None, try_compiling=False)
        machine = prepared.machine
        machine.engage()
        # Which activations are kept already depends on the weights.
        network = network_to_begin_with(prepared, Watcher()) if will_cache(prepared) else None
        num_sampled = prepared.stream(prepared.splits.train).batch_size
        built = build_trainer(prepared, network, on_device=not will_cache(prepared))
        trainer, frozen_s = sampled_rest(built, prepared, num_sampled)
        wait = waiting(machine.device)
        num_steps, num_batches = trainer.train.num_batches, trainer.validation.num_batches
        steps: list[float] = []
        with rng.torch_default(recipe.seed, "time"):
            batches = iter(trainer.train.shuffled(rng.generator(recipe.seed, "time"), seed=recipe.seed))
            began = last = time.perf_counter()
            for number, batch in enumerate(batches):
                trainer.take_step(batch)
                wait()
                now = time.perf_counter()
                # The first steps find memory and kernels.
                if number >= _WARMUP_STEPS:
                    steps.append(now - last)
                last = now
                if len(steps) >= _LEAST_STEPS and now - began > _LONGEST_S:
                    break
        if not steps:
            raise ConfigError(f"An epoch of {num_steps} steps is too short to be estimated: train it.")
        validated: list[float] = []
        last = time.perf_counter()
        for _ in islice(predict_batches(trainer.network, trainer.validation, machine.precision), _LEAST_STEPS):
            wait()
            now = time.perf_counter()
            validated.append(now - last)
            last = now
        # Medians: on a machine that others use too, a few steps take much longer.
        train_s, validation_s = median(steps) * num_steps, median(validated) * num_batches
        estimate = EpochTime(train_s + validation_s, train_s, validation_s, num_steps, len(steps), frozen_s)
        return _checked(estimate, trainer, prepared) if check else estimate


def _checked(estimate: EpochTime, trainer: Trainer, prepared: Prepared) -> EpochTime:
    """With what a real epoch takes."""
    real_frozen_s = None
    if estimate.frozen_s is not None:
        began = time.perf_counter()
        trainer = with_cached_frozen(
            build_trainer(prepared, network_to_begin_with(prepared, Watcher())), prepared, Watcher()
        )
        real_frozen_s = time.perf_counter() - began
    _, timing = trainer.train_epoch(1, lambda done, total: None)
    return replace(estimate, real_s=timing.train_s + timing.validation_s, real_frozen_s=real_frozen_s)
