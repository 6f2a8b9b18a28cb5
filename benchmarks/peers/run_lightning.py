"""Lightning's Trainer on the same loader, in its default precision, without progress bar, logger and checkpoints."""

from __future__ import annotations

import lightning
import torch
from torch import nn

from peers.task import Clock, Task, read_task
from peers.torch_loader import loader
from peers.torch_network import build_from


class Classifier(lightning.LightningModule):
    def __init__(self, task: Task) -> None:
        super().__init__()
        self.task = task
        self.network, self.difference = build_from(task.network, task.start)
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch, index):
        inputs, labels = batch
        return self.criterion(self.network(inputs), labels)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.task.learning_rate, momentum=self.task.momentum)


class Timed(lightning.Callback):
    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.clock.step_done(outputs["loss"].item())


def main() -> None:
    task = read_task()
    torch.manual_seed(task.seed)
    clock, classifier = Clock(task), Classifier(task)
    trainer = lightning.Trainer(
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[Timed(clock)],
    )
    trainer.fit(classifier, loader(task))
    clock.report(logits_difference=classifier.difference, versions={"lightning": lightning.__version__})


if __name__ == "__main__":
    main()
