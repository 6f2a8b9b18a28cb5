"""What `conviction bench` measured, as plain records: ceilings of a machine, and how near to them a training comes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Literal

# A machine that others use gives figures that scatter, and a load before the measurement begins.
_BUSY_LOAD, _WIDE_SPREAD = 0.3, 0.1
SHARE_EXPLAINED = (
    "Share of the ceiling: the floating-point operations a second of the training step, over those of the fastest "
    "product above in the same precision, be it a matrix product or a convolution. Counted are two for each "
    "multiply-accumulate of convolutions and linear layers, forward and backward; pooling, normalisation, loss and "
    "optimiser take time and count nothing."
)


@dataclass(frozen=True)
class Rate:
    """Something a second: the median of `count` repetitions, and the two values that half of them lie between."""

    median: float
    lower_quartile: float
    upper_quartile: float
    count: int

    @classmethod
    def of(cls, amount: float, seconds: Sequence[float]) -> Rate:
        """From the seconds that each repetition took for the same amount of work."""
        rates = sorted(amount / each for each in seconds)
        lower, _, upper = quantiles(rates, n=4, method="inclusive") if len(rates) > 1 else rates * 3
        return cls(median(rates), lower, upper, len(rates))

    @property
    def spread(self) -> float:
        """The width of the middle half, as a fraction of the median."""
        return (self.upper_quartile - self.lower_quartile) / self.median


@dataclass(frozen=True)
class Ceiling:
    """The floating-point operations a second of one operation in one precision; `emulated` without instructions."""

    operation: Literal["matrix product", "convolution"]
    precision: str
    layout: Literal["", "NCHW", "channels_last"]
    size: str
    flops: Rate
    emulated: bool = False

    @property
    def shown_operation(self) -> str:
        """The operation with its memory layout, where that matters."""
        return f"{self.operation}{self.layout and f', {self.layout}'}"


@dataclass(frozen=True)
class TrainingSpeed:
    """How fast a recipe trains on random pictures: its steps alone on one batch, and its whole loop.

    `step_flop` are the floating-point operations of one step's convolutions and matrix products. `ceiling_flops` are
    those a second of the fastest operation, `ceiling_operation`, in `precision`; `matrix_flops` are those of the
    fastest matrix product in it.
    """

    recipe: str
    input: tuple[int, int, int]
    batch_size: int
    precision: str
    num_parameters: int
    step_flop: int
    step_images_per_s: Rate
    loop_images_per_s: Rate
    ceiling_operation: str
    ceiling_flops: float
    matrix_flops: float

    @property
    def flop_per_image(self) -> float:
        """The floating-point operations of a step for each image."""
        return self.step_flop / self.batch_size

    @property
    def step_flops(self) -> float:
        """The floating-point operations a second of the training step."""
        return self.step_images_per_s.median * self.flop_per_image

    @property
    def share_of_ceiling(self) -> float:
        """The step's operations a second, as a fraction of the fastest operation's."""
        return self.step_flops / self.ceiling_flops

    @property
    def share_of_matrix_product(self) -> float:
        """The step's operations a second, as a fraction of the matrix product's: above 1 where others are faster."""
        return self.step_flops / self.matrix_flops


@dataclass(frozen=True)
class BenchRecord:
    """One measurement of a machine. Rates are per second; `load_average` is the minute's before it began."""

    environment: dict[str, Any]
    device_name: str
    ceilings: tuple[Ceiling, ...]
    memory_bytes_per_s: Rate
    training: TrainingSpeed
    load_average: float | None
    seconds: float

    def warnings(self) -> tuple[str, ...]:
        """Why the figures may be too low; empty on a quiet machine."""
        found = []
        if self.load_average is not None and self.load_average > _BUSY_LOAD * self.environment["cores"]:
            found.append(
                f"The machine was busy before this began: {self.load_average:.1f} programs at work on "
                f"{self.environment['cores']} cores, over the last minute. The figures may be too low."
            )
        named = {f"{c.operation} in {c.precision}{c.layout and f', {c.layout}'}": c.flops for c in self.ceilings}
        named["copying memory"] = self.memory_bytes_per_s
        named["training step"] = self.training.step_images_per_s
        named["whole loop"] = self.training.loop_images_per_s
        if wide := [
            f"{name} ({100 * rate.spread:.0f} %)" for name, rate in named.items() if rate.spread > _WIDE_SPREAD
        ]:
            found.append(
                "Repetitions differ: half of them lie further apart than 10 % of the median in "
                f"{', '.join(wide)}. Something else may be using the machine: measure again when it is quiet."
            )
        if self.training.share_of_ceiling > 1:
            found.append(
                "The training step computed faster than matrix products and convolutions did, so that its share means "
                "nothing: most likely these were held up by another program. Measure again when the machine is quiet."
            )
        return tuple(found)

    def as_json(self) -> dict[str, Any]:
        """Every field, what follows from them, and the warnings."""
        training = dataclasses.asdict(self.training)
        training |= {
            name: getattr(self.training, name) for name in ("step_flops", "share_of_ceiling", "share_of_matrix_product")
        }
        return {
            **dataclasses.asdict(self),
            "training": training,
            "warnings": list(self.warnings()),
            "share_explained": SHARE_EXPLAINED,
        }
