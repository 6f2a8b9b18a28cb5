"""A network is run on a picture without numbers, and every operation of torch is seen as it passes.

The run is on torch's `meta` device: tensors have shapes and no values, so that nothing is computed and no weight needs
memory. What depends on values cannot be followed there; the trace then ends, and says where.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.utils.weak import WeakTensorKeyDictionary

import conviction.nets.window_rules  # noqa: F401 - enters its rules
from conviction.nets.cost import multiply_accumulates
from conviction.nets.dispatch import OperationMode, WritesPictures, run_on_meta
from conviction.nets.field import AXES, Field, anything_of, input_field, united, varying, written_into
from conviction.nets.field_rules import Call, resulting_field

# Operations that only look at a tensor in another way, or make one that no picture has a part in.
_UNSHOWN = frozenset(
    (
        *("view", "_unsafe_view", "reshape", "_reshape_alias", "permute", "transpose", "t", "unsqueeze", "squeeze"),
        *("expand", "slice", "select", "split", "split_with_sizes", "unsafe_split", "chunk", "unbind", "as_strided"),
        *("alias", "detach", "clone", "_to_copy", "lift_fresh", "copy_", "fill_"),
    )
)


@dataclass
class Step:
    """A layer as it was called, or an operation outside of one."""

    path: str
    kind: str
    module: nn.Module | None = None
    macs: int = 0
    output: tuple[int, ...] | None = None
    field: Field | None = None
    output_bytes: int = 0
    input: tuple[int, ...] | None = None
    # The steps whose results it computes with, by their numbers; `PICTURE` for the picture itself.
    sources: set[int] = dataclasses.field(default_factory=set)


PICTURE = -1


@dataclass
class Trace:
    """The steps of one picture's way through a network, and what ended it early."""

    steps: list[Step]
    fault: Exception | None = None
    # The modules inside of which the fault arose, the innermost last.
    fault_path: tuple[str, ...] = ()
    fault_inputs: tuple[tuple[int, ...], ...] = ()
    # Modules shown as one layer although they have parts.
    whole: frozenset[nn.Module] = frozenset()
    # The parameters that some operation had in its hands, by identity.
    used: frozenset[int] = frozenset()
    # Whether what the network gives could be followed to the picture; True where it gives nothing.
    is_followed: bool = True
    # Where the tensors that the network makes itself had to be made.
    place: AbstractContextManager[object] = dataclasses.field(default_factory=nullcontext)


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> Trace:
    """Follow one picture of `input_shape` (C, H, W) through a network on the meta device, in evaluation mode.

    A module that computes with the weights of its parts without calling them, as attention does, is one layer. The
    network's mode is put back afterwards, and its hooks are removed.
    """
    place: AbstractContextManager[object] = nullcontext()
    found, lending = _trace(network, input_shape, frozenset(), place)
    if isinstance(found.fault, WritesPictures):
        # Then the tensors that it makes itself are made where the picture is.
        place = torch.device("meta")
        found, lending = _trace(network, input_shape, frozenset(), place)
    while lending - found.whole:
        found, lending = _trace(network, input_shape, found.whole | lending, place)
    return found


def _trace(
    network: nn.Module,
    input_shape: tuple[int, int, int],
    whole: frozenset[nn.Module],
    place: AbstractContextManager[object],
) -> tuple[Trace, frozenset[nn.Module]]:
    """The trace, and the modules that turned out to use the weights of parts that they do not call."""
    with _evaluating(network), torch.no_grad():
        images = torch.empty((1, *input_shape), dtype=dtype_of(network), device="meta")
        tracer = _Tracer(images, whole)
        fault: Exception | None = None
        is_followed = True
        with _attributed(network, tracer):
            try:
                with place, tracer:
                    output = network(images)
                is_followed = tracer.follows(output)
            except Exception as error:  # a network may raise anything
                fault = error
    path, inputs = (tuple(tracer.path()), tuple(tracer.fault_inputs)) if fault else ((), ())
    found = Trace(tracer.steps, fault, path, inputs, whole, frozenset(tracer.used), is_followed, place)
    return found, tracer.lending(network)


def dtype_of(network: nn.Module) -> torch.dtype:
    """What a network computes in: that of its first weight, `float32` where it has none."""
    kinds = (parameter.dtype for parameter in network.parameters() if parameter.dtype.is_floating_point)
    return next(kinds, torch.float32)


def is_layer(module: nn.Module, whole: frozenset[nn.Module] = frozenset()) -> bool:
    """Whether a module is shown as one layer, rather than by its parts."""
    # An empty container computes nothing; a parametrised layer has its parametrisations as parts.
    has_parts = next(module.children(), None) is not None and not is_parametrized(module)
    return module in whole or not (has_parts or isinstance(module, nn.Sequential))


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    former = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in former:
            module.training = training


