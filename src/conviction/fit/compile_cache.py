"""The folder in which torch keeps what it compiles, so that later trainings need not compile it again.

A library that lost its end kills whoever loads it, and no exception tells of it. So the sizes and checksums of whole
ones are kept beside them, and others are removed before torch can find them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import torch

from conviction.core.errors import ConvictionError, StorageError
from conviction.core.files import locked, make_folder, read_json, write_json
from conviction.data.source.locate import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_TRITON_VARIABLE = "TRITON_CACHE_DIR"
_SUMS, _LOCK = "libraries.json", ".lock"
_LIBRARIES = {".so", ".dylib", ".pyd"}


def use_cache_folder(device: torch.device) -> Path | None:
    """Let torch keep what it compiles in our cache folder, which one process at a time has.

    Others, and who cannot write there, have a folder until they end. Returns ours where it held anything when this
    process came to it. Who set torch's own variable knows better.
    """
    if device.type == "cpu":
        # Processes that would compile for a GPU.
        os.environ.setdefault("TORCH_WARM_POOL", "0")
    folder = _kept_folder()
    # A process that holds it may leave the variable to those that it starts.
    if os.environ.get(_VARIABLE, str(folder)) == str(folder) and _holding.folder != folder:
        if _holding.take(folder):
            os.environ[_VARIABLE] = str(folder)
            _remove_untrusted_libraries(folder)
        else:
            os.environ[_VARIABLE] = _temporary_folder()
    return folder if _holding.folder == folder and _holding.had_files else None


def remember_libraries() -> None:
    """What lies in our cache folder now is whole, as no other process writes there."""
    folder = _kept_folder()
    if _holding.folder == folder and os.environ.get(_VARIABLE) == str(folder):
        # Where that fails, they are compiled again.
        with suppress(OSError, ConvictionError):
            write_json(folder / _SUMS, {str(path.relative_to(folder)): _sum_of(path) for path in _libraries(folder)})


@contextmanager
def replacing_damaged(folder: Path) -> Iterator[None]:
    """An empty folder for torch. Where the block succeeds, it stays, and what `folder` holds goes: it was at fault."""
    triton = os.environ.get(_TRITON_VARIABLE, "")
    if Path(triton).is_relative_to(folder):
        # Derived by torch from the other, once.
        del os.environ[_TRITON_VARIABLE]
    os.environ[_VARIABLE] = _temporary_folder()
    try:
        yield
    except BaseException:
        os.environ[_VARIABLE] = str(folder)
        if triton:
            os.environ[_TRITON_VARIABLE] = triton
        raise
    finally:
        # Once is enough to try.
        _holding.had_files = False
    # What cannot be removed is found again, and tried again, by the next process.
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink()


class _Holding:
    """Which folder this process has for itself, until it ends."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self.had_files = False
        self._lock = ExitStack()

    def take(self, folder: Path) -> bool:
        """Whether nobody else has it, and it can be written."""
        self.release()
        try:
            make_folder(folder)
            is_free = os.access(folder, os.W_OK) and self._lock.enter_context(locked(folder / _LOCK, wait=False))
            self.had_files = any(path.name != _LOCK for path in folder.iterdir())
        except (StorageError, OSError):
            is_free = False
        self.folder = folder if is_free else None
        return is_free

    def release(self) -> None:
        """Let others have it."""
        self._lock.close()
        self.folder, self.had_files = None, False


_holding = _Holding()


def _kept_folder() -> Path:
    return cache_folder() / "compiled"


def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="conviction-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_untrusted_libraries(folder: Path) -> None:
    """Those that are not as they were when they were whole; torch compiles them again."""
    known: object = None
    with suppress(OSError, ConvictionError, ValueError):
        known = read_json(folder / _SUMS)
    known = known if isinstance(known, dict) else {}
    for path in _libraries(folder):
        with suppress(OSError):
            if known.get(str(path.relative_to(folder))) != _sum_of(path):
                path.unlink()


def _libraries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in _LIBRARIES and path.is_file())


def _sum_of(library: Path) -> list[int]:
    content = library.read_bytes()
    return [len(content), zlib.crc32(content)]
