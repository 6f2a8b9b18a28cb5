"""Accuracy and cross-entropy."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conviction.core.records import Score


def score(logits: Float[Tensor, "B K"], labels: Int64[Tensor, " B"]) -> Score:
    """Accuracy and mean cross-entropy in nats, with the count.

    >>> score(torch.tensor([[0.0, 0.0]]), torch.tensor([0])).loss  # ln 2: the network does not know
    0.6931471824645996
    """
    # A mean in float64: its rounding then does not depend on the number of images.
    losses = torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")
    correct = (logits.argmax(dim=1) == labels).sum()
    return Score(int(correct) / len(labels), losses.double().mean().item(), len(labels))


def accuracy_by_class(
    logits: Float[Tensor, "B K"], labels: Int64[Tensor, " B"], classes: tuple[str, ...]
) -> dict[str, float | None]:
    """The share of each class's images that is recognised (its recall); None for a class without images."""
    hits = count_by_class(labels[logits.argmax(dim=1) == labels], classes)
    counts = count_by_class(labels, classes)
    return {name: hits[name] / count if count else None for name, count in counts.items()}


def count_by_class(labels: Int64[Tensor, " B"], classes: tuple[str, ...]) -> dict[str, int]:
    """How many images each class has."""
    return dict(zip(classes, torch.bincount(labels, minlength=len(classes)).tolist(), strict=True))
