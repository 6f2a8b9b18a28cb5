"""Pictures in class folders, with or without train / validation / test folders on top; a directory or an archive."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from conviction.core.errors import ConfigError, DataError
from conviction.core.names import is_printable
from conviction.data.decode import UnreadablePicture
from conviction.data.source.base import (
    SOURCES,
    SPLIT_WORDS,
    Entry,
    Source,
    SourceConfig,
    listed,
    notes_on_classes,
    shown_name,
)
from conviction.data.source.container import Container, is_clutter, open_container
from conviction.data.source.locate import locate


class FolderConfig(SourceConfig):
    """A directory, `.tar`, `.tar.gz`, `.tar.xz` or `.zip` of class folders."""

    name: Literal["folder"] = "folder"


class Folder:
    """Class folders in a container.

    Files outside class folders, hidden files and what desktops leave behind are passed over.
    """

    def __init__(self, container: Container) -> None:
        self._container = container
        self._entries: list[Entry] | None = None
        self._stored_names: dict[str, str] = {}
        self._num_outside = 0

    @property
    def shown_path(self) -> str:
        return shown_name(self._container.path)

    def stamp(self) -> str:
        return self._container.stamp()

    def digest(self) -> str:
        return self._container.digest()

    def pictures_digest(self) -> str:
        self.entries()
        return self._container.digest_of(sorted(self._stored_names), "")

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = self._find_entries()
        return self._entries

    def classes(self) -> tuple[str, ...]:
        return tuple(sorted({entry.label for entry in self.entries()}))

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self._num_outside:
            was = "file outside class folders was" if self._num_outside == 1 else "files outside class folders were"
            notes.append(f"{self._num_outside:,} {was} passed over.")
        return (*notes, *notes_on_classes(self.entries(), self.classes()))

    def read(self) -> Iterator[tuple[str, bytes | UnreadablePicture]]:
        self.entries()
        for stored, content in self._container.read(set(self._stored_names)):
            yield self._stored_names[stored], content

    def _find_entries(self) -> list[Entry]:
        root = self._container.path
        files, folders = self._container.names()
        stored = {name: tuple(name.split("/")) for name in files if not _has_clutter(name)}
        branches = {tuple(name.split("/")) for name in folders if not _has_clutter(name)}
        branches |= {parts[:end] for parts in stored.values() for end in range(1, len(parts))}
        depth = _wrapping_depth(set(stored.values()), branches)
        inner = {name: parts[depth:] for name, parts in stored.items()}
        branches = {parts[depth:] for parts in branches if len(parts) > depth}
        top = {parts[0] for parts in branches}
        split_of = {name: SPLIT_WORDS[name.lower()] for name in top if name.lower() in SPLIT_WORDS}
        if "train" not in split_of.values():
            if len(split_of) == len(top) > 0 and all(len(parts) > 2 for parts in inner.values() if len(parts) > 1):
                raise DataError(f"{root} has the folders {listed(sorted(top))}, but no folder 'train' to learn from.")
            split_of = {}
        elif len(split_of) < len(top):
            odd = sorted(top - set(split_of))[0]
            raise DataError(
                f"{root} has the folder {odd!r} beside {sorted(split_of)[0]!r}: put class folders either all below "
                "train / validation / test folders, or all on top (a class of that name needs another one)."
            )
        level = 1 if split_of else 0
        entries = []
        for name, parts in inner.items():
            if len(parts) < level + 2:
                self._num_outside += 1
                continue
            path = "/".join(parts)
            self._stored_names[name] = path
            fault = "" if is_printable(path) else "has unprintable characters in its name: rename it"
            entries.append(Entry(path, parts[level], split_of.get(parts[0]) if split_of else None, fault=fault))
        self._check(entries, {parts[level] for parts in branches if len(parts) > level})
        return sorted(entries, key=lambda entry: entry.path)

    def _check(self, entries: list[Entry], class_folders: set[str]) -> None:
        root = self._container.path
        if not class_folders:
            raise DataError(
                f"{root} holds no class folders. Put the pictures of each class into a folder of its own, "
                "for example photos/cat/1.jpg and photos/dog/2.jpg."
            )
        counts = Counter(entry.label for entry in entries)
        empty = sorted(class_folders - set(counts))
        if empty:
            raise DataError(f"{root}: no pictures in the class folder {listed(empty)}. Fill it or remove it.")
        if len(counts) == 1:
            raise DataError(f"{root} holds one class only, {next(iter(counts))!r}; a classifier needs at least two.")


def _has_clutter(path: str) -> bool:
    return any(map(is_clutter, path.split("/")))


def _wrapping_depth(files: set[tuple[str, ...]], folders: set[tuple[str, ...]]) -> int:
    """How many single folders stand around everything, as `name/` does in an archive `name.tar`."""
    depth = 0
    while True:
        tops = {parts[depth] for parts in folders if len(parts) > depth}
        loose = any(len(parts) == depth + 1 for parts in files)
        nested = any(len(parts) > depth + 1 for parts in folders)
        only = next(iter(tops)) if len(tops) == 1 else None
        if only is None or loose or not nested or only.lower() in SPLIT_WORDS:
            return depth
        depth += 1


@SOURCES.register(
    "folder", FolderConfig, "Pictures in class folders: a directory or an archive (tar, tar.gz, tar.xz, zip)"
)
def build_folder(config: SourceConfig) -> Source:
    """The class folders at `data.path`. Raises: ConfigError where none is given, DataError."""
    if not config.path:
        raise ConfigError("data.path: say where the class folders are, for example --set data.path=photos")
    return Folder(open_container(locate(config.path)))


def open_class_folders(path: Path) -> Folder:
    """Class folders at a known place, for sources that accept them beside their own format."""
    return Folder(open_container(path))
