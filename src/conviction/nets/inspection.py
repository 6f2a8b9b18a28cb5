"""What a network is made of, layer by layer, without running it on numbers."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from conviction.core.architecture import PICTURE_NAME, UNKNOWN_FIELD, Architecture, LayerRecord, ReceptiveField
from conviction.core.errors import ConfigError
from conviction.nets.cost import parameter_formula
from conviction.nets.dispatch import compiler_left_out
from conviction.nets.field import AXES, Field
from conviction.nets.memory import Precision, estimate_memory
from conviction.nets.misfit import describe_stop, first_line
from conviction.nets.trace import PICTURE, Step, Trace, is_layer, trace

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
        is_complete = found.fault is None and found.is_followed
        if found.fault is not None:
            notes.append(describe_stop(on_meta, found, input_shape))
        elif not found.is_followed:
            notes.append(
                "How the output depends on the picture could not be followed: fields are UNKNOWN from there on."
            )
        if found.fault is None:
            try:
                with found.place:
                    memory = estimate_memory(on_meta, input_shape, batch_size, precision)
            except Exception as error:  # what predicts one picture may not train on a batch, for any reason
                notes.append(
                    f"The memory is not told: a training step of {batch_size} pictures fails with: {first_line(error)}."
                )
    layers = tuple(_layers(on_meta, found))
    return Architecture(name, input_shape, layers, memory, notes=tuple(notes), is_complete=is_complete)


def as_meta(network: nn.Module) -> nn.Module:
    """The network on the meta device: itself where it is there already, else a copy without numbers.

    Raises: ConfigError for a network that was compiled by torch.jit.
    """
    # What torch.compile gives holds the network itself.
    network = getattr(network, "_orig_mod", network)
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        raise ConfigError("A network compiled by torch.jit cannot be followed. Give the one that it was made from.")
    tensors = [*network.parameters(), *network.buffers(), *_plain_attributes(network)]
    if all(tensor.is_meta for tensor in tensors):
        return network
    shared: dict[int, Any] = {id(tensor): tensor.detach().to("meta") for tensor in tensors if not is_lazy(tensor)}
    for tensor in (*network.parameters(), *network.buffers()):
        if is_lazy(tensor):
            make: Any = type(tensor)
            shared[id(tensor)] = make(requires_grad=tensor.requires_grad, device="meta", dtype=tensor.dtype)
        elif isinstance(tensor, nn.Parameter):
            shared[id(tensor)] = nn.Parameter(shared[id(tensor)], tensor.requires_grad)
    # Given as known copies, the weights themselves are not copied.
    return copy.deepcopy(network, shared)


def _plain_attributes(network: nn.Module) -> list[Tensor]:
    """Tensors that modules keep without calling them parameters or buffers."""
    values = [value for module in network.modules() for value in vars(module).values()]
    nested = [part for value in values if isinstance(value, list | tuple) for part in value]
    return [value for value in (*values, *nested) if isinstance(value, Tensor)]


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
        inputs = tuple(PICTURE_NAME if number == PICTURE else names[number] for number in sorted(step.sources))
        records.append(_record(step, name, inputs, counted))
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
    if is_layer(module) and not any(id(own) in found.used for own in module.parameters(recurse=False)):
        note = "not reached" if found.fault else "not used when predicting"
    formula = parameter_formula(module, with_parts=False)
    return LayerRecord(path or kind, kind, None, every, trainable, 0, UNKNOWN_FIELD, formula, note=note)


def _record(step: Step, name: str, inputs: tuple[str, ...], counted: set[int]) -> LayerRecord:
    module, note = step.module, ""
    every, trainable = _count(module, counted) if module is not None else (0, 0)
    if module is not None and not every and any(True for _ in module.parameters()):
        note = "weights shared with an earlier layer"
    elif every and not trainable:
        note = "frozen"
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
        inputs=inputs,
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
    sizes, strides = [], []
    starts: list[float | None] = []
    for axis in AXES:
        seen = field.maps[axis]
        first, last = seen.at(0)
        moves = field.holder(axis) is not None
        sizes.append(seen.size)
        strides.append(_number(seen.stride) if moves else None)
        # Behind some transposed convolutions the first position sees nothing at all.
        starts.append((first + last) / 2 + _CENTRE_PX if first <= last else None)
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
