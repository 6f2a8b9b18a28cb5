"""Dropout whose random numbers do not take longer than what they drop.

torch draws each Bernoulli number on the CPU by itself, on one core: 15 ns, more than a 1×1 convolution takes for the
number that it drops. Here 16 random bits decide, and four decisions come from one draw of 64 bits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conviction.nets.freezing import is_frozen

_BITS = 16
_DRAWN_AT_ONCE = 64 // _BITS


class BitDropout(nn.Dropout):
    """`nn.Dropout` with another source of random numbers on the CPU; elsewhere it is that.

    The share that is dropped is rounded to a 65,536th, and what is left is scaled by just that share, so that the mean
    stays exactly the same.
    """

    def forward(self, input: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """The input, each number dropped with probability `p` in training and scaled up otherwise."""
        if not self.training or input.device.type != "cpu" or not 0 < self.p < 1 or not _is_dense(input):
            return super().forward(input)
        num_levels = 2**_BITS
        dropped = min(max(1, round(self.p * num_levels)), num_levels - 1)
        num_draws = -(-input.numel() // _DRAWN_AT_ONCE)
        bits = torch.empty(num_draws, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        # The decisions lie in memory as the input does, so that both are read in one pass.
        kept = bits.as_strided(input.shape, input.stride()) >= dropped - num_levels // 2
        scaled: Tensor = input * kept * (num_levels / (num_levels - dropped))
        return scaled


def _is_dense(values: Tensor) -> bool:
    return values.numel() > 0 and torch.ops.aten.is_non_overlapping_and_dense(values)


def with_bit_dropout(network: nn.Module) -> nn.Module:
    """The network with its dropout layers replaced, but for frozen ones, which never drop."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and not is_frozen(child):
                setattr(parent, name, BitDropout(child.p, child.inplace))
    return network
