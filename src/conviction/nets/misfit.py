"""Why a network does not take some pictures, or cannot be followed to its end."""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from conviction.core.errors import ConfigError
from conviction.nets.trace import Trace, trace

_NEEDS_VALUES = re.compile(
    r"on meta tensors|meta tensor|data-dependent|_local_scalar_dense|nonzero|aten::equal|_unique|masked_select|"
    r"device type tensor to numpy|unbacked",
    re.IGNORECASE,
)


def first_line(error: BaseException) -> str:
    """What an error says, as far as a sentence can hold it."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".!") if lines else type(error).__name__


def describe_stop(network: nn.Module, found: Trace, input_shape: tuple[int, int, int]) -> str:
    """Why the trace ended where it did, where that is the network's way of computing.

    Raises: ConfigError where the pictures do not fit the network, or it wants something else than pictures.
    """
    text = str(found.fault)
    layer = next((path for path in reversed(found.fault_path) if path), "") or "the network itself"
    if _NEEDS_VALUES.search(text):
        return (
            f"{layer} decides by the values of a picture what to compute, which cannot be known before it has seen "
            "one: what comes behind it is UNKNOWN."
        )
    if isinstance(found.fault, TypeError) and re.search(r"missing \d+ required positional", text):
        wanted = re.findall(r"'(\w+)'", text)
        raise ConfigError(
            f"{layer} needs {len(wanted)} more input{'s' if len(wanted) > 1 else ''} beside the pictures "
            f"({', '.join(wanted)}): only networks that take one batch of pictures can be inspected."
        ) from found.fault
    raise misfit(network, found, input_shape, layer) from found.fault


def misfit(network: nn.Module, found: Trace, input_shape: tuple[int, int, int], layer: str) -> ConfigError:
    """What to say where pictures of this shape do not go through."""
    shown = "×".join(map(str, input_shape))
    module = dict(network.named_modules()).get(layer)
    inputs = found.fault_inputs[0] if found.fault_inputs else ()
    if isinstance(module, nn.Conv2d) and len(inputs) == 4 and inputs[1] != module.in_channels:
        wanted = f"{module.in_channels} channel{'s' if module.in_channels > 1 else ''}"
        return ConfigError(f"{layer} expects {wanted}, but gets {inputs[1]} from input {shown}.")
    if isinstance(module, nn.Linear) and inputs:
        return _dense_misfit(network, found, input_shape, layer, inputs)
    least = least_side(network, input_shape)
    hint = f"{least[1]} {least[0]}×{least[0]}." if least else ""
    assert found.fault is not None
    return ConfigError(f"Input {shown} does not go through {layer}: {first_line(found.fault)}. {hint}".rstrip())


def _dense_misfit(
    network: nn.Module, found: Trace, input_shape: tuple[int, int, int], layer: str, inputs: tuple[int, ...]
) -> ConfigError:
    """All fully connected layers that fail, each with what it gets: behind the first, as if that had gone through."""
    linear = network.get_submodule(layer)
    assert isinstance(linear, nn.Linear)
    maps = [(step.path, step.output) for step in found.steps if step.output is not None and len(step.output) == 4]
    last = f", the {'×'.join(map(str, maps[-1][1][1:]))} map of {maps[-1][0]}" if maps else ""
    more = [
        f"{path} (planned for {wanted:,}, gets {got:,})"
        for path, wanted, got in failing_linears(network, input_shape)
        if path != layer
    ]
    return ConfigError(
        f"Input {'×'.join(map(str, input_shape))} does not go through {layer}: a fully connected layer has a weight "
        f"for each number that it was planned for, {linear.in_features:,}, and now gets {inputs[-1]:,}{last}."
        + (f" So it is with {', '.join(more)}." if more else "")
        + " Convolutions and poolings work on any size, as they slide over their input. Plan the network for this "
        "size, or turn its fully connected layers into convolutions: conviction.nets.surgery.to_dense_map."
    )


def failing_linears(network: nn.Module, input_shape: tuple[int, int, int]) -> list[tuple[str, int, int]]:
    """The fully connected layers that do not take what pictures of `input_shape` (C, H, W) bring them.

    Each with its name, the numbers that it was planned for, and those that it gets. `network` is on the meta device.
    """
    failing: list[tuple[str, int, int]] = []
    names = {module: path for path, module in network.named_modules()}

    def mend(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        got = arguments[0] if arguments else None
        assert isinstance(module, nn.Linear)
        if not isinstance(got, Tensor) or not got.ndim or got.shape[-1] == module.in_features:
            return None
        failing.append((names[module], module.in_features, got.shape[-1]))
        return (got.new_empty((*got.shape[:-1], module.in_features)),)

    hooks = [one.register_forward_pre_hook(mend) for one in network.modules() if isinstance(one, nn.Linear)]
    try:
        trace(network, input_shape)
    finally:
        for hook in hooks:
            hook.remove()
    return list(dict.fromkeys(failing))


_MOST_SIDE_PX = 1024


def least_side(network: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int, str] | None:
    """A square input that goes through, at most 1024 wide, and what to call it; None where none does.

    Found by halving: a network that takes some size takes larger ones too, but for those with fully connected layers.
    """
    channels = input_shape[0]

    def passes(side: int) -> bool:
        return trace(network, (channels, side, side)).fault is None

    if not passes(_MOST_SIDE_PX):
        usual = next((side for side in (16, 28, 32, 50, 64, 96, 128, 224, 256, 299, 384) if passes(side)), None)
        return (usual, "A square input that goes through is") if usual else None
    low, high = 0, _MOST_SIDE_PX
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high, "The smallest square input that goes through is"
