"""Memory-mapped pictures of any number, in a bounded share of memory."""

from __future__ import annotations

import mmap

import numpy as np

# A map that is smaller than this may stay in memory as a whole: CIFAR-10 takes 184 MB.
_LARGE_BYTES = 1 << 29
_CHUNK_BYTES = 1 << 24
# Sums of squares over so many pictures fit 32 bits: 255² · 256 < 2³².
_MOST_ROWS = 256


def read_rows(images: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """A copy of the given rows; of a large map nothing else of them stays in this process's memory."""
    found = np.array(images[rows], copy=isinstance(rows, slice))
    release(images)
    return found


def rows_at_once(images: np.ndarray) -> int:
    """How many rows to read in one go: 256 where they are small, few where they are large."""
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES // max(1, images[:1].nbytes)))


def release(images: np.ndarray) -> None:
    """Let go of the pages of a large memory map, read or written.

    Otherwise every page that was touched counts as this process's own until memory is short. They stay in the system's
    cache of files, from which the next reading has them without the disk.
    """
    mapped = getattr(images, "_mmap", None)
    if isinstance(mapped, mmap.mmap) and images.nbytes >= _LARGE_BYTES and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
