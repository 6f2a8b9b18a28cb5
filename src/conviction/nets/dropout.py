"""Dropout whose random numbers do not take longer than what they drop.

torch draws each Bernoulli number on the CPU by itself, on one core: 15 ns, more than a 1×1 convolution takes for the
number that it drops. Here 16 random bits decide, and four decisions come from one draw of 64 bits.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
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
        if not self.training or input.device.type != "cpu" or not 0 < self.p < 1 or not is_dense(input):
            return super().forward(input)
        return dropped_by_bits(input, self.p, input.shape[0], slice(None))


def dropped_by_bits(values: Float[Tensor, "B ..."], p: float, num_images: int, part: slice) -> Float[Tensor, "B ..."]:
    """The values of a part of a batch, each dropped with probability `p`, on the CPU; drawn for the whole batch.

    `num_images` is the whole batch's number, and `part` says which of them these are.
    """
    num_levels, per_image = 2**_BITS, values.shape[1:].numel()
    dropped = min(max(1, round(p * num_levels)), num_levels - 1)
    num_draws = -(-num_images * per_image // _DRAWN_AT_ONCE)
    bits = _random_bits(num_draws).view(torch.int16)
    # The decisions lie in memory as the values do, so that both are read in one pass.
    drawn = bits.as_strided((num_images, *values.shape[1:]), (per_image, *values.stride()[1:]))
    scaled: Tensor = values * (drawn[part] >= dropped - num_levels // 2) * (num_levels / (num_levels - dropped))
    return scaled


def _random_bits(num_draws: int) -> Int64[Tensor, " D"]:
    """64 bits in each number."""
    lowest = -(2**63)
    if torch.compiler.is_compiling():
        # torch.compile knows nothing of `random_`. These are the same bits, but for one number of 2⁶⁴: the generator's
        # number is moved by the lowest one, which changes the first bit, and here is changed back.
        return torch.randint(lowest, 2**63 - 1, (num_draws,)) ^ lowest
    return torch.empty(num_draws, dtype=torch.int64).random_(lowest, None)


def is_dense(values: Tensor) -> bool:
    """Whether the numbers lie side by side, image after image."""
    # In plain numbers, which torch.compile can follow.
    strides = sorted(
        (stride, size) for size, stride in zip(values.shape[1:], values.stride()[1:], strict=True) if size > 1
    )
    expected = 1
    for stride, size in strides:
        if stride != expected:
            return False
        expected *= size
    return values.numel() > 0 and (len(values) == 1 or values.stride(0) == expected)


def with_bit_dropout(network: nn.Module) -> nn.Module:
    """The network with its dropout layers replaced, but for frozen ones, which never drop."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout and not is_frozen(child):
                setattr(parent, name, BitDropout(child.p, child.inplace))
    return network
