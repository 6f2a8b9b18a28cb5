"""Activations of frozen layers in the cache folder, each set whole or absent, the longest unused removed."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from conviction.core.errors import ConvictionError, storage_faults
from conviction.core.files import locked, make_folder, write_text
from conviction.data.resident import allocate_rows, release
from conviction.data.source.locate import cache_folder

_VALUES, _ABOUT = "values.npy", "about.json"
_BUILDING_PREFIX = ".building-"
# A set may take gigabytes: these are enough for some settings tried in turn, and for a dozen views.
_MOST_KEPT = 16
_CHECKED_BYTES = 2**24

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Wanted:
    """A set of activations: the key that says what they are, and the array that holds them."""

    key: str
    shape: tuple[int, ...]
    dtype: type[np.generic]

    @property
    def num_bytes(self) -> int:
        """What it takes on the disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


class ActivationStore:
    """The folder of all sets. Raises: StorageError where it cannot be made."""

    def __init__(self) -> None:
        self.folder = cache_folder() / "frozen"
        make_folder(self.folder)
        self._in_use: set[str] = set()

    def reserve(self, keys: Iterable[str]) -> None:
        """Sets that will be asked for: while the store is there, it removes none of them, however many they are."""
        self._in_use.update(keys)

    def has(self, wanted: Wanted) -> bool:
        """Whether the set is there, whole."""
        return _opened(self.folder / wanted.key, wanted) is not None

    def kept(self, wanted: Wanted, compute: Callable[[], Iterator[np.ndarray]], progress: Progress) -> np.ndarray:
        """The set, memory-mapped; where it is not there yet, `compute` gives it, a batch of rows at a time.

        `progress` is called with the number of rows computed so far and their total.

        Raises: StorageError where the disk is full; then nothing of it stays there.
        """
        target = self.folder / wanted.key
        self.reserve([wanted.key])
        if not os.access(self.folder, os.W_OK) and (found := _opened(target, wanted, check=True)) is not None:
            # Nothing can be locked there. Whoever removes it meanwhile leaves it to those who have it mapped.
            return found
        self._remove_abandoned()
        # A second process waits here for the first one's work and then finds it.
        with locked(self._lock_path(wanted.key)):
            if (found := _opened(target, wanted, check=True)) is None:
                self._build(target, wanted, compute, progress)
                found = _opened(target, wanted)
                assert found is not None
            with suppress(OSError):
                os.utime(target)
        self._remove_longest_unused()
        return found

    def _build(
        self, target: Path, wanted: Wanted, compute: Callable[[], Iterator[np.ndarray]], progress: Progress
    ) -> None:
        building = self.folder / f"{_BUILDING_PREFIX}{wanted.key}"
        shutil.rmtree(building, ignore_errors=True)
        make_folder(building)
        try:
            values = allocate_rows(building / _VALUES, wanted.shape, wanted.dtype)
            done, checksum = 0, 0
            for rows in compute():
                values[done : done + len(rows)] = rows
                checksum = zlib.crc32(np.ascontiguousarray(rows, wanted.dtype).data, checksum)
                done += len(rows)
                release(values)
                progress(done, len(values))
            assert done == len(values)
            values.flush()
            write_text(building / _ABOUT, json.dumps({**_described(building), "crc32": checksum}))
            shutil.rmtree(target, ignore_errors=True)
            with storage_faults(target):
                os.replace(building, target)
        finally:
            shutil.rmtree(building, ignore_errors=True)

    def _lock_path(self, key: str) -> Path:
        return self.folder / f"{key}.lock"

    def _remove_abandoned(self) -> None:
        """Delete what killed processes had begun: whoever still builds holds the lock of its set."""
        for folder in self.folder.glob(f"{_BUILDING_PREFIX}*"):
            with locked(self._lock_path(folder.name.removeprefix(_BUILDING_PREFIX)), wait=False) as abandoned:
                if abandoned:
                    shutil.rmtree(folder, ignore_errors=True)

    def _remove_longest_unused(self) -> None:
        """Those that other processes have mapped stay readable to them until they end."""
        with suppress(OSError, ConvictionError):
            found = [path.parent for path in self.folder.glob(f"*/{_ABOUT}") if path.parent.name not in self._in_use]
            found.sort(key=lambda folder: folder.stat().st_mtime_ns, reverse=True)
            for folder in found[max(0, _MOST_KEPT - len(self._in_use)) :]:
                with locked(self._lock_path(folder.name), wait=False) as is_free:
                    if is_free:
                        shutil.rmtree(folder, ignore_errors=True)


def _described(folder: Path) -> dict[str, Any]:
    """What shows later whether the file is still as it was written."""
    written = (folder / _VALUES).stat()
    return {"num_bytes": written.st_size, "written_ns": written.st_mtime_ns}


def _opened(folder: Path, wanted: Wanted, check: bool = False) -> np.ndarray | None:
    """The set in `folder`; None where there is none, or it is not as it was written: `check` reads all of it."""
    try:
        about = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
        if {key: about[key] for key in _described(folder)} != _described(folder):
            return None
        values: np.ndarray = np.load(folder / _VALUES, mmap_mode="r")
        if values.shape != wanted.shape or values.dtype != wanted.dtype:
            return None
        if check and about["crc32"] != _checksum(folder / _VALUES, wanted.num_bytes):
            return None
    except (OSError, ValueError, EOFError, KeyError, TypeError):
        return None
    return values


def _checksum(path: Path, num_bytes: int) -> int:
    """Of the last so many bytes of the file, behind numpy's header; about a second for a gigabyte."""
    checksum = 0
    with path.open("rb") as file:
        file.seek(-num_bytes, os.SEEK_END)
        while part := file.read(_CHECKED_BYTES):
            checksum = zlib.crc32(part, checksum)
    return checksum
