"""Receptive fields confirmed by gradients: no pixel outside has influence, and the outermost pixels inside have.

Structure is what is checked, so that weights are made positive (nothing cancels) and max-poolings average (each pixel
of a window is the largest at one time or another).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conviction.nets.axis_map import Pixel
from conviction.nets.field import AXES, Field
from conviction.nets.inspection import as_meta
from conviction.nets.trace import is_layer, trace


@dataclass(frozen=True)
class FieldCheck:
    """How many positions were looked at, in how many layers, and where the gradient tells another field."""

    num_layers: int
    num_positions: int
    disagreements: tuple[str, ...]


def check_fields(network: nn.Module, input_shape: tuple[int, int, int], seed: int = 0) -> FieldCheck:
    """Compare the exact fields of a network's layers with where the gradient of a position is not zero.

    Six positions of each map are looked at, the corners and the middle among them. `network` has weights and stays as
    it is; fields that are bounds must hold all influence, exact ones must be reached too, as far as they lie in the
    picture.
    """
    smooth = _smoothed(network, seed)
    followed = trace(as_meta(smooth), input_shape)
    assert followed.fault is None, "only a network that takes such pictures can be checked"
    steps = [step for step in followed.steps if step.module is not None]
    images = torch.rand((1, *input_shape), dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    images.requires_grad_()
    outputs = _outputs(smooth, images)
    assert len(outputs) == len(steps), "a network calls the same layers each time"
    disagreements: list[str] = []
    num_layers = num_positions = 0
    for step, output in zip(steps, outputs, strict=True):
        if step.field is None or output is None or not output.requires_grad or not _has_sides(step.field):
            continue
        num_layers += 1
        for positions in _positions(step.field):
            num_positions += 1
            found = _influence(output, step.field, positions, images)
            expected = [step.field.maps[axis].at(positions[axis]) for axis in AXES]
            sees_nothing = any(first > last for first, last in expected)
            if found is None and (sees_nothing or not step.field.is_exact or _reaches_padding(expected, input_shape)):
                continue
            for axis in AXES:
                ends = found and found[axis]
                if not ends or not _agree(expected[axis], ends, input_shape[1 + axis], step.field.is_exact):
                    side = ("rows", "columns")[axis]
                    disagreements.append(
                        f"{step.path} at {positions}: {side} {expected[axis]} expected, {ends} have influence"
                    )
    return FieldCheck(num_layers, num_positions, tuple(disagreements))


def _smoothed(network: nn.Module, seed: int) -> nn.Module:
    smooth = copy.deepcopy(network).double().eval()
    for module in list(smooth.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d) and child.dilation in (1, (1, 1)):
                pooling = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(module, name, pooling)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in smooth.parameters():
            parameter.copy_(0.1 + torch.rand(parameter.shape, dtype=torch.float64, generator=generator))
            # Kept small, so that no number grows beyond what gradients can carry through many layers.
            parameter.div_(max(1, parameter[0].numel()))
    return smooth


def _outputs(network: nn.Module, images: Tensor) -> list[Tensor | None]:
    """What each layer gave, in the order of the calls; copies, as later layers may write over them."""
    outputs: list[Tensor | None] = []
    depth = [0]

    def enter(module: nn.Module, arguments: object) -> None:
        if depth[0] == 0:
            outputs.append(None)
        depth[0] += 1

    def leave(module: nn.Module, arguments: object, output: object) -> None:
        depth[0] -= 1
        if depth[0] == 0:
            result = output[0] if isinstance(output, tuple) else output
            outputs[-1] = result.clone() if isinstance(result, Tensor) else None

    handles = []
    try:
        for module in network.modules():
            if is_layer(module):
                handles.append(module.register_forward_pre_hook(enter))
                handles.append(module.register_forward_hook(leave))
        network(images)
    finally:
        for handle in handles:
            handle.remove()
    return outputs


def _has_sides(field: Field) -> bool:
    """Whether the sides of the picture are dimensions of their own, and not laid one behind the other."""
    holders = [field.holder(axis) for axis in AXES]
    return all(holder is None or field.is_plain(holder) for holder in holders)


def _positions(field: Field) -> list[tuple[int, int]]:
    """The four corners, the middle, and one beside the diagonal."""
    rows, columns = (field.extent(axis) for axis in AXES)
    places = [(0, 0), (0, columns - 1), (rows - 1, 0), (rows - 1, columns - 1), (rows // 2, columns // 2)]
    places.append((rows // 3, columns - 1 - columns // 3))
    return list(dict.fromkeys(places))


def _influence(
    output: Tensor, field: Field, positions: tuple[int, int], images: Tensor
) -> list[tuple[int, int]] | None:
    """The first and the last row, and column, whose pixels change the output at a position; None where none do."""
    chosen = output
    for axis in AXES:
        index = field.holder(axis)
        if index is not None:
            chosen = chosen.narrow(index, positions[axis], 1)
    (gradient,) = torch.autograd.grad(chosen.sum(), images, retain_graph=True)
    touched = gradient[0].abs().sum(dim=0) > 0
    if not touched.any():
        return None
    places = [touched.any(dim=1 - axis).nonzero().flatten() for axis in AXES]
    return [(int(place[0]), int(place[-1])) for place in places]


def _reaches_padding(expected: list[tuple[Pixel, Pixel]], input_shape: tuple[int, int, int]) -> bool:
    """Whether a field goes beyond the picture on some side: all of its pixels may lie in the padding then."""
    ends = zip(expected, input_shape[1:], strict=True)
    return any(first < 0 or last >= size for (first, last), size in ends)


def _agree(expected: tuple[Pixel, Pixel], found: tuple[int, int], size: int, is_exact: bool) -> bool:
    """Whether the influence lies within the field and, for an exact one, reaches those of its ends in the picture.

    An end in the padding need not be reached up to the picture's edge: a field with gaps may skip the pixels there.
    """
    first, last = expected
    if found[0] < first or found[1] > last:
        return False
    return not is_exact or ((first < 0 or found[0] == first) and (last >= size or found[1] == last))
