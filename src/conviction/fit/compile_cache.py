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
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from conviction.core.errors import ConvictionError, StorageError
from conviction.core.files import make_folder, read_json, write_json
from conviction.data.source.locate import cache_folder

_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_SUMS = "libraries.json"
_LIBRARIES = {".so", ".dylib", ".pyd"}


def use_cache_folder(device: torch.device) -> Path | None:
    """Let torch keep what it compiles in our cache folder; where that cannot be written, until this process ends.

    Returns the folder where it holds anything of before. Who set torch's own variable knows better.
    """
    if device.type == "cpu":
        # Processes that would compile for a GPU.
        os.environ.setdefault("TORCH_WARM_POOL", "0")
    folder = cache_folder() / "compiled"
    if _VARIABLE not in os.environ:
        try:
            make_folder(folder)
            is_writable = os.access(folder, os.W_OK)
        except StorageError:
            is_writable = False
        if is_writable:
            os.environ[_VARIABLE] = str(folder)
            _remove_unknown_libraries(folder)
        else:
            os.environ[_VARIABLE] = _temporary_folder()
    is_ours = os.environ[_VARIABLE] == str(folder)
    return folder if is_ours and any(folder.iterdir()) else None


def remember_libraries() -> None:
    """What lies in our cache folder now is whole."""
    folder = cache_folder() / "compiled"
    if os.environ.get(_VARIABLE) == str(folder):
        # Where that fails, they are compiled again.
        with suppress(OSError, ConvictionError):
            write_json(folder / _SUMS, {str(path.relative_to(folder)): _sum_of(path) for path in _libraries(folder)})


@contextmanager
def instead_of(folder: Path) -> Iterator[None]:
    """Another, empty folder for torch, which stays where the block succeeds: then what was in `folder` was at fault."""
    os.environ[_VARIABLE] = _temporary_folder()
    try:
        yield
    except BaseException:
        os.environ[_VARIABLE] = str(folder)
        raise
    shutil.rmtree(folder, ignore_errors=True)


def _temporary_folder() -> str:
    folder = tempfile.mkdtemp(prefix="conviction-compiled-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _remove_unknown_libraries(folder: Path) -> None:
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
