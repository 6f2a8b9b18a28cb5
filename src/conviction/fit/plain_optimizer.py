"""torch's optimisers without their ties to torch.compile.

torch wraps the optimisers' methods so that its compiler leaves them alone, and the first call of a wrapper imports that
compiler: over a second before the first step, in trainings that compile nothing. The methods inside the wrappers give
the same bits. Where a version of torch wraps otherwise, these functions still work, and the import comes back.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.optim import Optimizer

# The attribute in which torch keeps what its wrapper calls, once it has asked the compiler for it.
_CHOSEN = "__dynamo_disable"


@contextmanager
def plain_construction() -> Iterator[None]:
    """Build optimisers inside this block; what it changes in torch is put back afterwards."""
    method: Any = inspect.unwrap(Optimizer.add_param_group)
    if hasattr(method, _CHOSEN):
        yield
        return
    setattr(method, _CHOSEN, method)
    try:
        yield
    finally:
        delattr(method, _CHOSEN)


def step(optimizer: Optimizer) -> None:
    """One step on the gradients at hand. Hooks that were registered on the optimiser are not called."""
    with torch.no_grad():
        inspect.unwrap(type(optimizer).step)(optimizer)


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """The optimiser's `state_dict`."""
    state: dict[str, Any] = inspect.unwrap(type(optimizer).state_dict)(optimizer)
    return state


def restore_state(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """The optimiser's `load_state_dict`. Raises: ValueError where the state is another optimiser's."""
    inspect.unwrap(type(optimizer).load_state_dict)(optimizer, state)
