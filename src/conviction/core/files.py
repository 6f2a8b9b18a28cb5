"""Files that are either whole or absent, whatever kills the process."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from conviction.core.errors import RunError, storage_faults

TEMPORARY_PREFIX = ".writing-"
LOCK_TRIES = 20
LOCK_PAUSE_S = 0.01


def make_folder(path: Path) -> None:
    """Create `path` and what leads to it.

    Raises: StorageError where the operating system refuses.
    """
    with storage_faults(path):
        path.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then move it there in one step, safely on disk.

    Raises: StorageError where the disk is full or the folder is read-only; `path` keeps what it held.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{secrets.token_hex(4)}-{path.name}")
    try:
        with storage_faults(path):
            write(temporary)
            _flush_to_disk(temporary)
            temporary.replace(path)
            _flush_to_disk(path.parent)
    finally:
        # A read-only file system refuses even to delete what was never written, which would hide the first error.
        with suppress(OSError):
            temporary.unlink()


def write_bytes(path: Path, content: bytes) -> None:
    """Replace `path` by `content` atomically. Raises: StorageError."""

    def write(temporary: Path) -> None:
        temporary.write_bytes(content)

    write_atomically(path, write)


def write_text(path: Path, text: str) -> None:
    """Replace `path` by `text` atomically. Raises: StorageError."""
    write_atomically(path, lambda temporary: _write_text(temporary, text))


def write_json(path: Path, value: Any) -> None:
    """Replace `path` by `value` as JSON, atomically. Raises: StorageError."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The value in a JSON file.

    Raises: RunError where the file is absent or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path} is missing: the folder {path.parent} is not a whole run.") from None
    except (ValueError, RecursionError, OSError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold the lock file `path`; yields False where another process has it and `wait` is false.

    The operating system lets go of the lock when the process ends, kill -9 included.
    """
    with storage_faults(path):
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    owner = os.getpid()
    taken = False
    try:
        if wait:
            fcntl.flock(handle, fcntl.LOCK_EX)
        taken = wait or _lock_at_once(handle)
        yield taken
    finally:
        # A forked data worker shares the lock and may outlive the block, so that closing alone would not let go.
        if taken and os.getpid() == owner:
            fcntl.flock(handle, fcntl.LOCK_UN)
        os.close(handle)


def _lock_at_once(handle: int) -> bool:
    # `is_locked` holds the lock for an instant: a single try would take a look from outside for a second training.
    for _ in range(LOCK_TRIES):
        with suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        time.sleep(LOCK_PAUSE_S)
    return False


def is_locked(path: Path) -> bool:
    """Whether a living process holds the lock file `path`."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that a killed process left in `folder`."""
    # The second pattern is safetensors' own: it too writes beside its target first.
    for pattern in (f"{TEMPORARY_PREFIX}*", ".tmp*"):
        for leftover in folder.glob(pattern):
            leftover.unlink(missing_ok=True)


def _write_text(path: Path, text: str) -> None:
    # A file name that is no UTF-8 reaches Python as lone surrogates, and their escape is what JSON reads back.
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _flush_to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
