"""ReLU behind max-pooling in place of before it: the same numbers and gradients, for a part of the work.

The largest of some numbers is the same before and after a function that keeps their order. In a window without a
positive number ReLU's gradient is 0, whichever number the pooling takes; in all others it takes the same one.
"""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conviction.nets.freezing import is_frozen


class PooledReLU(nn.MaxPool2d):
    """Max-pooling, then ReLU."""

    def forward(self, input: Float[Tensor, "*B C H W"]) -> Float[Tensor, "*B C H2 W2"]:
        """The largest number of each window, or 0 where that is negative."""
        # The pooling's own gradient needs the places of the largest numbers, not what they are.
        return torch.relu_(super().forward(input))


def with_pooled_relu(network: nn.Module) -> nn.Module:
    """The network, each ReLU that max-pooling follows at once moved behind it, but for frozen ones.

    Their names stay: the ReLU's has an identity, the pooling's does both.
    """
    for parent in list(network.modules()):
        # What is derived from a sequence may run its layers otherwise.
        if type(parent) is nn.Sequential:
            for (relu_name, relu), (pooling_name, pooling) in itertools.pairwise(list(parent.named_children())):
                if _can_trade_places(relu, pooling):
                    assert isinstance(pooling, nn.MaxPool2d)
                    setattr(parent, relu_name, nn.Identity())
                    setattr(parent, pooling_name, _pooled_relu(pooling))
    return network


def _can_trade_places(relu: nn.Module, pooling: nn.Module) -> bool:
    if type(relu) is not nn.ReLU or type(pooling) is not nn.MaxPool2d or pooling.return_indices:
        return False
    return not any(is_frozen(layer) or layer._forward_hooks or layer._forward_pre_hooks for layer in (relu, pooling))


def _pooled_relu(pooling: nn.MaxPool2d) -> PooledReLU:
    found = PooledReLU(
        pooling.kernel_size, pooling.stride, pooling.padding, pooling.dilation, ceil_mode=pooling.ceil_mode
    )
    found.training = pooling.training
    return found
