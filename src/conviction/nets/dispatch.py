"""Watching torch's operations as they pass, without its compiler."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
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


def run_on_meta(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What an operation gives on tensors without numbers.

    Batch normalisation is spelled out in Python there, a millisecond each; its results have the sizes of its inputs.
    """
    name = operation.overloadpacket.__name__
    if name == "native_batch_norm" and args[0].is_meta:
        channels = args[0].new_empty((args[0].shape[1],))
        return torch.empty_like(args[0]), channels, torch.empty_like(channels)
    if name == "native_batch_norm_backward" and args[0].is_meta:
        images, mask = args[1], args[9]
        channels = [images.new_empty((images.shape[1],)) if wanted else None for wanted in mask[1:]]
        return torch.empty_like(images) if mask[0] else None, *channels
    return operation(*args, **kwargs)


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
