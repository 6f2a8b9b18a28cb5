"""What a network is made of, layer by layer, without running it on numbers."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from fractions import Fraction

from torch import nn

from conviction.core.architecture import UNKNOWN_FIELD, Architecture, LayerRecord, ReceptiveField
from conviction.core.errors import ConfigError
from conviction.nets.cost import parameter_formula
from conviction.nets.dispatch import compiler_left_out
from conviction.nets.field import AXES, Field
from conviction.nets.memory import Precision, estimate_memory
from conviction.nets.trace import Step, Trace, is_layer, trace

# Half a pixel from a pixel's edge to its centre.
_CENTRE_PX = 0.5


def inspect_network(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    name: str = "network",
    batch_size: int = 128,
    precision: Precision = "float32",
) -> Architecture:
    """The layers of a network for pictures of `input_shape` (C, H, W), with what each one costs and sees.

    The network may be on the meta device, where its weights take no memory; it is not changed.

    Raises: ConfigError that names the layer where the network does not take such pictures.
    """
    on_meta = as_meta(network)
    notes: list[str] = []
    memory = None
    with compiler_left_out():
        found = trace(on_meta, input_shape)
        if found.fault is not None:
            notes.append(describe_stop(on_meta, found, input_shape))
        else:
            memory = estimate_memory(on_meta, input_shape, batch_size, precision)
    return Architecture(name, input_shape, tuple(_layers(on_meta, found)), memory, notes=tuple(notes))


def as_meta(network: nn.Module) -> nn.Module:
    """The network on the meta device: itself where it is there already, else a copy without numbers."""
    tensors = [*network.parameters(), *network.buffers()]
    if all(tensor.is_meta for tensor in tensors):
        return network
    shared = {id(tensor): tensor.to("meta") for tensor in tensors}
    for tensor in network.parameters():
        shared[id(tensor)] = nn.Parameter(shared[id(tensor)], tensor.requires_grad)
    # Given as known copies, the weights themselves are not copied.
    return copy.deepcopy(network, shared)


def _layers(network: nn.Module, found: Trace) -> list[LayerRecord]:
    """The steps, and among them, where the network names them, the modules whose parameters no step has."""
    counted: set[int] = set()
    records: list[LayerRecord] = []
    order = {path: number for number, path in enumerate(dict(network.named_modules()))}
    called = {step.module for step in found.steps}
    apart = [
        (path, module)
        for path, module in network.named_modules()
        if module not in called and _has_own(module) and not _lies_within(path, found)
    ]
    names = _unique([step.path or step.kind for step in found.steps])
    for step, name in zip(found.steps, names, strict=True):
        if step.module is not None:
            while apart and order[apart[0][0]] < order[step.path]:
                records.append(_parameters_of(*apart.pop(0), counted, found))
        records.append(_record(step, name, counted))
    records += [_parameters_of(path, module, counted, found) for path, module in apart]
    return records


def _lies_within(path: str, found: Trace) -> bool:
    """Whether a module is a part of one that is shown as one layer."""
    return any(path.startswith(f"{step.path}.") for step in found.steps if step.module is not None)


def _has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _parameters_of(path: str, module: nn.Module, counted: set[int], found: Trace) -> LayerRecord:
    """The row of a module whose own parameters belong to no layer that was called."""
    every, trainable = _count(module, counted, recurse=False)
    kind, note = type(module).__name__, ""
    if is_layer(module):
        note = "not reached" if found.fault else "not used when predicting"
    formula = parameter_formula(module, with_parts=False)
    return LayerRecord(path or kind, kind, None, every, trainable, 0, UNKNOWN_FIELD, formula, note=note)


def _record(step: Step, name: str, counted: set[int]) -> LayerRecord:
    module, note = step.module, ""
    every, trainable = _count(module, counted) if module is not None else (0, 0)
    if module is not None and not every and any(True for _ in module.parameters()):
        note = "weights shared with an earlier layer"
    return LayerRecord(
        name=name,
        kind=step.kind,
        output=step.output and step.output[1:],
        parameters=every,
        trainable_parameters=trainable,
        macs=step.macs,
        receptive_field=_receptive_field(step.field),
        formula=parameter_formula(module) if module is not None else "",
        activation_bytes=step.output_bytes,
        dense_parameters=_dense_parameters(step),
        note=note,
    )


def _count(module: nn.Module, counted: set[int], recurse: bool = True) -> tuple[int, int]:
    """The parameters that no earlier layer has, all and those that train."""
    new = [parameter for parameter in module.parameters(recurse) if id(parameter) not in counted]
    counted.update(map(id, new))
    return sum(p.numel() for p in new), sum(p.numel() for p in new if p.requires_grad)


def _dense_parameters(step: Step) -> int | None:
    """The weights and biases of a fully connected layer from the same input to the same output."""
    if not isinstance(step.module, nn.Conv2d | nn.ConvTranspose2d) or step.input is None or step.output is None:
        return None
    return (math.prod(step.input[1:]) + 1) * math.prod(step.output[1:])


def _receptive_field(field: Field | None) -> ReceptiveField:
    if field is None:
        return UNKNOWN_FIELD
    sizes, strides, starts = [], [], []
    for axis in AXES:
        seen = field.maps[axis]
        first, last = seen.at(0)
        moves = field.holder(axis) is not None
        sizes.append(seen.size)
        strides.append(_number(seen.stride) if moves else None)
        starts.append((first + last) / 2 + _CENTRE_PX if first <= last else math.nan)
    return ReceptiveField(
        (sizes[0], sizes[1]),
        (strides[0], strides[1]),
        (starts[0], starts[1]),
        "EXACT" if field.is_exact else "UPPER BOUND",
    )


def _number(stride: Fraction) -> int | float:
    return stride.numerator if stride.denominator == 1 else float(stride)


def _unique(names: Sequence[str]) -> list[str]:
    """Names with a number behind those that come again."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        unique.append(name if seen[name] == 1 else f"{name}:{seen[name]}")
    return unique


