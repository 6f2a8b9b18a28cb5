"""Memory-mapped pictures of any number, in a bounded share of memory."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from conviction.core.errors import DataError, storage_faults
from conviction.core.shares import in_shares

# A map that is smaller than this may stay in memory as a whole: CIFAR-10 takes 184 MB.
_LARGE_BYTES = 1 << 29
_CHUNK_BYTES = 1 << 24
# Rows above this are copied by all cores: one of them takes 15 µs.
_LARGE_ROW_BYTES = 1 << 16
# Sums of squares over so many pictures fit 32 bits: 255² · 256 < 2³².
_MOST_ROWS = 256


def allocate_rows(path: Path, shape: tuple[int, ...], dtype: DTypeLike) -> np.memmap:
    """A new array on disk whose room is reserved first: writing to a full disk through a map would kill the process.

    Raises: StorageError.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    with storage_faults(path, way_out=f" ({num_bytes:,} bytes are needed; CONVICTION_CACHE names the folder)"):
        rows = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with path.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    return rows


def read_rows(images: np.ndarray, rows: np.ndarray | slice) -> np.ndarray:
    """A copy of the given rows; of a large map nothing else of them stays in this process's memory."""
    if isinstance(rows, slice):
        found = np.array(images[rows])
    elif images[:1].nbytes < _LARGE_ROW_BYTES:
        found = images[rows]
    else:
        found = _read_in_threads(images, rows)
    release(images)
    return found


def _read_in_threads(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    assert len(rows) == 0 or 0 <= rows.min() <= rows.max() < len(images)
    found = np.empty((len(rows), *images.shape[1:]), images.dtype)
    if (file := _opened(images)) is None:
        # Any mode but the usual one writes to its place at once.
        in_shares(lambda share: np.take(images, rows[share], axis=0, out=found[share], mode="clip"), len(rows))
        return found
    assert isinstance(images, np.memmap)
    first_byte, row_bytes = images.offset, images[:1].nbytes

    def read(share: slice) -> None:
        for row, place in zip(rows[share].tolist(), found[share], strict=True):
            if os.preadv(file, [place], first_byte + row * row_bytes) != row_bytes:
                raise DataError(f"{images.filename} was cut off while it was read. The next start makes it anew.")

    try:
        in_shares(read, len(rows))
    finally:
        os.close(file)
    return found


def _opened(images: np.ndarray) -> int | None:
    """The file of a map as a whole, to be read without mapping its pages one by one, which takes half as long again."""
    is_whole = isinstance(getattr(images, "base", None), mmap.mmap)
    if not isinstance(images, np.memmap) or images.filename is None or not is_whole or not hasattr(os, "preadv"):
        return None
    try:
        # What lies in the place of a deleted file is another one; the map still shows the deleted.
        if not Path(images.filename).is_file():
            return None
        return os.open(images.filename, os.O_RDONLY)
    except OSError:
        return None


def read_ahead(images: np.ndarray, rows: np.ndarray) -> None:
    """Let the system fetch these rows of a large map from the disk while something else goes on.

    They come into its cache of files, and what lies there already costs a microsecond. A map that may not fit there is
    read from the disk in every epoch, a row here and a row there.
    """
    if images.nbytes < _LARGE_BYTES or not hasattr(os, "posix_fadvise") or (file := _opened(images)) is None:
        return
    assert isinstance(images, np.memmap)
    first_byte, row_bytes = images.offset, images[:1].nbytes
    try:
        for row in rows.tolist():
            os.posix_fadvise(file, first_byte + row * row_bytes, row_bytes, os.POSIX_FADV_WILLNEED)
    finally:
        os.close(file)


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
