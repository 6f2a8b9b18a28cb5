"""Watching torch's operations as they pass, without its compiler."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

_COMPILER, _UTILITIES = "torch._dynamo", "torch._dynamo.utils"
# The attribute in which torch keeps what it calls instead of a function, once it has asked the compiler for it.
_CHOSEN = "__dynamo_disable"


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees each of ATen's operations, and leaves torch's compiler out of them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # By this method torch asks whether to keep its compiler away from the mode.
        return False


class WritesPictures(Exception):
    """A network writes what it made of a picture into a tensor that it made itself, and not on the picture's device."""


def run_on_meta(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives on tensors without numbers; others that come along lose theirs.

    Batch normalisation is spelled out in Python there, a millisecond each; its results have the sizes of its inputs.

    Raises: WritesPictures.
    """
    name = operation.overloadpacket.__name__
    devices = {value.is_meta for value in _tensors((*args, *kwargs.values())) if value.ndim}
    if len(devices) > 1:
        if operation._schema.is_mutable and not args[0].is_meta:
            raise WritesPictures
        args = tuple(_on_meta(value) for value in args)
        kwargs = {key: _on_meta(value) for key, value in kwargs.items()}
    if name == "native_batch_norm" and args[0].is_meta:
        channels = args[0].new_empty((args[0].shape[1],))
        return torch.empty_like(args[0]), channels, torch.empty_like(channels)
    if name == "native_batch_norm_backward" and args[0].is_meta:
        images, mask = args[1], args[9]
        channels = [images.new_empty((images.shape[1],)) if wanted else None for wanted in mask[1:]]
        return torch.empty_like(images) if mask[0] else None, *channels
    return operation(*args, **kwargs)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    """The tensors among arguments, those in lists too."""
    found = []
    for value in values:
        found += [one for one in (value if isinstance(value, list | tuple) else [value]) if isinstance(one, Tensor)]
    return found


def _on_meta(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return type(value)(map(_on_meta, value))
    # A single number may be anywhere.
    return value.to("meta") if isinstance(value, Tensor) and value.ndim else value


class MetaMode(OperationMode):  # type: ignore[no-untyped-call]
    """Lets tensors with numbers come along where a network runs on tensors without."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run_on_meta(operation, args, kwargs or {})


@contextmanager
def compiler_left_out() -> Iterator[None]:
    """Inside this block torch does not import its compiler only in order to keep it away from a function.

    torch does so for many operations on tensors without numbers, and torchvision when it is imported: two seconds, in
    programs that compile nothing. A stand-in answers them here; at the block's end all is as it was. Where the compiler
    is loaded, nothing is done.
    """
    if _COMPILER in sys.modules:
        yield
        return
    stand_in = _StandIn(_COMPILER)
    sys.modules[_COMPILER] = stand_in
    sys.modules[_UTILITIES] = stand_in.utils
    try:
        yield
    finally:
        _remove(stand_in)
        for function in stand_in.asked:
            vars(function).pop(_CHOSEN, None)


class _StandIn(ModuleType):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self.utils = _StandInUtilities(_UTILITIES)
        self.asked: list[Callable[..., Any]] = []

    def disable(self, function: Callable[..., Any], recursive: bool = True, **options: Any) -> Callable[..., Any]:
        self.asked.append(function)
        return function

    def __getattr__(self, name: str) -> Any:
        # Whoever wants more than that gets the compiler itself.
        if name.startswith("__"):
            raise AttributeError(name)
        _remove(self)
        return getattr(importlib.import_module(_COMPILER), name)


class _StandInUtilities(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def ask_the_compiler(*args: Any, **kwargs: Any) -> Any:
            # Imported by name now, and perhaps called one day.
            return getattr(importlib.import_module(_UTILITIES), name)(*args, **kwargs)

        return ask_the_compiler


def _remove(stand_in: _StandIn) -> None:
    if sys.modules.get(_COMPILER) is stand_in:
        del sys.modules[_COMPILER]
        vars(torch).pop("_dynamo", None)
    if sys.modules.get(_UTILITIES) is stand_in.utils:
        del sys.modules[_UTILITIES]
