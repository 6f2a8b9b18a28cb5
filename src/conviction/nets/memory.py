"""The memory that a batch needs, measured by running a step on tensors that have sizes and no numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from conviction.core.architecture import MemoryEstimate
from conviction.nets.dispatch import OperationMode, run_on_meta

FLOAT32_BYTES = 4


def estimate_memory(
    network: nn.Module, input_shape: tuple[int, int, int], batch_size: int, optimizer_factor: float = 1.0
) -> MemoryEstimate:
    """What a batch of pictures (C, H, W) takes in float32, for training and for prediction.

    `optimizer_factor` says how many numbers the optimiser remembers for each that it trains: 1 for SGD with momentum,
    2 for Adam. `network` is on the meta device; its mode is put back afterwards.
    """
    former = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad():
            predicting = _peak_of_forward(network, input_shape, batch_size)
        network.train()
        training = _peak_of_step(network, input_shape, batch_size)
    finally:
        for module, mode in former:
            module.training = mode
    weights = sum(tensor.numel() for tensor in (*network.parameters(), *network.buffers())) * FLOAT32_BYTES
    trainable = sum(p.numel() for p in network.parameters() if p.requires_grad) * FLOAT32_BYTES
    return MemoryEstimate(
        batch_size=batch_size,
        precision="float32",
        weights_bytes=weights,
        gradients_bytes=trainable,
        optimizer_bytes=round(trainable * optimizer_factor),
        saved_bytes=max(0, training - trainable),
        inference_peak_bytes=predicting,
    )


class _LiveBytes(OperationMode):  # type: ignore[no-untyped-call]
    """The largest sum of the memory that operations' results hold at one time."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.peak = 0
        self._sum = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        # A transposed weight is a view of it, and no memory of its own.
        self._weights = {kept.untyped_storage()._cdata for kept in (*network.parameters(), *network.buffers())}

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata in self._weights:
            return
        former = self._held.get(storage._cdata)
        self._sum += storage.nbytes() - (former[1] if former else 0)
        self._held[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())  # type: ignore[no-untyped-call]
        if self._sum > self.peak:
            # Only now is it worth the time to look what has been let go of meanwhile.
            self._held = {key: kept for key, kept in self._held.items() if not kept[0].expired()}  # type: ignore[no-untyped-call]
            self._sum = sum(num_bytes for _, num_bytes in self._held.values())
            self.peak = max(self.peak, self._sum)

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = run_on_meta(operation, args, kwargs or {})
        for result in output if isinstance(output, list | tuple) else [output]:
            if isinstance(result, Tensor) and result.is_meta:
                self.add(result)
        return output


def _peak_of_forward(network: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> int:
    images = torch.empty((batch_size, *input_shape), device="meta")
    live = _LiveBytes(network)
    live.add(images)
    with live:
        network(images)
    return live.peak


def _peak_of_step(network: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> int:
    """Forward and backward pass; the gradients of the weights are among what it holds at the end."""
    images = torch.empty((batch_size, *input_shape), device="meta")
    live = _LiveBytes(network)
    live.add(images)
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with live:
        loss = _sum_of(network(images))
        if wanted:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            del gradients
    return live.peak


def _sum_of(output: object) -> Tensor:
    """Something to differentiate: the sum of all that a network gives, auxiliary heads included."""
    if isinstance(output, Tensor):
        return output.sum()
    parts = output.values() if isinstance(output, dict) else output
    return torch.stack([_sum_of(part) for part in parts if part is not None]).sum()  # type: ignore[attr-defined]
