"""The two networks as a user of PyTorch writes them, and the weights that all begin with."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn


def build(name: str) -> nn.Module:
    if name == "lab-c":
        return nn.Sequential(
            *(nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(64 * 4 * 4, 1000), nn.ReLU(), nn.Linear(1000, 10)),
        )
    assert name == "lab-a-bn", name
    layers: list[nn.Module] = []
    channels = 3
    for filters in (128, 512, 512, 512, 512):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.MaxPool2d(2), nn.ReLU()]
        channels = filters
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def build_from(name: str, start: str) -> tuple[nn.Module, float]:
    """The network with the weights in a file, and how far its logits for some pictures are from those beside them."""
    network, kept = build(name), np.load(start)
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(torch.from_numpy(kept[f"weight_{number}"]))
        logits = network.eval()(torch.from_numpy(kept["images"]))
    return network.train(), float((logits - torch.from_numpy(kept["logits"])).abs().max())
