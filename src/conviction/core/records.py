"""What is known of a run, as plain frozen dataclasses that go to JSON and back without loss.

No torch here: a report opens without it. Every figure knows its split (by its field's name) and its count.
Accuracies are fractions in [0, 1]; losses are in nats per image.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Status = Literal["running", "finished", "stopped_early", "interrupted", "diverged", "failed", "crashed"]
SplitName = Literal["train", "validation", "test"]
RecordT = TypeVar("RecordT")


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
    those of every run in the ledger at the same test images.
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
    macro_f1: float
    accuracy_by_class: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class RunSummary:
    """`run.json`: the state of a run, rewritten after each epoch."""

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
    format: int = 1


def to_json(record: Any) -> dict[str, Any]:
    """The record as JSON's types; `from_json` restores it exactly."""
    return dataclasses.asdict(record)


def from_json(kind: type[RecordT], value: dict[str, Any]) -> RecordT:
    """The record that `to_json` wrote.

    Raises: ValueError where a field is missing, unknown or of another type.
    """
    hints = typing.get_type_hints(kind)
    unknown = set(value) - set(hints)
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {sorted(unknown)[0]!r}")
    try:
        return kind(**{name: _restored(hints[name], part) for name, part in value.items()})
    except TypeError as error:
        raise ValueError(str(error)) from error


def _restored(hint: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _restored(next(part for part in arguments if part is not type(None)), value)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"{hint.__name__} expected, got {value!r}")
        return from_json(hint, value)
    if origin is tuple:
        return tuple(_restored(arguments[0], part) for part in value)
    if origin is Literal and value not in arguments:
        raise ValueError(f"one of {arguments} expected, got {value!r}")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint in (int, float, str) and (not isinstance(value, hint) or isinstance(value, bool)):
        raise ValueError(f"{hint.__name__} expected, got {value!r}")
    return value
