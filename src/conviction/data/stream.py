"""Batches: rows of a pack, shuffled, augmented and standardised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from conviction.data.resident import read_rows
from conviction.data.standardize import Standardizer


@dataclass(frozen=True)
class Draw:
    """The occasion on which a batch is augmented: where its random numbers come from, the epoch, its rows, the seed.

    `generator` is each epoch's own; `seed` is the run's, for what holds through all of its epochs.
    """

    generator: Generator
    epoch: int = 1
    rows: Int64[Tensor, " B"] | None = None
    seed: int = 0


Targets = Int64[Tensor, " B"] | Float[Tensor, "B K"]
Augment = Callable[[UInt8[Tensor, "B C H W"], Int64[Tensor, " B"], Draw], tuple[UInt8[Tensor, "B C H2 W2"], Targets]]


@dataclass(frozen=True)
class Batch:
    """Images, in the memory format of their stream, their labels, and what to train them towards.

    `targets` are the labels, or shares of classes where images were mixed.
    """

    images: Float[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]
    targets: Targets


@dataclass(frozen=True)
class Stream:
    """The pictures of one split, a batch at a time.

    `images` is `uint8` (N, H, W, C), `labels` `int64` (N); `rows` says which of them belong to this split. `augment`
    changes images and labels where they are shuffled; where they are not, `crop_px` (height, width) is cut from their
    middle.
    """

    images: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    standardization: Standardizer
    batch_size: int
    augment: Augment | None = None
    crop_px: tuple[int, int] | None = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    memory_format: torch.memory_format = torch.channels_last

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_batches(self) -> int:
        """The number of batches of one pass."""
        return len(self._bounds()) - 1

    def in_order(self) -> Iterator[Batch]:
        """Each picture once, unchanged, in the split's order."""
        yield from self._batches(self.rows, None)

    def shuffled(self, generator: Generator, epoch: int = 1, seed: int = 0) -> Iterator[Batch]:
        """Each picture once, in random order, augmented; generator, epoch and the run's seed decide all of it."""
        order = torch.randperm(len(self.rows), generator=generator).numpy()
        yield from self._batches(self.rows[order], Draw(generator, epoch, seed=seed))

    def _batches(self, rows: np.ndarray, draw: Draw | None) -> Iterator[Batch]:
        bounds = self._bounds()
        for start, end in itertools.pairwise(bounds):
            chosen = rows[start:end]
            pixels = read_rows(self.images, chosen)
            if draw is None and self.crop_px is not None:
                pixels = cut_middle(pixels, self.crop_px)
            images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)
            labels = torch.from_numpy(self.labels[chosen]).to(self.device)
            targets: Tensor = labels
            if draw is not None and self.augment is not None:
                here = replace(draw, rows=torch.from_numpy(chosen.astype(np.int64)))
                images, targets = self.augment(images, labels, here)
            yield Batch(self.standardization(images).contiguous(memory_format=self.memory_format), labels, targets)

    def _bounds(self) -> list[int]:
        """Where batches begin. A last batch of one picture joins the one before: batch normalisation needs two."""
        bounds = list(range(0, len(self.rows), self.batch_size))
        if len(bounds) > 1 and len(self.rows) - bounds[-1] == 1:
            bounds.pop()
        return [*bounds, len(self.rows)]


def cut_middle(pixels: np.ndarray, size_px: tuple[int, int]) -> np.ndarray:
    """The middle of pictures (…, H, W, C), as torchvision's centre crop takes it: of an odd rest, half to even."""
    top, left = (round((side - wanted) / 2) for side, wanted in zip(pixels.shape[-3:-1], size_px, strict=True))
    return np.ascontiguousarray(pixels[..., top : top + size_px[0], left : left + size_px[1], :])