@dataclass
class _Frame:
    path: str
    module: nn.Module
    step: Step | None
    inputs: tuple[tuple[int, ...], ...] = ()


class _Tracer(OperationMode):  # type: ignore[no-untyped-call]
    """Sees each of ATen's operations, follows the fields, and counts towards the layer that is being called."""

    def __init__(self, images: Tensor, whole: frozenset[nn.Module]) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self._whole = whole
        self._called: set[nn.Module] = set()
        self.used: set[int] = set()
        self.fault_inputs: list[tuple[int, ...]] = []
        self._frames: list[_Frame] = []
        self._fields: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._fields[images] = input_field(images.shape)
        self._picture_px = (images.shape[2], images.shape[3])
        # Tensors that no picture has a part in, as long as none is written into them.
        self._constants: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._failed: list[str] | None = None
        # The steps that a tensor comes from.
        self._origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self._origins[images] = frozenset([PICTURE])

    def follows(self, output: object) -> bool:
        """Whether it is known how the network's output depends on the picture."""
        result = _first_tensor(output)
        return result is None or self._field_of(result) is not None

    def path(self) -> list[str]:
        """The modules that are being called, or were when the trace ended."""
        return self._failed if self._failed is not None else [frame.path for frame in self._frames]

    def lending(self, network: nn.Module) -> frozenset[nn.Module]:
        """The modules that used the parameters of parts that they did not call."""
        modules = dict(network.named_modules())
        lent = [
            path
            for path, module in modules.items()
            if module not in self._called and any(id(own) in self.used for own in module.parameters(recurse=False))
        ]
        owners = set()
        for path in lent:
            while path and modules[path] not in self._called:
                path = path.rpartition(".")[0]
            owners.add(modules[path])
        return frozenset(owners - {network})

    def enter(self, path: str, module: nn.Module, arguments: tuple[Any, ...]) -> None:
        """A module is called."""
        shapes = tuple(tuple(value.shape) for value in arguments if isinstance(value, Tensor))
        step = None
        self._called.add(module)
        if is_layer(module, self._whole) and not any(frame.step for frame in self._frames):
            step = Step(path, type(module).__name__, module, input=shapes[0] if shapes else None)
            step.sources |= self._origins_of(all_tensors(arguments))
            self.steps.append(step)
        self._frames.append(_Frame(path, module, step, shapes))

    def leave(self, output: object) -> None:
        """A module has returned, or raised: then there is no output."""
        frame = self._frames[-1]
        result = _first_tensor(output)
        if result is None and self._failed is None:
            self._failed = [outer.path for outer in self._frames]
            self.fault_inputs = list(frame.inputs)
        self._frames.pop()
        if frame.step is not None and result is not None:
            self._finish(frame.step, result)
            number = self.steps.index(frame.step)
            frame.step.sources.discard(number)
            for tensor in all_tensors(output):
                self._origins[tensor] = frozenset([number])

    def _finish(self, step: Step, result: Tensor) -> None:
        step.output = tuple(result.shape)
        step.field = self._field_of(result)
        step.output_bytes = result.numel() * result.element_size()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.used.update(id(value) for value in args if isinstance(value, nn.Parameter))
        output = run_on_meta(operation, args, kwargs)
        name = operation.overloadpacket.__name__
        arguments = _by_position(operation, args, kwargs)
        results = list(output) if isinstance(output, list | tuple) else [output]
        for index, result in enumerate(results):
            if isinstance(result, Tensor):
                call = Call(operation, arguments, self._field_of, tuple(result.shape), index, self._picture_px)
                found = resulting_field(operation, call)
                if found is not None:
                    self._remember(operation, result, found)
                elif result not in self._fields:
                    self._constants[result] = True
        origins = self._origins_of(all_tensors(arguments))
        step = self._count(name, multiply_accumulates(name, arguments, output), results[0] if results else None)
        if step is not None:
            step.sources |= origins
            if step is self.steps[-1] and step.module is None:
                origins = frozenset([len(self.steps) - 1])
        for result in results:
            if isinstance(result, Tensor):
                self._origins[result] = origins
        return output

    def _origins_of(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        known = [self._origins[tensor] for tensor in tensors if tensor in self._origins]
        return frozenset(number for origin in known for number in origin)

    def _field_of(self, tensor: object) -> Field | None:
        return self._fields[tensor] if isinstance(tensor, Tensor) and tensor in self._fields else None

    def _remember(self, operation: Any, result: Tensor, found: Field) -> None:
        if operation._schema.is_mutable:
            self._spread(result, found)
        self._fields[result] = found

    def _spread(self, changed: Tensor, found: Field) -> None:
        """What is written through one view is seen through the others, as far as they show the same place."""
        place = changed.untyped_storage()._cdata
        for other in [*self._fields, *self._constants]:
            if other is changed or other.untyped_storage()._cdata != place:
                continue
            former, shape = self._field_of(other), tuple(other.shape)
            overlap = _overlap(changed, other)
            if overlap == "same":
                self._fields[other] = found
            elif overlap == "within":
                new = written_into(found, shape)
                self._fields[other] = new if former is None else _overwritten(former, new, shape)
            elif overlap == "unknown":
                fields = [field for field in (former, found) if field is not None]
                self._fields[other] = replace(anything_of(fields, shape), is_exact=False)

    def _count(self, name: str, macs: int, result: object) -> Step | None:
        """The step that an operation belongs to, or is; None where it is not shown."""
        step = next((frame.step for frame in self._frames if frame.step), None)
        if step is not None:
            step.macs += macs
            return step
        if name in _UNSHOWN or not isinstance(result, Tensor) or self._field_of(result) is None:
            return None
        outer = self._frames[-1].path if self._frames else ""
        step = Step(f"{outer}.{name.strip('_')}".lstrip("."), name.strip("_"), macs=macs)
        self._finish(step, result)
        self.steps.append(step)
        return step


def _overlap(written: Tensor, other: Tensor) -> Literal["same", "within", "none", "unknown"]:
    """How a view that was written to lies in another one of the same storage.

    `within`: it covers whole sides of the other, and only a part of its channels.
    """
    if written.ndim != other.ndim or written.stride() != other.stride():
        return "unknown"
    away = int(written.storage_offset() - other.storage_offset())
    rest, strides = abs(away), other.stride()
    starts = [0] * other.ndim
    room = 0
    for index in sorted(range(other.ndim), key=lambda index: strides[index], reverse=True):
        if strides[index] == 0:
            return "unknown"
        start, rest = divmod(rest, strides[index])
        first, later = (other, written) if away > 0 else (written, other)
        # Beyond the end of its row a view would go on in the next one.
        if room and strides[index] * max(first.shape[index], start + later.shape[index]) > room:
            return "unknown"
        room = strides[index]
        starts[index] = start if away > 0 else -start
    if rest:
        return "unknown"
    spans = list(zip(starts, written.shape, other.shape, strict=True))
    if any(start >= size or start + length <= 0 for start, length, size in spans):
        return "none"
    if all(start == 0 and length == size for start, length, size in spans):
        return "same"
    is_whole = all(start == 0 and length == size for start, length, size in spans[2:])
    return "within" if is_whole and other.ndim == _PICTURE_DIMENSIONS else "unknown"


# Those of a batch of maps.
_PICTURE_DIMENSIONS = 4


def _overwritten(former: Field, written: Field, shape: tuple[int, ...]) -> Field:
    """The field of a tensor a part of whose channels was written over: there it is the new one, elsewhere the old."""
    same = len(former.dimensions) == len(written.dimensions) and all(
        (former.holder(axis), former.extent(axis)) == (written.holder(axis), written.extent(axis)) for axis in AXES
    )
    if not same:
        return replace(anything_of([former, written], shape), is_exact=False)
    return varying(united([former, replace(written, dimensions=former.dimensions)], shape), 1)


def _by_position(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments in the order of the operation's schema, with its defaults where some were left out."""
    expected = operation._schema.arguments
    return tuple(
        args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
        for index, argument in enumerate(expected)
    )


def _first_tensor(output: object) -> Tensor | None:
    return next(iter(all_tensors(output)), None)


def all_tensors(value: object) -> list[Tensor]:
    """The tensors in what a module gives or an operation takes, however they are packed."""
    if isinstance(value, Tensor):
        return [value]
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in all_tensors(part)]


@contextmanager
def _attributed(network: nn.Module, tracer: _Tracer) -> Iterator[None]:
    """Hooks that tell the tracer which module is being called; removed whatever happens."""
    handles = []
    try:
        for path, module in network.named_modules():
            handles.append(
                module.register_forward_pre_hook(
                    lambda called, arguments, path=path: tracer.enter(path, called, arguments), prepend=True
                )
            )
            handles.append(
                module.register_forward_hook(lambda called, arguments, output: tracer.leave(output), always_call=True)
            )
        yield
    finally:
        for handle in handles:
            handle.remove()
