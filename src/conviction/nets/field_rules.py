"""How each of torch's operations changes the field of a tensor. An operation without a rule gets a bound.

The rules are those of ATen, torch's own operations, so that they hold for every network however it is written. Those of
convolutions, poolings and what else looks through windows stand in `window_rules`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from conviction.nets.axis_map import AxisMap, Unrelated
from conviction.nets.field import Dimension, Factor, Field, anything_of, is_varying, joined, plain, united


@dataclass(frozen=True)
class Call:
    """An operation as it was called: all arguments by position, the fields of its tensors, the shape of a result."""

    operation: Any
    arguments: tuple[Any, ...]
    field_of: Callable[[object], Field | None]
    shape: tuple[int, ...]
    # Which of several results is asked for.
    result: int = 0
    # Height and width of the picture.
    picture_px: tuple[int, int] = (0, 0)

    def argument(self, position: int, default: Any = None) -> Any:
        """An argument that may have been left out."""
        return self.arguments[position] if position < len(self.arguments) else default

    def named(self, name: str) -> Any:
        """An argument by the name that the operation gives it; None where this form of the operation has none."""
        names = [argument.name for argument in self.operation._schema.arguments]
        return self.argument(names.index(name)) if name in names else None

    def field(self, position: int) -> Field | None:
        """The field of the tensor at a position; None where it does not depend on the pictures."""
        return self.field_of(self.argument(position))

    def fields(self) -> list[Field]:
        """The fields of all tensors among the arguments, lists of tensors included."""
        tensors = []
        for value in self.arguments:
            tensors += list(value) if isinstance(value, list | tuple) else [value]
        found = [self.field_of(tensor) for tensor in tensors if isinstance(tensor, Tensor)]
        return [field for field in found if field is not None]


# What looks at a tensor for its size only.
_OF_SIZES_ALONE = frozenset(
    (
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like", "randint_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full", "new_empty_strided"),
    )
)
Rule = Callable[[Call], Field | None]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Decorator that enters a rule for operations of ATen."""

    def enter(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f"{name} has two rules"
            RULES[name] = function
        return function

    return enter


def resulting_field(operation: Any, call: Call) -> Field | None:
    """The field of an operation's result; None where it does not depend on the pictures."""
    fields = call.fields()
    name = operation.overloadpacket.__name__
    if not fields or name in _OF_SIZES_ALONE:
        return None
    found = RULES.get(name) or RULES.get(name.removesuffix("_"))
    if found is not None:
        return found(call) or anything_of(fields, call.shape)
    if torch.Tag.pointwise in operation.tags:
        return united(fields, call.shape)
    return anything_of(fields, call.shape)


# Beside those that torch itself marks as going element by element.
@rule(
    *("clone", "_to_copy", "alias", "detach", "lift_fresh", "contiguous", "expand"),
    *("native_dropout", "dropout", "hardswish", "hardsigmoid", "hardtanh", "mish", "silu", "gelu", "elu", "celu"),
    *("leaky_relu", "softplus", "_prelu_kernel", "rrelu_with_noise", "log_sigmoid_forward", "threshold", "where"),
)
def _same(call: Call) -> Field | None:
    return united(call.fields(), call.shape)


@rule(
    *("mean", "sum", "amax", "amin", "max", "min", "var", "std", "logsumexp", "prod", "linalg_vector_norm", "norm"),
    *("argmax", "argmin", "any", "all", "median", "nansum"),
)
def _reduction(call: Call) -> Field | None:
    return _reduced(call, call.named("dim"))


def _reduced(call: Call, over: Any) -> Field | None:
    field = call.field(0)
    if field is None:
        return None
    num_dimensions = len(field.dimensions)
    listed = [over] if isinstance(over, int) else over or range(num_dimensions)
    indices = {index % num_dimensions for index in listed}
    field = field.mixed(sorted(indices))
    keeps = len(call.shape) == num_dimensions
    left = [
        () if index in indices else row for index, row in enumerate(field.dimensions) if keeps or index not in indices
    ]
    return replace(field, dimensions=tuple(left))


@rule("_softmax", "_safe_softmax", "_log_softmax", "sort")
def _softmax(call: Call) -> Field | None:
    field = call.field(0)
    return field and field.mixed([call.named("dim") % len(field.dimensions)])


@rule("cumsum", "cumprod")
def _cumulated(call: Call) -> Field | None:
    """Each position sees those before it: less than all of them."""
    field, index = call.field(0), call.argument(1) % max(1, len(call.shape))
    if field is None or all(factor.axis is None for row in field.dimensions[index : index + 1] for factor in row):
        return field
    return replace(field.mixed([index]), is_exact=False)


@rule("topk", "glu")
def _chosen(call: Call) -> Field | None:
    """Fewer positions along one dimension, each made from all, or from some, of those before."""
    field, index = call.field(0), call.named("dim") % len(call.shape)
    if field is None or any(factor.axis is not None or factor.varies for factor in field.dimensions[index]):
        return None
    return replace(field, dimensions=replaced(field.dimensions, index, plain([call.shape[index]])[0]))


@rule(
    "native_batch_norm",
    "cudnn_batch_norm",
    "miopen_batch_norm",
    "_native_batch_norm_legit",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
)
def _batch_norm(call: Call) -> Field | None:
    # With running statistics it is a scaling; with those of the batch, every position depends on all others.
    field = call.field(0)
    in_training = call.argument(5) is True
    if field is None or not in_training:
        return field
    return field.mixed([index for index in range(len(field.dimensions)) if index != 1])


@rule("native_layer_norm")
def _layer_norm(call: Call) -> Field | None:
    field = call.field(0)
    num_dimensions = len(call.shape)
    return field and field.mixed(range(num_dimensions - len(call.argument(1)), num_dimensions))


@rule("native_group_norm")
def _group_norm(call: Call) -> Field | None:
    field = call.field(0)
    return field and field.mixed(range(1, len(call.shape)))


@rule("view", "_unsafe_view", "reshape", "_reshape_alias", "unsqueeze", "squeeze", "flatten", "unflatten")
def _reshaped(call: Call) -> Field | None:
    field = call.field(0)
    return field and field.reshaped(call.shape)


@rule("permute")
def _permuted(call: Call) -> Field | None:
    field = call.field(0)
    return field and field.permuted([index % len(call.shape) for index in call.argument(1)])


@rule("transpose", "t")
def _transposed(call: Call) -> Field | None:
    field = call.field(0)
    if field is None:
        return None
    order = list(range(len(call.shape)))
    if len(order) > 1:
        first, second = call.argument(1, 0) % len(order), call.argument(2, 1) % len(order)
        order[first], order[second] = order[second], order[first]
    return field.permuted(order)


@rule("slice")
def _sliced(call: Call) -> Field | None:
    field = call.field(0)
    if field is None:
        return None
    index = call.argument(1, 0) % len(call.shape)
    size = call.argument(0).shape[index]
    start = slice(call.argument(2), None).indices(size)[0]
    return _cut(field, index, start, call.argument(4, 1), call.shape[index])


@rule("select")
def _selected(call: Call) -> Field | None:
    field = call.field(0)
    if field is None:
        return None
    former = call.argument(0).shape
    index = call.argument(1) % len(former)
    cut = _cut(field, index, call.argument(2) % former[index], 1, 1)
    return replace(cut, dimensions=cut.dimensions[:index] + cut.dimensions[index + 1 :])


@rule("split", "split_with_sizes", "unsafe_split", "chunk")
def _split(call: Call) -> Field | None:
    field = call.field(0)
    if field is None:
        return None
    sizes, index = call.argument(1), call.argument(2, 0) % len(call.shape)
    start = sizes * call.result if isinstance(sizes, int) else sum(sizes[: call.result])
    return _cut(field, index, start, 1, call.shape[index])


def _cut(field: Field, index: int, start: int, step: int, size: int) -> Field:
    first, *others = field.dimensions[index] or (Factor(1),)
    group = math.prod(factor.size for factor in others)
    if is_varying(tuple(others)) and not (first.varies or first.axis is not None or start % group or size % group):
        # Whole groups, each of which sees what all of them see.
        kept = (*plain([size // group])[0], *others) if step == 1 else (Factor(size, varies=True),)
        return replace(field, dimensions=replaced(field.dimensions, index, kept), is_exact=field.is_exact and step == 1)
    return along(field, index, size, lambda old: old.windowed(1, step, -start))


@rule("copy")
def _copied(call: Call) -> Field | None:
    """What was there before is overwritten."""
    field = call.field(1)
    return field and united([field], call.shape)


@rule("cat")
def _joined(call: Call) -> Field | None:
    tensors = [tensor for tensor in call.argument(0) if tensor.numel()]
    fields = [call.field_of(tensor) for tensor in tensors]
    index = call.argument(1, 0) % len(call.shape)
    known = [field for field in fields if field is not None]
    if len(known) < len(fields) and any(
        factor.axis is not None for field in known for factor in field.dimensions[index]
    ):
        return None
    return joined(known, call.shape, index)


@rule("repeat")
def _repeated(call: Call) -> Field | None:
    field, times = call.field(0), call.argument(1)
    if field is None:
        return None
    new = len(times) - len(field.dimensions)
    field = replace(field, dimensions=((),) * new + field.dimensions)
    for index, count in enumerate(times):
        if count == 1:
            continue
        if any(factor.axis is not None for factor in field.dimensions[index]):
            field = replace(field.mixed([index]), is_exact=False)
        field = replace(field, dimensions=replaced(field.dimensions, index, plain([call.shape[index]])[0]))
    return field


@rule("stack")
def _stacked(call: Call) -> Field | None:
    index = call.argument(1, 0) % len(call.shape)
    fields = call.fields()
    opened = [replace(f, dimensions=(*f.dimensions[:index], (), *f.dimensions[index:])) for f in fields]
    return joined(opened, call.shape, index)


@rule("mm", "bmm")
def _product(call: Call) -> Field | None:
    return _multiplied(call, 0, 1)


@rule("mv", "dot", "vdot")
def _vector_product(call: Call) -> Field | None:
    """(n, k) or (k) times (k): the last dimension is summed over."""
    field = call.field(0)
    if field is None or call.field(1) is not None:
        return None
    field = field.mixed([len(field.dimensions) - 1])
    return replace(field, dimensions=field.dimensions[:-1])


@rule("addmm", "baddbmm")
def _sum_and_product(call: Call) -> Field | None:
    product, added = _multiplied(call, 1, 2), call.field(0)
    fields = [field for field in (product, added) if field is not None]
    return united(fields, call.shape)


def _multiplied(call: Call, left: int, right: int) -> Field | None:
    """(…, n, k) times (…, k, m): the shared dimension is summed over."""
    fields = []
    for position, shared in ((left, -1), (right, -2)):
        field = call.field(position)
        if field is not None:
            field = field.mixed([len(field.dimensions) + shared])
            fields.append(replace(field, dimensions=replaced(field.dimensions, shared, ())))
    return united(fields, call.shape) if fields else None


def along(field: Field, index: int, size: int, change: Callable[[AxisMap], AxisMap]) -> Field:
    """The field with the map of one dimension changed; where the dimension is no plain side, a bound along it."""
    if is_varying(field.dimensions[index]):
        is_whole = size == math.prod(factor.size for factor in field.dimensions[index])
        loose = replace(field, is_exact=field.is_exact and is_whole)
        return replace(loose, dimensions=replaced(field.dimensions, index, (Factor(size, varies=True),)))
    axis = next((factor.axis for factor in field.dimensions[index] if factor.axis is not None), None)
    if axis is None:
        return replace(field, dimensions=replaced(field.dimensions, index, plain([size])[0]))
    if field.is_plain(index):
        try:
            changed = field.with_map(axis, change(field.maps[axis]))
        except Unrelated:
            pass
        else:
            return changed.resized(index, size)
    loose = replace(field.mixed([index]), is_exact=False)
    return replace(loose, dimensions=replaced(loose.dimensions, index, (Factor(size),) if size > 1 else ()))


def replaced(dimensions: tuple[Dimension, ...], index: int, new: Dimension) -> tuple[Dimension, ...]:
    """The dimensions with another one in a place."""
    listed = list(dimensions)
    listed[index] = new
    return tuple(listed)
