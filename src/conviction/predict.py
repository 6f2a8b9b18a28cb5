"""A network and a stream give predictions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from conviction.data.stream import Stream


@dataclass(frozen=True)
class Predictions:
    """Logits in `float32` and labels, on the CPU, in the stream's order."""

    logits: Float[Tensor, "B K"]
    labels: Int64[Tensor, " B"]


def predict_batches(
    network: nn.Module, stream: Stream, precision: str = "float32"
) -> Iterator[tuple[Float[Tensor, "B K"], Int64[Tensor, " B"]]]:
    """Logits in `float32` and labels, batch by batch, on the stream's device; see `predict`."""
    # Layer by layer: a frozen normalisation stays in evaluation mode while the rest of its network trains.
    was_training = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        for batch in stream.in_order():
            with torch.inference_mode(), autocast(stream.device, precision):
                logits = network(batch.images).float()
            yield logits, batch.labels
    finally:
        for module, training in was_training:
            module.training = training


def predict(network: nn.Module, stream: Stream, precision: str = "float32") -> Predictions:
    """What the network says of each picture of the stream, in evaluation mode; its mode is put back afterwards."""
    logits, labels = [], []
    for found, right in predict_batches(network, stream, precision):
        logits.append(found)
        labels.append(right)
    return Predictions(torch.cat(logits).cpu(), torch.cat(labels).cpu())


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a network computes in `precision`; its weights stay in `float32`."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")
