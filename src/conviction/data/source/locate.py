"""Finding data: by path, or by name in the folders of the environment variable CONVICTION_DATA."""

from __future__ import annotations

import os
from pathlib import Path

from conviction.core.errors import DataError, nearest

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".zip")


def data_folders() -> list[Path]:
    """The folders of CONVICTION_DATA, in their order."""
    return [_expanded(part) for part in os.environ.get("CONVICTION_DATA", "").split(os.pathsep) if part]


def cache_folder() -> Path:
    """Where packs and downloads lie: CONVICTION_CACHE, or `conviction` in the user's cache folder."""
    chosen = os.environ.get("CONVICTION_CACHE")
    if chosen:
        return _expanded(chosen)
    return _expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "conviction"


def find_by_name(name: str) -> Path | None:
    """The folder or archive called `name` in the data folders, or None."""
    for folder in data_folders():
        for suffix in ("", *ARCHIVE_SUFFIXES):
            candidate = folder / f"{name}{suffix}"
            if candidate.exists():
                return candidate
    return None


def locate(path: str) -> Path:
    """The file or folder that `data.path` means.

    Raises: DataError that names the nearest thing there is.
    """
    try:
        return _located(path)
    except OSError as error:
        raise DataError(f"Cannot read {path!r}: {error.strerror}.") from error


def _located(path: str) -> Path:
    direct = _expanded(path)
    if direct.exists():
        return direct
    if not direct.is_absolute() and (found := find_by_name(path)):
        return found
    siblings = direct.parent if direct.parent.is_dir() else None
    names = [entry.name for entry in siblings.iterdir()] if siblings and direct.parent != Path() else []
    for folder in data_folders():
        if folder.is_dir():
            names += [_without_suffix(entry.name) for entry in folder.iterdir()]
    guess = nearest(direct.name, names)
    hint = f" Did you mean {guess!r}?" if guess else ""
    searched = ", ".join(map(str, data_folders())) or "none, as CONVICTION_DATA is not set"
    raise DataError(f"No file or folder {path!r}.{hint} Data folders searched for the name: {searched}.")


def _expanded(path: str) -> Path:
    """`path` with `~` resolved; left as it is where no such user has a home, unlike `Path.expanduser`."""
    return Path(os.path.expanduser(path))


def _without_suffix(name: str) -> str:
    for suffix in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True):
        if name.endswith(suffix):
            return name[: -len(suffix)]
    return name
