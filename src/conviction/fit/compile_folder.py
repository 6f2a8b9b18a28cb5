"""The folder in which torch compiles, of one process alone."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from functools import cache
from pathlib import Path

from conviction.core.errors import ConvictionError
from conviction.core.files import is_locked, locked, make_folder
from conviction.data.source.locate import cache_folder

PREFIX = "conviction-compiled-"
_LOCK = ".lock"
# What no command line of a compiler takes apart.
_PLAIN_PATH = re.compile(r"[\w/.,+@=~-]+")
# A folder this young may be about to be locked.
_YOUNG_S = 60


def folder_of_process() -> Path:
    """Removed when the process ends; those of killed ones are removed when another process begins.

    Raises: OSError where it cannot be made.
    """
    folder = _folder(os.getpid())
    if not (folder / _LOCK).exists():
        # Long-lived processes see their temporary files cleaned away.
        _folder.cache_clear()
        folder = _folder(os.getpid())
    return folder


@cache
def _folder(process: int) -> Path:
    place = _place()
    _remove_abandoned(place)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=place))
    lock = ExitStack()
    with suppress(ConvictionError, OSError):
        lock.enter_context(locked(folder / _LOCK, wait=False))

    def remove() -> None:
        # Not when a process ends that was forked from it.
        if os.getpid() == process:
            shutil.rmtree(folder, ignore_errors=True)
            lock.close()

    atexit.register(remove)
    return folder


def _place() -> str:
    """The system's temporary folder, or the cache folder where no code of the former can be loaded or compiled."""
    usual = tempfile.gettempdir()
    if _suits(usual):
        return usual
    with suppress(ConvictionError):
        make_folder(cache_folder() / "compiled")
        other = str((cache_folder() / "compiled").resolve())
        return other if _suits(other) and os.access(other, os.W_OK) else usual
    return usual


def _suits(folder: str) -> bool:
    # Not every system tells.
    no_code = getattr(os, "ST_NOEXEC", 0)
    return bool(_PLAIN_PATH.fullmatch(folder)) and not os.statvfs(folder).f_flag & no_code


def _remove_abandoned(place: str) -> None:
    """Whoever lives holds the lock of its folder."""
    for folder in Path(place).glob(f"{PREFIX}*"):
        with suppress(ConvictionError, OSError):
            about = folder.lstat()
            is_young = time.time() - about.st_mtime < _YOUNG_S
            if is_young or folder.is_symlink() or about.st_uid != os.getuid() or is_locked(folder / _LOCK):
                continue
            with locked(folder / _LOCK, wait=False) as is_abandoned:
                if is_abandoned:
                    shutil.rmtree(folder, ignore_errors=True)
