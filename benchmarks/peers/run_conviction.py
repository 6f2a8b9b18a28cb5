"""Conviction as a user runs it: a recipe with crop and flip on the same pictures; precision and layout are its own."""

from __future__ import annotations

import json
import tempfile
from typing import Any

from peers.task import Clock, Task, read_task


def overrides(task: Task) -> dict[str, Any]:
    """The recipe's pictures, augmentation, optimiser and length, as the peers have them."""
    return {
        "data": {"name": "folder", "path": task.folder},
        "augment": [{"name": "random_crop", "padding_px": 4}, {"name": "horizontal_flip"}],
        "optimizer": {"name": "sgd", "learning_rate": task.learning_rate, "momentum": task.momentum},
        "fit.batch_size": task.batch_size,
        "fit.epochs": 1,
        "seed": task.seed,
    }


def main() -> None:
    import torch

    from conviction import train
    from conviction.fit.watcher import Watcher

    task = read_task()
    clock = Clock(task, torch.cuda.synchronize if torch.cuda.is_available() else lambda: None)

    class Timed(Watcher):
        def step(self, epoch: int, num_done: int, num_steps: int) -> None:
            clock.step_done()

    with tempfile.TemporaryDirectory() as home:
        run = train(task.recipe, overrides(task), home=home, watcher=Timed())
        loss = run.history[1].train.loss
        environment = json.loads(run.folder.environment.read_text())
    versions = {"conviction": environment["packages"]["conviction"]}
    clock.report(loss, logits_difference=0.0, versions=versions, precision=environment["precision"])


if __name__ == "__main__":
    main()
