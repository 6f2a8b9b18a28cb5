"""Batches of what frozen layers make of pictures, in place of the pictures."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Generator, Tensor

from conviction.core.device import sent
from conviction.data.resident import read_ahead, read_rows
from conviction.data.stream import Batch, Stream, in_memory_format

# numpy knows no bfloat16; its bits are kept as whole numbers of the same size.
BFLOAT16_BITS = np.int16
MAP_DIMENSIONS = 4


@dataclass(frozen=True)
class Activations:
    """What frozen layers make of some rows of a pack, a row for each, memory-mapped.

    `values` is (N, H, W, F) for maps of F channels, (N, F) for vectors: `float32`, or the bits of bfloat16. `rows`,
    ascending, are those of the pack.
    """

    values: np.ndarray
    rows: np.ndarray

    def of(self, rows: np.ndarray) -> Float[Tensor, "B F H W"]:
        """The activations of the pack's given rows, maps in the channels-last memory layout.

        Vectors come as maps of one position each, so that they go wherever images go.
        """
        found = torch.from_numpy(read_rows(self.values, self._places(rows)))
        if self.values.dtype == BFLOAT16_BITS:
            found = found.view(torch.bfloat16)
        if found.ndim == MAP_DIMENSIONS:
            return found.permute(0, 3, 1, 2)
        return found.reshape(*found.shape[:2], -1, 1)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Those of the pack's given rows are wanted next."""
        read_ahead(self.values, self._places(rows))

    def _places(self, rows: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.rows, rows)


def as_rows(activations: Float[Tensor, "B ..."]) -> np.ndarray:
    """Activations as they are kept: see `Activations`."""
    if activations.ndim == MAP_DIMENSIONS:
        activations = activations.permute(0, 2, 3, 1)
    activations = activations.cpu().contiguous()
    if activations.dtype == torch.bfloat16:
        return activations.view(torch.int16).numpy()
    return activations.float().numpy()


@dataclass(frozen=True)
class ActivationStream(Stream):
    """The pictures of one split as activations, in the same order and the same batches as the stream of pictures.

    A batch's `images` are the activations.

    `plain` are those of the pictures as they are. Where there are `views`, activations of augmented pictures, shuffled
    batches take these: picture i shows in epoch e the view number (`first_views[i]` + e) modulo their number.
    """

    plain: Activations | None = None
    views: tuple[Activations, ...] = ()
    first_views: np.ndarray | None = None

    def in_order(self) -> Iterator[Batch]:
        """Each picture once, unchanged, in the split's order."""
        assert self.plain is not None
        for start, end in itertools.pairwise(self.bounds()):
            batch = self._activation_batch(self.rows[start:end], self.plain.of(self.rows[start:end]))
            self.plain.read_ahead(self.rows[end : end + self.batch_size])
            yield batch

    def shuffled(self, generator: Generator, epoch: int = 1, seed: int = 0) -> Iterator[Batch]:
        """Each picture once, in random order; generator and epoch decide all of it."""
        order = torch.randperm(len(self.rows), generator=generator).numpy()
        for start, end in itertools.pairwise(self.bounds()):
            batch = self._activation_batch(self.rows[order[start:end]], self._seen(order[start:end], epoch))
            following = order[end : end + self.batch_size]
            for activations, among in self._sets(following, epoch):
                activations.read_ahead(self.rows[following[among]])
            yield batch

    def _seen(self, chosen: np.ndarray, epoch: int) -> Float[Tensor, "B F H W"]:
        sets = self._sets(chosen, epoch)
        parts = [activations.of(self.rows[chosen[among]]) for activations, among in sets]
        if len(parts) == 1:
            return parts[0]
        # Back from one view after the other to the order of the batch.
        order = np.argsort(np.concatenate([among for _, among in sets]))
        return torch.cat(parts)[torch.from_numpy(order)]

    def _sets(self, chosen: np.ndarray, epoch: int) -> list[tuple[Activations, np.ndarray]]:
        """From which activations the chosen pictures come, and which of the chosen come from there."""
        if not self.views:
            assert self.plain is not None
            return [(self.plain, np.arange(len(chosen)))]
        assert self.first_views is not None
        numbers = (self.first_views[chosen] + epoch) % len(self.views)
        return [(self.views[number], np.flatnonzero(numbers == number)) for number in np.unique(numbers)]

    def _activation_batch(self, rows: np.ndarray, activations: Float[Tensor, "B F H W"]) -> Batch:
        labels = sent(torch.from_numpy(self.labels[rows]), self.device)
        return Batch(sent(in_memory_format(activations, self.memory_format), self.device), labels, labels)
