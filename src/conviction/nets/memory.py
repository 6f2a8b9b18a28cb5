"""The memory that a batch needs, measured by running a step on tensors that have sizes and no numbers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from conviction.core.architecture import MemoryEstimate
from conviction.nets.dispatch import OperationMode, run_on_meta
from conviction.nets.trace import all_tensors, dtype_of

# What torch's autocast computes in bfloat16 on processors and GPUs alike.
_IN_BFLOAT16 = frozenset(
    (
        *(torch.conv1d, torch.conv2d, torch.conv3d, functional.linear, functional.multi_head_attention_forward),
        *(torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d),
        *(functional.scaled_dot_product_attention, torch.addmm, torch.addbmm, torch.baddbmm),
        *(torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__),
    )
)
Precision = Literal["float32", "bfloat16"]


def estimate_memory(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    batch_size: int,
    precision: Precision = "float32",
    optimizer_factor: float = 1.0,
) -> MemoryEstimate:
    """What a batch of pictures (C, H, W) takes, for training and for prediction.

    In bfloat16 the weights stay as they are, and convolutions and matrix products compute with copies of them, as
    torch's autocast does it. `optimizer_factor` says how many numbers the optimiser remembers for each that it trains:
    1 for SGD with momentum, 2 for Adam. `network` is on the meta device; its mode is put back afterwards.
    """
    images = torch.empty((batch_size, *input_shape), dtype=dtype_of(network), device="meta")
    former = [(module, module.training) for module in network.modules()]
    try:
        network.eval()
        with torch.no_grad():
            predicting = _peak_of_forward(network, images, precision)
        network.train()
        with torch.inference_mode(False), torch.enable_grad():
            training = _peak_of_step(network, images, precision)
    finally:
        for module, mode in former:
            module.training = mode
    trainable = _num_bytes([parameter for parameter in network.parameters() if parameter.requires_grad])
    return MemoryEstimate(
        batch_size=batch_size,
        precision=precision,
        weights_bytes=_num_bytes([*network.parameters(), *network.buffers()]),
        gradients_bytes=trainable,
        optimizer_bytes=round(trainable * optimizer_factor),
        saved_bytes=max(0, training - trainable),
        inference_peak_bytes=predicting,
    )


def _num_bytes(tensors: Sequence[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Autocast(TorchFunctionMode):
    """As `torch.autocast` does it, which leaves tensors on the meta device alone."""

    def __init__(self) -> None:
        super().__init__()
        # A weight is copied once in a forward pass that trains, and each time in one that predicts.
        self._copies: dict[int, Tensor] = {}

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in _IN_BFLOAT16:
            args = [self._cast(value) for value in args]
            kwargs = {name: self._cast(value) for name, value in (kwargs or {}).items()}
        return function(*args, **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.dtype == torch.bfloat16:
            return value
        if not (value.is_leaf and value.requires_grad and torch.is_grad_enabled()):
            return value.bfloat16()
        if id(value) not in self._copies:
            self._copies[id(value)] = value.bfloat16()
        return self._copies[id(value)]


def _autocast(precision: Precision) -> AbstractContextManager[object]:
    return _Autocast() if precision == "bfloat16" else nullcontext()


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


def _peak_of_forward(network: nn.Module, images: Tensor, precision: Precision) -> int:
    live = _LiveBytes(network)
    live.add(images)
    with live, _autocast(precision):
        network(images)
    return live.peak


def _peak_of_step(network: nn.Module, images: Tensor, precision: Precision) -> int:
    """Forward and backward pass; the gradients of the weights are among what it holds at the end."""
    live = _LiveBytes(network)
    live.add(images)
    wanted = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with live:
        with _autocast(precision):
            output = network(images)
        loss = _sum_of(output)
        if loss is not None:
            gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
            del gradients
    return live.peak


def _sum_of(output: object) -> Tensor | None:
    """Something to differentiate: the sum of all numbers that a network gives, auxiliary heads included."""
    sums = [tensor.sum() for tensor in all_tensors(output) if tensor.requires_grad]
    return torch.stack(sums).sum() if sums else None
