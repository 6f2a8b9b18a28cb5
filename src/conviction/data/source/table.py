"""A list of picture files and their labels: CSV, TSV, JSON lines or Parquet, beside the pictures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from conviction.core.errors import ConfigError, DataError, did_you_mean
from conviction.core.records import SplitName
from conviction.data.decode import UnreadablePicture
from conviction.data.source.base import (
    SOURCES,
    SPLIT_WORDS,
    Entry,
    Source,
    SourceConfig,
    file_digest,
    file_stamp,
    listed,
    notes_on_classes,
    ordered_classes,
    shown_name,
)
from conviction.data.source.container import Directory
from conviction.data.source.locate import locate
from conviction.data.source.table_file import Row, name_fault, read_rows, text_of


class TableConfig(SourceConfig):
    """A `.csv`, `.tsv`, `.jsonl` or `.parquet` list whose paths begin at its own folder."""

    name: Literal["table"] = "table"
    file_column: str = Field("file", min_length=1, description="Column of the pictures' paths, from the list's folder")
    label_column: str = Field("label", min_length=1, description="Column of the classes")
    split_column: str | None = Field(
        None,
        min_length=1,
        description="Column of the splits: train, validation, test; where it is empty, the picture is not placed",
    )
    group_column: str | None = Field(
        None, min_length=1, description="Column of what is never divided between splits: a person, a track, a patient"
    )

    @model_validator(mode="after")
    def _columns_differ(self) -> TableConfig:
        columns = self.columns()
        if twice := next((name for name in columns if columns.count(name) > 1), None):
            raise ValueError(f"the columns of file, label, split and group must differ, but two are {twice!r}.")
        return self

    def columns(self) -> list[str]:
        """The columns that are read."""
        return [
            column
            for column in (self.file_column, self.label_column, self.split_column, self.group_column)
            if column is not None
        ]


class Table:
    """The pictures of a list, in the folder that the list lies in. Links are followed, as in class folders."""

    def __init__(self, path: Path, config: TableConfig) -> None:
        self._path = path
        self._config = config
        self._folder = Directory(path.parent)
        self._entries: list[Entry] | None = None

    @property
    def shown_path(self) -> str:
        return shown_name(self._path)

    def stamp(self) -> str:
        files = self._folder.stamp_of(entry.path for entry in self.entries())
        return f"{file_stamp(self._path)} {self._config.columns()} {files}"

    def digest(self) -> str:
        about = f"{self._path.suffix.lower()} {self._config.columns()} {file_digest(self._path)}"
        return self._folder.digest_of((entry.path for entry in self.entries()), about)

    def pictures_digest(self) -> str:
        return self._folder.digest_of((entry.path for entry in self.entries()), "")

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = _entries_of(self._path, self._config)
        return self._entries

    def classes(self) -> tuple[str, ...]:
        return ordered_classes({entry.label for entry in self.entries()})

    def notes(self) -> tuple[str, ...]:
        return tuple(notes_on_classes(self.entries(), self.classes()))

    def read(self) -> Iterator[tuple[str, bytes | UnreadablePicture]]:
        yield from self._folder.read({entry.path for entry in self.entries()})


def _entries_of(path: Path, config: TableConfig) -> list[Entry]:
    places: dict[str, str] = {}
    entries: dict[str, Entry] = {}
    for row in read_rows(path, config.columns()):
        entry = _entry_of(row, config)
        if former := entries.get(entry.path):
            _refuse_repeat(former, places[entry.path], entry, row)
        entries[entry.path] = entry
        places[entry.path] = row.place
    if not entries:
        raise DataError(f"{path} lists no pictures: there is nothing below its header.")
    _check_files(path, list(entries))
    _check_splits(path, entries, places, config)
    counts = Counter(entry.label for entry in entries.values())
    if len(counts) == 1:
        raise DataError(f"{path} holds one class only, {next(iter(counts))!r}; a classifier needs at least two.")
    return [entries[name] for name in sorted(entries)]


def _entry_of(row: Row, config: TableConfig) -> Entry:
    name = _clean_path(row, text_of(row, config.file_column), config.file_column)
    label = text_of(row, config.label_column)
    if not label:
        raise DataError(f"{row.place}: {name!r} has no label ({config.label_column!r} is empty). Fill it in.")
    group = text_of(row, config.group_column) if config.group_column else ""
    fault = name_fault(row, name=name, label=label, group=group)
    return Entry(name, label, _split_of(row, config), group or None, fault)


def _clean_path(row: Row, name: str, column: str) -> str:
    """The path with single slashes, below the list's folder. Raises: DataError."""
    if not name:
        raise DataError(f"{row.place} names no file ({column!r} is empty). Fill it in, or remove the line.")
    # As in archives: lists written on Windows part folders by backslashes.
    shown = name.replace("\\", "/")
    if shown.startswith("/") or (shown[:1].isalpha() and shown[1:2] == ":"):
        raise DataError(f"{row.place} has the absolute path {name!r}. Write it from the list's own folder.")
    parts = [part for part in shown.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise DataError(
            f"{row.place}: {name!r} climbs out of the list's folder. Put the list into the folder that holds all "
            "pictures."
        )
    if not parts:
        raise DataError(f"{row.place}: {name!r} is the list's own folder, not a picture.")
    return "/".join(parts)


def _split_of(row: Row, config: TableConfig) -> SplitName | None:
    word = text_of(row, config.split_column) if config.split_column else ""
    if not word:
        return None
    if word.lower() not in SPLIT_WORDS:
        raise DataError(f"{row.place}: no split is called {word!r}. {did_you_mean(word, SPLIT_WORDS)}")
    return SPLIT_WORDS[word.lower()]


def _refuse_repeat(former: Entry, place: str, entry: Entry, row: Row) -> None:
    if former.label != entry.label:
        raise DataError(
            f"{row.place} calls {entry.path!r} {entry.label!r}, but {place} calls it {former.label!r}: a picture has "
            "one label. Remove one of the two lines."
        )
    raise DataError(
        f"{row.place} lists {entry.path!r} again, with the same label, {entry.label!r}, as {place}. Remove one of the "
        "two lines."
    )


def _check_files(path: Path, names: list[str]) -> None:
    """Raises: DataError where files are not there; a link that leads nowhere counts as an unreadable picture."""
    missing = [name for name in names if not os.path.lexists(path.parent / name)]
    if missing:
        raise DataError(
            f"{path}: {len(missing):,} of {len(names):,} files are not there: {listed(missing)}. Paths begin at the "
            f"list's folder, {path.parent}. Bring the files, or remove their lines."
        )


def _check_splits(path: Path, entries: dict[str, Entry], places: dict[str, str], config: TableConfig) -> None:
    placed = [entry for entry in entries.values() if entry.split is not None]
    if len(placed) == len(entries) and not any(entry.split == "train" for entry in placed):
        raise DataError(f"{path} places no picture in the training split ({config.split_column!r}). Place some there.")
    first: dict[str, Entry] = {}
    for entry in placed:
        if entry.group is None:
            continue
        former = first.setdefault(entry.group, entry)
        if former.split != entry.split:
            raise DataError(
                f"The group {entry.group!r} is divided: {places[former.path]} places it in {former.split}, and "
                f"{places[entry.path]} in {entry.split}. A group belongs to one split."
            )


@SOURCES.register("table", TableConfig, "A list of picture files and labels: CSV, TSV, JSON lines or Parquet")
def build_table(config: SourceConfig) -> Source:
    """The list at `data.path`. Raises: ConfigError where none is given, DataError."""
    assert isinstance(config, TableConfig)
    if not config.path:
        raise ConfigError("data.path: say where the list is, for example --set data.path=photos/list.csv")
    return Table(locate(config.path), config)
