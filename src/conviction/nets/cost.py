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


@_macs_of("convolution_backward")
def _convolution_backward_macs(arguments: Sequence[Any], output: Any) -> int:
    """The gradients of the input and of the weight, where they are wanted, cost the forward pass's products each."""
    gradient, images, weight, is_transposed, wanted = (arguments[index] for index in (0, 1, 2, 7, 10))
    positions = images.numel() if is_transposed else gradient.numel()
    return int(positions * math.prod(weight.shape[1:]) * sum(map(bool, wanted[:2])))


@_macs_of("mm", "bmm", "mv", "dot", "vdot")
def _product_macs(arguments: Sequence[Any], output: Tensor) -> int:
    """(…, n, k) times (…, k, m), or times (k)."""
    return int(output.numel() * arguments[0].shape[-1])


@_macs_of("addmm", "baddbmm", "addmv")
def _sum_and_product_macs(arguments: Sequence[Any], output: Tensor) -> int:
    return int(output.numel() * arguments[1].shape[-1])


@_macs_of("_trilinear")
def _bilinear_macs(arguments: Sequence[Any], output: Tensor) -> int:
    """A number of each input times a weight, for every pair of them and every number of the output."""
    return int(output.numel() // output.shape[-1] * arguments[1].numel())


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
    shapes = [tuple(parameter.shape) for parameter in module.parameters(with_parts)]
    count = sum(map(math.prod, shapes))
    known = _known_formula(module)
    if known and known[1] == count:
        return known[0]
    return " + ".join("·".join(map(str, shape)) or "1" for shape in shapes)


def _known_formula(module: nn.Module) -> tuple[str, int] | None:
    """The formula of a layer that torch brings, and the number that it stands for."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        return _convolution_formula(module)
    if isinstance(module, nn.Linear):
        inputs, outputs = module.in_features, module.out_features
        if not any(name == "bias" for name, _ in module.named_parameters()):
            return f"n_in·n_out = {inputs}·{outputs}", inputs * outputs
        return f"(n_in + 1)·n_out = ({inputs} + 1)·{outputs}", (inputs + 1) * outputs
    if isinstance(module, nn.modules.batchnorm._BatchNorm | nn.GroupNorm):
        size = module.num_channels if isinstance(module, nn.GroupNorm) else module.num_features
        return f"2·C = 2·{size}", 2 * size
    return None


def _convolution_formula(module: nn.Conv2d | nn.ConvTranspose2d) -> tuple[str, int]:
    height, width = module.kernel_size
    kernel = "k·k" if height == width else "k_h·k_w"
    channels, shown = "C_in", str(module.in_channels)
    outputs = module.out_channels
    weights = height * width * module.in_channels // module.groups * outputs
    if module.groups > 1:
        channels, shown = "C_in/groups", f"{module.in_channels}/{module.groups}"
    if module.bias is None:
        return f"{kernel}·{channels}·C_out = {height}·{width}·{shown}·{outputs}", weights
    if isinstance(module, nn.ConvTranspose2d) and module.groups > 1:
        formula = f"{kernel}·{channels}·C_out + C_out = {height}·{width}·{shown}·{outputs} + {outputs}"
    else:
        formula = f"({kernel}·{channels} + 1)·C_out = ({height}·{width}·{shown} + 1)·{outputs}"
    return formula, weights + outputs
