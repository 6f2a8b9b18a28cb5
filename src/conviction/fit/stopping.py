"""Which epoch is best, and when to give up hope of a better one."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from conviction.core.config import Config
from conviction.core.records import EpochRecord

Figure = Literal["validation_accuracy", "validation_loss"]


class StoppingConfig(Config):
    """Early stopping, and the figure by which the best epoch is chosen."""

    figure: Figure = "validation_accuracy"
    patience_epochs: int | None = Field(None, ge=1, description="Stop after so many epochs without improvement")
    min_improvement: float = Field(0.0, ge=0, description="A smaller gain does not count as improvement")


def figure_of(record: EpochRecord, figure: Figure) -> float:
    """The figure, with its sign turned where less is better, so that more is better always."""
    return record.validation.accuracy if figure == "validation_accuracy" else -record.validation.loss


def best_of(history: list[EpochRecord], figure: Figure) -> EpochRecord:
    """The epoch with the best figure; the earliest among equals."""
    return max(history, key=lambda record: figure_of(record, figure))


def should_stop(history: list[EpochRecord], config: StoppingConfig) -> bool:
    """Whether the last `patience_epochs` epochs brought no improvement of more than `min_improvement`.

    Epoch 0, the untrained network, is where improvement starts from.
    """
    if config.patience_epochs is None:
        return False
    reference, num_waited = figure_of(history[0], config.figure), 0
    for record in history[1:]:
        value = figure_of(record, config.figure)
        if value > reference + config.min_improvement:
            reference, num_waited = value, 0
        else:
            num_waited += 1
    return num_waited >= config.patience_epochs
