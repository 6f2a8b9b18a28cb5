"""What a layer costs: multiply-accumulates of torch's operations, and how its parameters are counted."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

MACS: dict[str, Callable[[Sequence[Any], Any], int]] = {}


def _macs_of(*names: str) -> Callable[[Callable[[Sequence[Any], Any], int]], Callable[[Sequence[Any], Any], int]]:
    def enter(function: Callable[[Sequence[Any], Any], int]) -> Callable[[Sequence[Any], Any], int]:
        for name in names:
            MACS[name] = function
        return function

    return enter


def multiply_accumulates(name: str, arguments: Sequence[Any], output: Any) -> int:
    """The MACs of one of ATen's operations; 0 for those that are no sum of products."""
    return MACS[name](arguments, output) if name in MACS else 0


@_macs_of("convolution", "_convolution")
def _convolution_macs(arguments: Sequence[Any], output: Tensor) -> int:
    """Each position of the output sums over `k·k·C_in / groups` products; transposed, each one of the input gives them.

    `weight` is (C_out, C_in / groups, k, k), transposed (C_in, C_out / groups, k, k).
    """
    images, weight, is_transposed = arguments[0], arguments[1], arguments[6]
    positions = images.numel() if is_transposed else output.numel()
    return int(positions * math.prod(weight.shape[1:]))


@_macs_of("mm", "bmm")
def _product_macs(arguments: Sequence[Any], output: Tensor) -> int:
    """(…, n, k) times (…, k, m)."""
    return int(output.numel() * arguments[0].shape[-1])


@_macs_of("addmm", "baddbmm", "addmv")
def _sum_and_product_macs(arguments: Sequence[Any], output: Tensor) -> int:
    return int(output.numel() * arguments[1].shape[-1])


@_macs_of(
    "_scaled_dot_product_flash_attention_for_cpu",
    "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_attention_math",
    "scaled_dot_product_attention",
)
def _attention_macs(arguments: Sequence[Any], output: Any) -> int:
    """Queries (…, n, d) times keys (…, m, d), and the result times values (…, m, v)."""
    queries, keys, values = arguments[:3]
    pairs = math.prod(queries.shape[:-1]) * keys.shape[-2]
    return int(pairs * (queries.shape[-1] + values.shape[-1]))


def parameter_formula(module: nn.Module, with_parts: bool = True) -> str:
    """How a layer's parameters are counted, in letters and in numbers; empty where there are none.

    `with_parts` counts those of the modules inside it too.

    >>> parameter_formula(nn.Conv2d(3, 128, 3))
    '(k·k·C_in + 1)·C_out = (3·3·3 + 1)·128'
    """
    if not any(True for _ in module.parameters(with_parts)):
        return ""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution_formula(module)
    if isinstance(module, nn.Linear):
        bias, one = ("+ 1", True) if module.bias is not None else ("", False)
        letters = f"(n_in {bias})·n_out" if one else "n_in·n_out"
        numbers = f"({module.in_features} {bias})·{module.out_features}" if one else ""
        return f"{letters} = {numbers or f'{module.in_features}·{module.out_features}'}"
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
        size = module.weight.numel()
        return f"2·C = 2·{size}"
    own = [tuple(parameter.shape) for parameter in module.parameters(with_parts)]
    return " + ".join("·".join(map(str, shape)) or "1" for shape in own)


def _convolution_formula(module: nn.Conv2d | nn.ConvTranspose2d) -> str:
    height, width = module.kernel_size
    kernel = "k·k" if height == width else "k_h·k_w"
    channels, shown = "C_in", str(module.in_channels)
    if module.groups > 1:
        channels, shown = "C_in/groups", f"{module.in_channels}/{module.groups}"
    if module.bias is None:
        return f"{kernel}·{channels}·C_out = {height}·{width}·{shown}·{module.out_channels}"
    if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
        biases = module.out_channels
        return f"{kernel}·{channels}·C_out + C_out = {height}·{width}·{shown}·{module.out_channels} + {biases}"
    return f"({kernel}·{channels} + 1)·C_out = ({height}·{width}·{shown} + 1)·{module.out_channels}"
