"""Batches: rows of a pack, shuffled, augmented and standardised."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Generator, Tensor

from conviction.core.device import sent
from conviction.data.on_device import OnDevice
from conviction.data.resident import read_ahead, read_rows
from conviction.data.standardize import Standardizer


@dataclass(frozen=True)
class Share:
    """What one of several processes takes of every batch: consecutive images, as many as the others or one less."""

    rank: int
    num_processes: int

    def of(self, num_images: int) -> slice:
        """Its part of so many images; empty where there are fewer of them than processes."""
        first, last = (num_images * (self.rank + step) // self.num_processes for step in (0, 1))
        return slice(first, last)


@dataclass(frozen=True)
class Place:
    """Which images of a batch a process has, and how many there are in all."""

    part: slice
    num_images: int


@dataclass(frozen=True)
class Draw:
    """The occasion on which a batch is augmented: where its random numbers come from, the epoch, its rows, the seed.

    `generator` is each epoch's own; `seed` is the run's, for what holds through all of its epochs. Draws are for all
    rows of the batch; `part` says which of them the images at hand are, where they are not all.
    """

    generator: Generator
    epoch: int = 1
    rows: Int64[Tensor, " B"] | None = None
    seed: int = 0
    part: slice | None = None


Pixels = TypeVar("Pixels", np.ndarray, Tensor)
Targets = Int64[Tensor, " B"] | Float[Tensor, "B K"]
# Where its attribute `divides` is true, it draws for all of `draw.rows`, and gets and changes those of `draw.part`.
Augment = Callable[[UInt8[Tensor, "B C H W"], Int64[Tensor, " B"], Draw], tuple[UInt8[Tensor, "B C H2 W2"], Targets]]


@dataclass(frozen=True)
class Batch:
    """Images, in the memory format of their stream, their labels, and what to train them towards.

    `targets` are the labels, or shares of classes where images were mixed. `place` says which images
    of a batch these are where several processes share it.
    """

    images: Float[Tensor, "B C H W"]
    labels: Int64[Tensor, " B"]
    targets: Targets
    place: Place | None = None


@dataclass(frozen=True)
class Stream:
    """The pictures of one split, a batch at a time.

    `images` is `uint8` (N, H, W, C), `labels` `int64` (N); `rows` says which of them belong to this split. `augment`
    changes images and labels where they are shuffled; where they are not, `crop_px` (height, width) is cut from their
    middle. Pictures that are `on_device` already are taken from there. With a `share`, shuffled batches are parts of
    those that a single process would see: drawn and augmented for the whole batch, so that the numbers are the same.
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
    share: Share | None = None
    on_device: OnDevice | None = None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_batches(self) -> int:
        """The number of batches of one pass."""
        return len(self.bounds()) - 1

    def in_order(self) -> Iterator[Batch]:
        """Each picture once, unchanged, in the split's order."""
        yield from self._batches(self.rows, None)

    def shuffled(self, generator: Generator, epoch: int = 1, seed: int = 0) -> Iterator[Batch]:
        """Each picture once, in random order, augmented; generator, epoch and the run's seed decide all of it."""
        order = torch.randperm(len(self.rows), generator=generator).numpy()
        yield from self._batches(self.rows[order], Draw(generator, epoch, seed=seed))

    def _batches(self, rows: np.ndarray, draw: Draw | None) -> Iterator[Batch]:
        for start, end in itertools.pairwise(self.bounds()):
            part = slice(0, end - start) if draw is None or self.share is None else self.share.of(end - start)
            batch = self._batch(rows[start:end], part, draw)
            if self.on_device is None:
                read_ahead(self.images, rows[end : end + self.batch_size])
            yield batch

    def _batch(self, rows: np.ndarray, part: slice, draw: Draw | None) -> Batch:
        # Few operations know what to do with no image at all: instead of none, one is read, and left out at the end.
        kept = slice(part.start, max(part.stop, part.start + 1))
        whole = slice(0, len(rows))
        read = kept if self.augment is None or getattr(self.augment, "divides", False) else whole
        if self.on_device is not None:
            pixels = self.on_device.of(rows[read])
        else:
            pixels = sent(torch.from_numpy(read_rows(self.images, rows[read])), self.device)
        if draw is None and self.crop_px is not None:
            pixels = cut_middle(pixels, self.crop_px)
        images = pixels.permute(0, 3, 1, 2)
        labels = sent(torch.from_numpy(self.labels[rows[read]]), self.device)
        targets: Tensor = labels
        if draw is not None and self.augment is not None:
            numbers = torch.from_numpy(rows.astype(np.int64))
            images, targets = self.augment(images, labels, replace(draw, rows=numbers, part=read))
        if read != kept:
            images, labels, targets = images[kept], labels[kept], targets[kept]
        standardized = in_memory_format(self.standardization(images), self.memory_format)
        if part.start == part.stop:
            standardized, labels, targets = standardized[:0], labels[:0], targets[:0]
        return Batch(standardized, labels, targets, None if self.share is None else Place(part, len(rows)))

    def bounds(self) -> list[int]:
        """Where batches begin. A last batch of one picture joins the one before: batch normalisation needs two."""
        bounds = list(range(0, len(self.rows), self.batch_size))
        if len(bounds) > 1 and len(self.rows) - bounds[-1] == 1:
            bounds.pop()
        return [*bounds, len(self.rows)]


def in_memory_format(images: Float[Tensor, "B C H W"], memory_format: torch.memory_format) -> Float[Tensor, "B C H W"]:
    """The images in this format, seen by their strides also where they have one channel.

    Those of one channel lie in memory alike in both formats, and torch decides by the strides how it computes.
    """
    images = images.contiguous(memory_format=memory_format)
    if images.shape[1] != 1:
        return images
    # A view of one dimension gets the strides of its new shape.
    plain = images.as_strided((images.numel(),), (1,)).view(images.shape)
    return (
        plain
        if memory_format == torch.contiguous_format
        else plain.view(len(images), *images.shape[2:], 1).permute(0, 3, 1, 2)
    )


def cut_middle(pixels: Pixels, size_px: tuple[int, int]) -> Pixels:
    """The middle of pictures (…, H, W, C), as torchvision's centre crop takes it: of an odd rest, half to even."""
    top, left = (round((side - wanted) / 2) for side, wanted in zip(pixels.shape[-3:-1], size_px, strict=True))
    cut = pixels[..., top : top + size_px[0], left : left + size_px[1], :]
    return cut.contiguous() if isinstance(cut, Tensor) else np.ascontiguousarray(cut)
