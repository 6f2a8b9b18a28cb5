"""Random numbers that depend on the seed, the purpose and the epoch alone: a resumed run draws the same ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: the same words give the same number on every machine.

    >>> derive(0, "shuffle", 1) == derive(0, "shuffle", 1) != derive(0, "shuffle", 2)
    True
    """
    words = "\x1f".join(str(word) for word in (seed, *purpose))
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose."""
    import torch

    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def torch_default(seed: int, *purpose: str | int) -> Iterator[None]:
    """Seed torch's own generators inside the block and put them back afterwards.

    For what takes no generator: weight initialisation and dropout.
    """
    import torch

    # Named, because torch warns where it has to guess that several devices are all meant.
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(derive(seed, *purpose))
        yield
