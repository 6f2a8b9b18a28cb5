"""torch's data-parallel wrapper without its ties to torch.compile.

Its constructor and its first step import that compiler to ask how it is set up: seconds in every process, in trainings
that compile nothing. Here it is answered as the compiler answers where nobody changed its settings. Where a version of
torch asks otherwise, the wrapper still works, and the import comes back.
"""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

_COMPILER = "_dynamo"
# The attribute in which torch keeps what its wrapper calls, once it has asked the compiler for it.
_CHOSEN = "__dynamo_disable"


def parallel(network: nn.Module) -> DistributedDataParallel:
    """The network, whose gradients are averaged over all processes while they are still being computed."""
    with _without_compiler(), warnings.catch_warnings():
        # The name that replaces `broadcast_buffers` is unknown to the oldest torch that we support.
        warnings.simplefilter("ignore", FutureWarning)
        # Unless it looks for unused weights, torch lays out its buckets anew after the first step. Between three
        # processes or more the layout decides the order of sums, and a resumed run would be rounded otherwise.
        return DistributedDataParallel(
            network, broadcast_buffers=False, gradient_as_bucket_view=True, find_unused_parameters=True
        )


@contextmanager
def _without_compiler() -> Iterator[None]:
    if f"torch.{_COMPILER}" in sys.modules:
        yield
        return
    method: Any = inspect.unwrap(getattr(DistributedDataParallel, "_inside_ddp_forward", parallel))
    setattr(method, _CHOSEN, method)
    utils = SimpleNamespace(get_optimize_ddp_mode=lambda: "ddp_optimizer")
    setattr(torch, _COMPILER, SimpleNamespace(utils=utils))
    try:
        yield
    finally:
        # What is no longer there is imported when it is asked for.
        delattr(torch, _COMPILER)
