"""What a training step computes: the multiply-accumulates of its forward and backward passes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from conviction.nets.cost import multiply_accumulates
from conviction.nets.dispatch import OperationMode, compiler_left_out, run_on_meta
from conviction.nets.inspection import as_meta
from conviction.nets.trace import all_tensors, dtype_of


class _Counted(OperationMode):  # type: ignore[no-untyped-call]
    """Adds up the multiply-accumulates of the operations that pass."""

    def __init__(self) -> None:
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = run_on_meta(operation, args, kwargs or {})
        self.macs += multiply_accumulates(operation.overloadpacket.__name__, args, output)
        return output


def training_step_macs(network: nn.Module, input_shape: tuple[int, int, int], batch_size: int) -> int:
    """The multiply-accumulates of one step on a batch of pictures (C, H, W): forward, and both halves of the backward.

    A layer's backward pass costs its forward pass twice, once for the gradient of its weights and once for that of its
    input. Frozen weights, and the pictures themselves, get no gradient. The network is not changed.
    """
    on_meta = as_meta(network)
    former = [(module, module.training) for module in on_meta.modules()]
    counted = _Counted()
    with compiler_left_out(), torch.inference_mode(False), torch.enable_grad():
        images = torch.empty((batch_size, *input_shape), dtype=dtype_of(on_meta), device="meta")
        wanted = [parameter for parameter in on_meta.parameters() if parameter.requires_grad]
        on_meta.train()
        try:
            with counted:
                sums = [tensor.sum() for tensor in all_tensors(on_meta(images)) if tensor.requires_grad]
                if sums:
                    torch.autograd.grad(sums, wanted, allow_unused=True)
        finally:
            for module, mode in former:
                module.training = mode
    return counted.macs
