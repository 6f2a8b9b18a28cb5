"""The learning rate as a function of the step: a factor on the optimiser's rate, known before the training starts.

All but `plateau` depend on the step alone, so that resuming needs no state.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol, runtime_checkable

from pydantic import Field, model_validator

from conviction.core.config import Config
from conviction.core.records import EpochRecord
from conviction.core.registry import Registry

Factor = Annotated[float, Field(gt=0, lt=1)]


class ScheduleConfig(Config):
    """Every schedule may begin with a linear warm-up."""

    name: str
    warmup_epochs: float = Field(0.0, ge=0, description="Epochs (fractions too) over which the rate rises linearly")
    warmup_start: float = Field(0.01, gt=0, le=1, description="The factor at the first step of the warm-up")


class ConstantConfig(ScheduleConfig):
    """One rate throughout."""

    name: Literal["constant"] = "constant"


class StepConfig(ScheduleConfig):
    """Multiply by `factor` every `every_epochs`."""

    name: Literal["step"] = "step"
    every_epochs: int = Field(10, ge=1)
    factor: Factor = 0.1


class MultiStepConfig(ScheduleConfig):
    """Multiply by `factor` after each of the epochs in `milestones_epochs`."""

    name: Literal["multi_step"] = "multi_step"
    milestones_epochs: tuple[Annotated[int, Field(ge=1)], ...]
    factor: Factor = 0.1

    @model_validator(mode="after")
    def _ascending(self) -> MultiStepConfig:
        if not self.milestones_epochs or list(self.milestones_epochs) != sorted(set(self.milestones_epochs)):
            raise ValueError(f"`milestones_epochs` must be ascending and not empty, but got {self.milestones_epochs}.")
        return self


class ExponentialConfig(ScheduleConfig):
    """Multiply by `factor` after each epoch."""

    name: Literal["exponential"] = "exponential"
    factor: Annotated[float, Field(gt=0, le=1)] = 0.95


class CosineConfig(ScheduleConfig):
    """Half a cosine, step by step, from the rate after the warm-up down to `final` of it."""

    name: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, lt=1)


class OneCycleConfig(ScheduleConfig):
    """Up to the rate over `rise` of the steps, then down, both along a cosine; momentum stays as it is."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: float = Field(0.3, gt=0, lt=1, description="Share of the steps that rise")
    start: float = Field(0.04, gt=0, le=1, description="Factor at the first step")
    final: float = Field(4e-6, ge=0, lt=1, description="Factor at the last step")


class TriangularConfig(ScheduleConfig):
    """Straight up to the rate over `rise` of the steps, then straight down."""

    name: Literal["triangular"] = "triangular"
    rise: float = Field(0.23, ge=0, lt=1, description="Share of the steps that rise")
    start: float = Field(0.2, gt=0, le=1, description="Factor at the first step")
    final: float = Field(0.07, ge=0, lt=1, description="Factor that the last step would be followed by")


class PlateauConfig(ScheduleConfig):
    """Multiply by `factor` when the validation loss has not improved for more than `patience_epochs`."""

    name: Literal["plateau"] = "plateau"
    factor: Factor = 0.1
    patience_epochs: int = Field(5, ge=0)
    min_improvement: float = Field(1e-4, ge=0, lt=1, description="As a share of the best loss so far")


@dataclass(frozen=True)
class Span:
    """The length of a training."""

    num_epochs: int
    steps_per_epoch: int

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.num_epochs * self.steps_per_epoch


@runtime_checkable
class Schedule(Protocol):
    """A factor for each step; `observe` tells it of each finished epoch."""

    def factor(self, step: int) -> float: ...

    def observe(self, record: EpochRecord) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


class Shape:
    """A schedule without memory."""

    def __init__(self, shape: Callable[[int], float]) -> None:
        self._shape = shape

    def factor(self, step: int) -> float:
        return self._shape(step)

    def observe(self, record: EpochRecord) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None: ...


SCHEDULES: Registry[Callable[[Any, Span], Schedule]] = Registry("schedule")


def build_schedule(config: ScheduleConfig, span: Span) -> Schedule:
    """The schedule over a training of the given length."""
    return SCHEDULES[config.name].build(config, span)


def _warm(config: ScheduleConfig, span: Span, shape: Callable[[int], float]) -> Callable[[int], float]:
    """`shape`, multiplied by the line that rises from `warmup_start` to 1."""
    num_warm = _num_warm(config, span)

    def warmed(step: int) -> float:
        if step >= num_warm:
            return shape(step)
        return shape(step) * (config.warmup_start + (1 - config.warmup_start) * step / num_warm)

    return warmed


