from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from conviction.core import rng
from conviction.core.errors import TrainingDiverged
from conviction.data.standardize import Standardization
from conviction.fit.loop import Trainer
from conviction.fit.optimizer import SgdConfig
from conviction.fit.schedule import ExponentialConfig, Shape
from small_training import CENTRE, IMAGES, NUM_TRAIN, ignore, run, trainer


@dataclass(frozen=True)
class Poisoned(Standardization):
    """Makes NaN of every picture that has the poison in its first pixel."""

    poison: tuple[int, ...] = ()

    def __call__(self, images: Tensor) -> Tensor:
        found = super().__call__(images)
        found[(images[:, :, 0, 0] == torch.tensor(self.poison, dtype=torch.uint8)).all(dim=1)] = math.nan
        return found


class TestDivergence:
    # One picture a batch and two in the last: 49 steps, whose losses are looked at after steps 20, 40 and 49.
    def poisoned(self, row: int, **others: Any) -> Trainer:
        poison = Poisoned(CENTRE.mean, CENTRE.deviation, tuple(IMAGES[row, 0, 0].tolist()))
        assert (IMAGES[:NUM_TRAIN, 0, 0] == IMAGES[row, 0, 0]).all(axis=1).sum() == 1
        return trainer(standardization=poison, batch_size=1, **others)

    @pytest.mark.parametrize("row", [0, 7, 13, 20, 31, 44, 49])
    def test_the_first_bad_step_is_named(self, row: int) -> None:
        order = torch.randperm(NUM_TRAIN, generator=rng.generator(0, "shuffle", 1)).tolist()
        step = order.index(row)
        found = self.poisoned(row, schedule=Shape(lambda step: 0.9**step), optimizer=SgdConfig(learning_rate=0.01))
        num_steps = found.train.num_batches
        number = min(step + 1, num_steps)
        expected = (
            f"became nan in epoch 1, step {number} of {num_steps}, at learning rate {0.01 * 0.9 ** (number - 1):g}"
        )
        with pytest.raises(TrainingDiverged) as caught:
            found.train_epoch(1, ignore)
        assert expected in str(caught.value)
        assert "Lower optimizer.learning_rate" in str(caught.value)

    def test_a_later_epoch_is_named(self) -> None:
        found = trainer(schedule=ExponentialConfig(factor=0.5), optimizer=SgdConfig(learning_rate=0.01))
        run(found, 2)
        with torch.no_grad():
            found.network.classifier.bias[0] = math.inf
        with pytest.raises(TrainingDiverged, match=r"in epoch 3, step 1 of 7, at learning rate 0\.0025"):
            found.train_epoch(3, ignore)

    def test_a_huge_learning_rate(self) -> None:
        found = trainer(optimizer=SgdConfig(learning_rate=1e30))
        with pytest.raises(
            TrainingDiverged, match=r"became (nan|inf) in epoch 1, step [23] of 7, at learning rate 1e\+30"
        ):
            found.train_epoch(1, ignore)

    def test_no_step_is_made_long_after_the_first_bad_one(self) -> None:
        heard: list[int] = []
        order = torch.randperm(NUM_TRAIN, generator=rng.generator(0, "shuffle", 1)).tolist()
        with pytest.raises(TrainingDiverged):
            self.poisoned(order[2]).train_epoch(1, lambda done, steps: heard.append(done))
        assert heard[-1] == 19

    def test_a_validation_that_is_not_finite(self) -> None:
        found = trainer(optimizer=SgdConfig(learning_rate=0.25))
        with torch.no_grad():
            found.network.classifier.bias[0] = math.nan
        with pytest.raises(
            TrainingDiverged, match=r"The validation loss became nan before the first step, at learning rate 0\.25"
        ):
            found.epoch_zero()
