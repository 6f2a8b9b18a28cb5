"""A training that takes milliseconds: pictures of 6×6 pixels in three classes, a network of some hundred weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conviction.core import rng
from conviction.core.records import EpochRecord
from conviction.data.standardize import Standardization
from conviction.data.stream import Share, Stream
from conviction.fit.loop import Trainer
from conviction.fit.loss import CrossEntropyConfig, build_loss
from conviction.fit.optimizer import OptimizerConfig, SgdConfig, build_optimizer
from conviction.fit.schedule import ConstantConfig, Schedule, ScheduleConfig, Span, build_schedule
from conviction.nets import BlocksConfig, build_network
from conviction.nets.dropout import with_bit_dropout

NUM_CLASSES = 3
NUM_TRAIN, NUM_VALIDATION = 50, 21
CENTRE = Standardization((0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
PLAIN: dict[str, Any] = {"blocks": [{"filters": 4, "pooling": {}}]}
RICH: dict[str, Any] = {
    "blocks": [{"filters": 4, "normalization": "batch", "pooling": {}, "dropout": 0.3}],
    "dense": [{"units": 8, "dropout": 0.2}],
}


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures whose brightest channel is their class, with noise."""
    drawn = np.random.default_rng(0)
    labels = drawn.integers(0, NUM_CLASSES, count)
    images = drawn.integers(0, 120, (count, 6, 6, 3))
    images[np.arange(count), :, :, labels] += 100
    return images.astype(np.uint8), labels.astype(np.int64)


IMAGES, LABELS = pictures(NUM_TRAIN + NUM_VALIDATION)


def stream(rows: np.ndarray, batch_size: int, standardization: Standardization = CENTRE, augment: Any = None) -> Stream:
    return Stream(IMAGES, LABELS, rows, standardization, batch_size, augment)


def network_of(settings: dict[str, Any], seed: int = 0) -> nn.Module:
    with rng.torch_default(seed, "initialisation"):
        return with_bit_dropout(build_network(BlocksConfig.model_validate(settings), (3, 6, 6), NUM_CLASSES))


def trainer(
    settings: dict[str, Any] = PLAIN,
    *,
    optimizer: OptimizerConfig | None = None,
    schedule: ScheduleConfig | Schedule | None = None,
    batch_size: int = 8,
    seed: int = 0,
    standardization: Standardization = CENTRE,
    augment: Any = None,
    kind: type[Trainer] = Trainer,
    share: Share | None = None,
    double: bool = False,
    **others: Any,
) -> Trainer:
    network = network_of(settings)
    if double:
        network.double().register_forward_pre_hook(lambda _, given: (given[0].double(),))
    train = replace(stream(np.arange(NUM_TRAIN), batch_size, standardization, augment), share=share)
    schedule = schedule or ConstantConfig()
    if isinstance(schedule, ScheduleConfig):
        schedule = build_schedule(schedule, Span(9, train.num_batches))
    return kind(
        network=network,
        optimizer=build_optimizer(optimizer or SgdConfig(learning_rate=0.05), network),
        schedule=schedule,
        loss=build_loss(CrossEntropyConfig()),
        train=train,
        validation=stream(np.arange(NUM_TRAIN, NUM_TRAIN + NUM_VALIDATION), 16),
        seed=seed,
        **others,
    )


def ignore(done: int, steps: int) -> None:
    """No one looks on."""


def run(trainer: Trainer, epochs: int = 2) -> list[EpochRecord]:
    return [trainer.train_epoch(epoch, ignore)[0] for epoch in range(1, epochs + 1)]


def weights(network: nn.Module) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in network.state_dict().values()]


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(first), weights(second), strict=True))