def _num_warm(config: ScheduleConfig, span: Span) -> int:
    return round(config.warmup_epochs * span.steps_per_epoch)


@SCHEDULES.register("constant", ConstantConfig, "One rate throughout")
def _constant(config: ConstantConfig, span: Span) -> Schedule:
    return Shape(_warm(config, span, lambda step: 1.0))


@SCHEDULES.register("step", StepConfig, "Multiplied by a factor every so many epochs")
def _step(config: StepConfig, span: Span) -> Schedule:
    return Shape(
        _warm(config, span, lambda step: config.factor ** (step // span.steps_per_epoch // config.every_epochs))
    )


@SCHEDULES.register("multi_step", MultiStepConfig, "Multiplied by a factor after given epochs")
def _multi_step(config: MultiStepConfig, span: Span) -> Schedule:
    def shape(step: int) -> float:
        epoch = step // span.steps_per_epoch
        return config.factor ** sum(milestone <= epoch for milestone in config.milestones_epochs)

    return Shape(_warm(config, span, shape))


@SCHEDULES.register("exponential", ExponentialConfig, "Multiplied by a factor after each epoch")
def _exponential(config: ExponentialConfig, span: Span) -> Schedule:
    return Shape(_warm(config, span, lambda step: config.factor ** (step // span.steps_per_epoch)))


@SCHEDULES.register(
    "cosine",
    CosineConfig,
    "Half a cosine down to the end, step by step",
    reference="I. Loshchilov, F. Hutter, SGDR, 2016, equation 5",
)
def _cosine(config: CosineConfig, span: Span) -> Schedule:
    num_warm = _num_warm(config, span)

    def shape(step: int) -> float:
        progress = max(0, step - num_warm) / max(1, span.num_steps - num_warm)
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * progress)) / 2

    return Shape(_warm(config, span, shape))


@SCHEDULES.register(
    "one_cycle",
    OneCycleConfig,
    "Up and down once",
    reference="L. Smith, N. Topin, Super-convergence, 2017",
)
def _one_cycle(config: OneCycleConfig, span: Span) -> Schedule:
    num_warm = _num_warm(config, span)
    top = config.rise * (span.num_steps - num_warm) - 1
    end = span.num_steps - num_warm - 1

    def between(start: float, stop: float, progress: float) -> float:
        return stop + (start - stop) * (1 + math.cos(math.pi * progress)) / 2

    def shape(step: int) -> float:
        place = max(0, step - num_warm)
        if end < 0:
            return config.start
        if place <= top:
            return between(config.start, 1.0, place / top if top > 0 else 1.0)
        return between(1.0, config.final, (place - top) / (end - top) if end > top else 1.0)

    return Shape(_warm(config, span, shape))


@SCHEDULES.register(
    "triangular",
    TriangularConfig,
    "Straight up, then straight down",
    reference="K. Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, arXiv:2404.00498",
)
def _triangular(config: TriangularConfig, span: Span) -> Schedule:
    num_warm = _num_warm(config, span)
    num_steps = max(1, span.num_steps - num_warm)
    top = config.rise * num_steps

    def shape(step: int) -> float:
        place = max(0, step - num_warm)
        if place < top:
            return config.start + (1 - config.start) * place / top
        return 1 + (config.final - 1) * (place - top) / (num_steps - top)

    return Shape(_warm(config, span, shape))


class Plateau:
    """Looks at the validation loss of each epoch from the first on."""

    def __init__(self, config: PlateauConfig, span: Span) -> None:
        self._config = config
        self._best = math.inf
        self._num_bad_epochs = 0
        self._factor = 1.0
        self._warmed = _warm(config, span, lambda step: self._factor)

    def factor(self, step: int) -> float:
        return self._warmed(step)

    def observe(self, record: EpochRecord) -> None:
        if record.validation.loss < self._best * (1 - self._config.min_improvement):
            self._best, self._num_bad_epochs = record.validation.loss, 0
            return
        self._num_bad_epochs += 1
        if self._num_bad_epochs > self._config.patience_epochs:
            self._factor *= self._config.factor
            self._num_bad_epochs = 0

    def state(self) -> dict[str, Any]:
        best = None if math.isinf(self._best) else self._best
        return {"best": best, "num_bad_epochs": self._num_bad_epochs, "factor": self._factor}

    def restore(self, state: dict[str, Any]) -> None:
        self._best = math.inf if state["best"] is None else state["best"]
        self._num_bad_epochs = state["num_bad_epochs"]
        self._factor = state["factor"]


@SCHEDULES.register("plateau", PlateauConfig, "Multiplied by a factor when the validation loss stops falling")
def _plateau(config: PlateauConfig, span: Span) -> Schedule:
    return Plateau(config, span)
