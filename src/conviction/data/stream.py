"""Batches: rows of a pack, shuffled, augmented and standardised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from conviction.data.standardize import Standardization

Augment = Callable[[UInt8[Tensor, "B C H W"], Generator], UInt8[Tensor, "B C H2 W2"]]


@dataclass(frozen=True)
class Batch:
    """Images in the channels-last memory layout, and their labels."""

    images: Float[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]


@dataclass(frozen=True)
class Stream:
    """The pictures of one split, a batch at a time.

    `images` is `uint8` (N, H, W, C), `labels` `int64` (N); `rows` says which of them belong to this split.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    standardization: Standardization
    batch_size: int
    augmentations: Sequence[Augment] = ()
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_batches(self) -> int:
        """The number of batches of one pass."""
        return len(self._bounds()) - 1

    def in_order(self) -> Iterator[Batch]:
        """Each picture once, unchanged, in the split's order."""
        yield from self._batches(self.rows, None)

    def shuffled(self, generator: Generator) -> Iterator[Batch]:
        """Each picture once, in random order, augmented; the generator decides all of it."""
        order = torch.randperm(len(self.rows), generator=generator).numpy()
        yield from self._batches(self.rows[order], generator)

    def _batches(self, rows: np.ndarray, generator: Generator | None) -> Iterator[Batch]:
        bounds = self._bounds()
        for start, end in itertools.pairwise(bounds):
            chosen = rows[start:end]
            images = torch.from_numpy(self.images[chosen]).to(self.device).permute(0, 3, 1, 2)
            labels = torch.from_numpy(self.labels[chosen]).to(self.device)
            if generator is not None:
                for augment in self.augmentations:
                    images = augment(images, generator)
            yield Batch(self.standardization(images).contiguous(memory_format=torch.channels_last), labels)

    def _bounds(self) -> list[int]:
        """Where batches begin. A last batch of one picture joins the one before: batch normalisation needs two."""
        bounds = list(range(0, len(self.rows), self.batch_size))
        if len(bounds) > 1 and len(self.rows) - bounds[-1] == 1:
            bounds.pop()
        return [*bounds, len(self.rows)]
