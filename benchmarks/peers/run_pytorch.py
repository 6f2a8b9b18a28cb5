"""Plain PyTorch: the loop of its tutorial "Training a classifier", in float32."""

from __future__ import annotations

import torch
from torch import nn, optim

from peers.task import Clock, read_task
from peers.torch_loader import loader
from peers.torch_network import build_from


def main() -> None:
    task = read_task()
    torch.manual_seed(task.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network, difference = build_from(task.network, task.start)
    network.to(device)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(network.parameters(), lr=task.learning_rate, momentum=task.momentum)
    clock = Clock(task)
    for inputs, labels in loader(task):
        inputs, labels = inputs.to(device), labels.to(device)
        optimizer.zero_grad()
        loss = criterion(network(inputs), labels)
        loss.backward()
        optimizer.step()
        # As in the tutorial: read at each step.
        clock.step_done(loss.item())
    clock.report(logits_difference=difference, versions={"torch": torch.__version__})


if __name__ == "__main__":
    main()
