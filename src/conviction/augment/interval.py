"""Settings that are one number, or a range of which each image draws a value of its own."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import torch
from jaxtyping import Float, Int64
from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag
from torch import Generator

from conviction.augment.base import uniform

One = TypeVar("One")
End = TypeVar("End")
Ends = tuple[float, float]


def _ordered(ends: tuple[Any, Any]) -> tuple[Any, Any]:
    if ends[0] > ends[1]:
        raise ValueError(f"of a range [low, high] `low <= high` must hold, but got {ends[0]} and {ends[1]}.")
    return ends


def _one_or_two(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, list | tuple) and len(value) == 2):
        raise ValueError(f"must be a number, or a range [low, high], but got {value!r}.")
    return value


def _kind(value: object) -> str:
    return "range" if isinstance(value, list | tuple) else "one"


# One number, or [low, high] with bounds of their own. Told apart beforehand, so that a fault is one of its own kind.
OneOrRange = Annotated[
    Annotated[One, Tag("one")] | Annotated[tuple[End, End], AfterValidator(_ordered), Tag("range")],
    Discriminator(_kind),
    BeforeValidator(_one_or_two),
]


def not_only(unchanged: int) -> AfterValidator:
    """Refuses the range of which the only value changes nothing."""

    def check(value: Any) -> Any:
        if value == (unchanged, unchanged):
            raise ValueError(
                f"a range of {unchanged} alone would leave every picture as it is, but got {list(value)}. Widen it."
            )
        return value

    return AfterValidator(check)


def ends_around(middle: int, value: float | Ends) -> Ends:
    """A range as it is; of one number, as far on both sides of the middle."""
    return value if isinstance(value, tuple) else (middle - value, middle + value)


def drawn(num: int, value: float | Ends, generator: Generator) -> Float[torch.Tensor, " B"]:
    """The one number for each image, or a draw of the range, uniform."""
    return uniform(num, *value, generator) if isinstance(value, tuple) else torch.full((num,), float(value))


def drawn_whole(num: int, value: int | tuple[int, int], generator: Generator) -> Int64[torch.Tensor, " B"]:
    """The one whole number for each image, or one of the range, both ends included, all equally likely."""
    if isinstance(value, tuple):
        return torch.randint(value[0], value[1] + 1, (num,), generator=generator)
    return torch.full((num,), value)
