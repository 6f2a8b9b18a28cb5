"""The rules of operations that look through windows: convolutions, poolings, paddings, resampling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from conviction.nets.axis_map import AxisMap
from conviction.nets.field import AXES, Field, is_varying, plain, varying
from conviction.nets.field_rules import Call, along, replaced, rule


@rule("convolution", "_convolution")
def _convolution(call: Call) -> Field | None:
    field, weight = call.field(0), call.argument(1)
    if field is None or call.field(1) is not None:
        return None
    # Of grouped channels, each group sees its own.
    groups = call.argument(8) if len(call.arguments) > 8 else 1
    is_uneven = groups > 1 and is_varying(field.dimensions[1])
    field = field.mixed([1])
    field = replace(field, dimensions=replaced(field.dimensions, 1, plain([call.shape[1]])[0]))
    field = varying(field, 1) if is_uneven else field
    for number in range(len(call.shape) - 2):
        kernel = weight.shape[2 + number]
        stride, padding, dilation = (_nth(call.argument(position), number) for position in (3, 4, 5))
        moved = AxisMap.transposed if call.argument(6) else AxisMap.windowed
        change = _with_sizes(moved, kernel, stride, padding, dilation)
        if padding and not call.argument(6):
            field = _padded_where_the_picture_ends(call, field, 2 + number)
        field = along(field, 2 + number, call.shape[2 + number], change)
    return field


def _padded_where_the_picture_ends(call: Call, field: Field, index: int) -> Field:
    """The field before a padding; a bound where a crop left pixels of the picture beyond the map.

    Fields go on in the padding as if the map did. There, they would then lie in the picture, and nothing is seen.
    """
    for axis in AXES:
        if field.holder(axis) == index:
            seen = field.maps[axis]
            is_cut = seen.at(-1)[0] >= 0 or seen.at(field.extent(axis))[1] < call.picture_px[axis]
            return replace(field, is_exact=field.is_exact and not is_cut)
    return field


@rule("max_pool2d_with_indices", "max_pool2d", "max_pool3d_with_indices")
def _max_pool(call: Call) -> Field | None:
    return _pooled(call, dilation=call.argument(4, [1]))


@rule("avg_pool2d", "avg_pool3d", "avg_pool1d")
def _average_pool(call: Call) -> Field | None:
    return _pooled(call, dilation=[1])


def _pooled(call: Call, dilation: Sequence[int]) -> Field | None:
    field, kernel = call.field(0), call.argument(1)
    stride, padding = call.argument(2) or kernel, call.argument(3, [0])
    if field is None:
        return None
    num_sides = len(kernel)
    for number in range(num_sides):
        index = len(call.shape) - num_sides + number
        sizes = [_nth(values, number) for values in (kernel, stride, padding, dilation)]
        if sizes[2]:
            field = _padded_where_the_picture_ends(call, field, index)
        field = along(field, index, call.shape[index], _with_sizes(AxisMap.windowed, *sizes))
    return field


@rule("_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool(call: Call) -> Field | None:
    field, former = call.field(0), call.argument(0).shape
    if field is None:
        return None
    for index in (len(call.shape) - 2, len(call.shape) - 1):
        sizes = (former[index], call.shape[index])
        field = along(field, index, sizes[1], _with_sizes(AxisMap.pooled_to, *sizes))
    return field


@rule("constant_pad_nd")
def _padded(call: Call) -> Field | None:
    field, padding = call.field(0), call.argument(1)
    if field is None:
        return None
    for number in range(len(padding) // 2):
        index = len(call.shape) - 1 - number
        before = padding[2 * number]
        if max(padding[2 * number : 2 * number + 2]) > 0:
            field = _padded_where_the_picture_ends(call, field, index)
        field = along(field, index, call.shape[index], _with_sizes(AxisMap.windowed, 1, 1, before))
    return field


@rule("reflection_pad2d", "replication_pad2d")
def _mirrored(call: Call) -> Field | None:
    # The padding holds the picture's own pixels: what lies i before the edge is pixel i, at most 2·i further in. So
    # much is added on both sides of every field, which makes it a bound.
    field, padding = call.field(0), call.argument(1)
    if field is None:
        return None
    for number in range(len(padding) // 2):
        index = len(call.shape) - 1 - number
        before, reach = padding[2 * number], 2 * max(padding[2 * number : 2 * number + 2])
        change = _with_sizes(AxisMap.windowed, 2 * reach + 1, 1, before + reach)
        field = along(field, index, call.shape[index], change)
    return replace(field, is_exact=False)


@rule("upsample_nearest2d", "upsample_bilinear2d")
def _upsampled(call: Call) -> Field | None:
    field, former = call.field(0), call.argument(0).shape
    is_bilinear = call.named("align_corners") is not None
    if field is None or call.named("align_corners"):
        return None
    for side, index in (("scales_h", 2), ("scales_w", 3)):
        # The kernel goes by the factor that was asked for, whatever the sizes round to.
        asked = call.named(side)
        if asked is not None and asked != call.shape[index] / former[index]:
            return None
    for index in (2, 3):
        if call.shape[index] % former[index]:
            return None
        factor = call.shape[index] // former[index]
        field = along(field, index, call.shape[index], _with_sizes(AxisMap.enlarged, factor, is_bilinear))
    return field


@rule("pixel_shuffle")
def _shuffled(call: Call) -> Field | None:
    field, factor = call.field(0), call.argument(1)
    if field is None:
        return None
    return _rescaled(field, call.shape, lambda old: old.enlarged(factor))


@rule("pixel_unshuffle")
def _unshuffled(call: Call) -> Field | None:
    field, factor = call.field(0), call.argument(1)
    if field is None:
        return None
    return _rescaled(field, call.shape, lambda old: old.windowed(factor, factor, 0))


def _rescaled(field: Field, shape: tuple[int, ...], change: Callable[[AxisMap], AxisMap]) -> Field:
    field = field.mixed([1])
    field = replace(field, dimensions=replaced(field.dimensions, 1, plain([shape[1]])[0]))
    for index in (2, 3):
        field = along(field, index, shape[index], change)
    return field


def _with_sizes(change: Callable[..., AxisMap], *sizes: int) -> Callable[[AxisMap], AxisMap]:
    return lambda old: change(old, *sizes)


def _nth(values: Any, number: int) -> int:
    """The value for one side; torch writes one value where it holds for all."""
    listed = [values] if isinstance(values, int) else list(values)
    return int(listed[number] if len(listed) > 1 else listed[0])
