"""fastai's Learner on its own ImageDataLoaders: transforms of single pictures in two workers, then of batches."""

from __future__ import annotations

from functools import partial

import fastai
import torch
from fastai.vision.all import (
    Callback,
    CrossEntropyLossFlat,
    FlipItem,
    ImageDataLoaders,
    Learner,
    Normalize,
    OptimWrapper,
    PadMode,
    RandomCrop,
)
from fastai.vision.augment import CropPad

from peers.task import DEVIATION, MEAN, NUM_WORKERS, PADDING_PX, SIDE_PX, Clock, read_task
from peers.torch_network import build_from


class Timed(Callback):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def after_batch(self):
        if self.training:
            self.clock.step_done(self.loss.item())


def main() -> None:
    task = read_task()
    torch.manual_seed(task.seed)
    loaders = ImageDataLoaders.from_folder(
        task.folder,
        train="train",
        valid="validation",
        bs=task.batch_size,
        num_workers=NUM_WORKERS,
        seed=task.seed,
        # FlipItem: on a processor much faster than fastai's Flip, which resamples whole batches.
        item_tfms=[CropPad(SIDE_PX + 2 * PADDING_PX, pad_mode=PadMode.Zeros), RandomCrop(SIDE_PX), FlipItem(0.5)],
        batch_tfms=[Normalize.from_stats(MEAN, DEVIATION)],
    )
    network, difference = build_from(task.network, task.start)
    clock = Clock(task)
    learner = Learner(
        loaders,
        network.to(loaders.device),
        loss_func=CrossEntropyLossFlat(),
        opt_func=partial(OptimWrapper, opt=torch.optim.SGD, momentum=task.momentum),
        lr=task.learning_rate,
        cbs=[Timed(clock)],
    )
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
    clock.report(logits_difference=difference, versions={"fastai": fastai.__version__})


if __name__ == "__main__":
    main()
