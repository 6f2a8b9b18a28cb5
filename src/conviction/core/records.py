"""What is known of a run, as plain frozen dataclasses that go to JSON and back without loss.

No torch here: a report opens without it. Every figure knows its split (by its field's name) and its count.
Accuracies are fractions in [0, 1]; losses are in nats per image.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Status = Literal["running", "finished", "stopped_early", "interrupted", "diverged", "failed", "crashed"]
SplitName = Literal["train", "validation", "test"]
RecordT = TypeVar("RecordT")
LARGEST_EXACT_INT = 2**53


@dataclass(frozen=True)
class Score:
    """Accuracy and mean cross-entropy over `count` images of one split."""

    accuracy: float
    loss: float
    count: int


@dataclass(frozen=True)
class EpochRecord:
    """One line of `history.jsonl`. Epoch 0 is the untrained network.

    `train` is measured as the epoch ran: moving weights, dropout on, augmented images, the loss that is minimised.
    `train_fixed` is measured on the epoch's last weights in evaluation mode, when asked for.
    `learning_rate` is that of the epoch's last step (for epoch 0: of the first step to come).
    """

    epoch: int
    learning_rate: float
    validation: Score
    train: Score | None = None
    train_fixed: Score | None = None


@dataclass(frozen=True)
class Timing:
    """One line of `timings.jsonl`, apart from the history because no two machines share it."""

    epoch: int
    train_s: float
    validation_s: float
    images_per_second: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class DataRecord:
    """Which pictures a run saw: `digest` names their content, the counts their division."""

    source: str
    path: str
    digest: str
    split_digest: str
    classes: tuple[str, ...]
    channels: int
    height_px: int
    width_px: int
    num_train: int
    num_validation: int
    num_test: int
    num_skipped: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evaluation:
    """One look at a split with one set of weights.

    `openings` counts the looks that this run has had at its test split, this one included; `test_set_openings`
    those of every run in the ledger at the same test images, as far as this run has opened them. Where each picture was
    shown in several views, the figures are of their averages, and `one_view` of the picture as it is.
    """

    run: str
    split: SplitName
    weights: str
    epoch: int
    accuracy: float
    loss: float
    count: int
    openings: int
    test_set_openings: int
    evaluated_at: str
    interval_95: tuple[float, float]
    accuracy_by_class: dict[str, float | None] = field(default_factory=dict)
    count_by_class: dict[str, int] = field(default_factory=dict)
    detail: dict[str, float] = field(default_factory=dict)
    num_views: int = 1
    one_view: Score | None = None


@dataclass(frozen=True)
class RunSummary:
    """`run.json`: the state of a run, rewritten after each epoch.

    `seconds` are those of the epochs, validation included; `preparation_s` those before them: to find the fastest way
    to compute, to compute frozen layers, and to compile for the first epoch, and that of a resumed run.
    """

    run: str
    name: str
    recipe: str
    status: Status
    created_at: str
    seed: int
    data: DataRecord
    num_parameters: int
    epochs: int = 0
    seconds: float = 0.0
    images_per_second: float = 0.0
    peak_memory_bytes: int = 0
    best: EpochRecord | None = None
    last: EpochRecord | None = None
    message: str = ""
    num_processes: int = 1
    preparation_s: float = 0.0
    format: int = 1


def to_json(record: Any) -> dict[str, Any]:
    """The record as JSON's types; `from_json` restores it exactly."""
    return dataclasses.asdict(record)


def from_json(kind: type[RecordT], value: dict[str, Any]) -> RecordT:
    """The record that `to_json` wrote.

    Raises: ValueError where a field is missing, unknown or of another type.
    """
    if not isinstance(value, dict):
        raise ValueError(f"{kind.__name__} expected, got {value!r}")
    hints, needed = _fields(kind)  # type: ignore[arg-type]
    for name in value:
        if name not in hints:
            raise ValueError(f"{kind.__name__} has no field {name!r}")
    for name in needed:
        if name not in value:
            raise ValueError(f"{kind.__name__} lacks its field {name!r}")
    return kind(**{name: _restored(hints[name], part) for name, part in value.items()})


@functools.cache
def _fields(kind: type[Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The type of each field, and the fields that have no default."""
    missing = dataclasses.MISSING
    needed = (
        part.name for part in dataclasses.fields(kind) if part.default is missing and part.default_factory is missing
    )
    return typing.get_type_hints(kind), tuple(needed)


def _restored(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _restored(next(part for part in arguments if part is not type(None)), value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_json(hint, value)
    if origin is tuple:
        return _restored_tuple(arguments, value)
    if origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"a mapping expected, got {value!r}")
        return {_restored(arguments[0], key): _restored(arguments[1], part) for key, part in value.items()}
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"one of {arguments} expected, got {value!r}")
        return value
    assert hint in (int, float, str), f"no record has a field of type {hint}"
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"a finite number expected, got {value!r}")
    if hint is float and type(value) is int and abs(value) <= LARGEST_EXACT_INT:
        return float(value)
    if type(value) is not hint:
        raise ValueError(f"{hint.__name__} expected, got {value!r}")
    return value


def _restored_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"a list expected, got {value!r}")
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        raise ValueError(f"a list of {len(hints)} expected, got {value!r}")
    return tuple(_restored(hint, part) for hint, part in zip(hints, value, strict=True))