_NEEDS_VALUES = (
    "cannot be called on meta tensors",
    "Cannot copy out of meta tensor",
    "_local_scalar_dense",
    "data-dependent",
    "aten::nonzero",
    "aten::equal",
    "meta tensors",
)


def describe_stop(network: nn.Module, found: Trace, input_shape: tuple[int, int, int]) -> str:
    """Why the trace ended where it did, where that is the network's way of computing.

    Raises: ConfigError where the pictures do not fit the network, or it wants something else than pictures.
    """
    text = str(found.fault)
    layer = next((path for path in reversed(found.fault_path) if path), "") or "the network itself"
    if any(sign in text for sign in _NEEDS_VALUES):
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
        return ConfigError(f"{layer} expects {module.in_channels} channels, but gets {inputs[1]} from input {shown}.")
    if isinstance(module, nn.Linear) and inputs:
        return _dense_misfit(found, layer, module, inputs, shown)
    least = least_side(network, input_shape)
    hint = f"The smallest square input that goes through is {least}×{least}." if least else ""
    reason = str(found.fault).strip().splitlines()[0].rstrip(".") if str(found.fault).strip() else ""
    return ConfigError(
        f"Input {shown} does not go through {layer}: {reason or type(found.fault).__name__}. {hint}".rstrip()
    )


def _dense_misfit(found: Trace, layer: str, module: nn.Linear, inputs: tuple[int, ...], shown: str) -> ConfigError:
    maps = [(step.path, step.output) for step in found.steps if step.output is not None and len(step.output) == 4]
    last = f", the {'×'.join(map(str, maps[-1][1][1:]))} map of {maps[-1][0]}" if maps else ""
    return ConfigError(
        f"Input {shown} does not go through {layer}: a fully connected layer has a weight for each number that it "
        f"was planned for, {module.in_features:,}, and now gets {inputs[-1]:,}{last}. All layers before it work on any "
        "size, as they slide over their input. Plan the network for this size, or turn its fully connected layers "
        "into convolutions: conviction.nets.surgery.to_dense_map."
    )


_MOST_SIDE_PX = 1024


def least_side(network: nn.Module, input_shape: tuple[int, int, int]) -> int | None:
    """The side of the smallest square input that goes through, at most 1024; None where none does.

    Found by halving: a network that takes some size takes larger ones too, but for those with fully connected layers.
    """
    channels = input_shape[0]

    def passes(side: int) -> bool:
        return trace(network, (channels, side, side)).fault is None

    if not passes(_MOST_SIDE_PX):
        return next((side for side in (16, 28, 32, 50, 64, 96, 128, 224, 256, 299, 384) if passes(side)), None)
    low, high = 0, _MOST_SIDE_PX
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if passes(middle) else (middle, high)
    return high
