"""A data set of the Hugging Face library `datasets` on disk: pictures and labels in Arrow or Parquet files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from conviction.core.errors import ConfigError, DataError, did_you_mean
from conviction.core.records import SplitName
from conviction.data.decode import UnreadablePicture
from conviction.data.source.arrow_file import Columns, Shard, columns_of, find_shards, is_data_set, read_rows
from conviction.data.source.base import (
    SOURCES,
    SPLIT_WORDS,
    Entry,
    Source,
    SourceConfig,
    listed,
    notes_on_classes,
    ordered_classes,
    shown_name,
)
from conviction.data.source.container import Directory
from conviction.data.source.locate import locate
from conviction.data.source.table_file import Row, name_fault, text_of

_UNDIVIDED = "rows"


class HuggingFaceConfig(SourceConfig):
    """A folder that `save_to_disk` of the library `datasets` wrote, or one of a data set's Parquet files."""

    name: Literal["hugging_face"] = "hugging_face"
    image_column: str | None = Field(None, min_length=1, description="Column of the pictures; null: the only one")
    label_column: str | None = Field(
        None, min_length=1, description="Column of the classes; null: the only one of class labels, or `label`"
    )
    group_column: str | None = Field(
        None, min_length=1, description="Column of what is never divided between splits: a person, a track, a patient"
    )

    @model_validator(mode="after")
    def _columns_differ(self) -> HuggingFaceConfig:
        named = [name for name in (self.image_column, self.label_column, self.group_column) if name is not None]
        if twice := next((name for name in named if named.count(name) > 1), None):
            raise ValueError(f"the columns of image, label and group must differ, but two are {twice!r}.")
        return self


@dataclass(frozen=True)
class _Chosen:
    """The columns to read."""

    image: str
    label: str


class HuggingFace:
    """The rows of a data set; a picture is called by its part and its number there, `train/0000012`."""

    def __init__(self, path: Path, config: HuggingFaceConfig) -> None:
        self._path, self._config = path, config
        self._folder = Directory(path)
        self._entries: list[Entry] | None = None
        self._passed_over: list[str] = []
        self._undivided: list[str] = []

    @property
    def shown_path(self) -> str:
        return shown_name(self._path)

    def stamp(self) -> str:
        return f"{self._about()} {self._folder.stamp()}"

    def digest(self) -> str:
        return f"{self._about()} {self._folder.digest()}"

    def pictures_digest(self) -> str:
        return self._folder.digest()

    def _about(self) -> list[str | None]:
        config = self._config
        return [config.image_column, config.label_column, config.group_column]

    def entries(self) -> list[Entry]:
        if self._entries is None:
            self._entries = self._find_entries()
        return self._entries

    def classes(self) -> tuple[str, ...]:
        used = {entry.label for entry in self.entries()}
        # In the order of their numbers; files that have another order have been put right.
        named = dict.fromkeys(name for shard in self._shards() for name in self._class_names(shard))
        return tuple(name for name in named if name in used) if named else ordered_classes(used)

    def notes(self) -> tuple[str, ...]:
        notes = [f"The rows of {part!r} were passed over, as this names no split." for part in self._passed_over]
        if len(self._undivided) > 1:
            notes.append(f"The parts {listed(self._undivided)} name no splits and were taken together.")
        return (*notes, *notes_on_classes(self.entries(), self.classes()))

    def read(self) -> Iterator[tuple[str, bytes | UnreadablePicture]]:
        self.entries()
        column = self._chosen().image
        for _, name, values in self._rows([column]):
            yield name, _content_of(values[column])

    def _chosen(self) -> _Chosen:
        return _choose(columns_of(self._shards()[0]), self._config, self._path)

    def _class_names(self, shard: Shard) -> tuple[str, ...]:
        return columns_of(shard).class_names.get(self._chosen().label, ())

    def _shards(self) -> list[Shard]:
        shards = find_shards(self._path)
        named = {shard.split for shard in shards if shard.split is not None}
        if not any(word.lower() in SPLIT_WORDS for word in named):
            # Parts that are no splits, such as two languages, or one part alone under any name.
            self._undivided = sorted(named)
            return [Shard(shard.path, None) for shard in shards]
        self._passed_over = sorted(word for word in named if word.lower() not in SPLIT_WORDS)
        return [shard for shard in shards if (shard.split or "").lower() in SPLIT_WORDS]

    def _rows(self, columns: list[str]) -> Iterator[tuple[Shard, str, dict[str, Any]]]:
        counts: dict[str, int] = {}
        for shard in self._shards():
            part = shard.split or _UNDIVIDED
            for values in read_rows(shard, columns):
                number = counts.get(part, 0)
                counts[part] = number + 1
                yield shard, f"{part}/{number:07d}", values

    def _find_entries(self) -> list[Entry]:
        shards = self._shards()
        chosen = self._chosen()
        group = self._config.group_column
        wanted = [chosen.label, *([group] if group else [])]
        for shard in shards:
            _check_columns(shard, [chosen.image, *wanted])
        class_names = {shard: self._class_names(shard) for shard in shards}
        entries = []
        for shard, name, values in self._rows(wanted):
            row = Row(f"{self.shown_path}, {name}", values)
            label = _label_of(row, chosen.label, class_names[shard])
            group_name = text_of(row, group) if group else ""
            fault = name_fault(row, label=label, group=group_name)
            entries.append(Entry(name, label, _split_of(name), group_name or None, fault))
        self._check(entries)
        return sorted(entries, key=lambda entry: entry.path)

    def _check(self, entries: list[Entry]) -> None:
        if not entries:
            raise DataError(f"{self._path} holds no rows.")
        if all(entry.split is not None for entry in entries) and not any(entry.split == "train" for entry in entries):
            raise DataError(f"{self._path} has no part 'train' to learn from.")
        labels = {entry.label for entry in entries}
        if len(labels) == 1:
            raise DataError(f"{self._path} holds one class only, {labels.pop()!r}; a classifier needs at least two.")


def _choose(columns: Columns, config: HuggingFaceConfig, path: Path) -> _Chosen:
    """The columns that are meant. Raises: DataError that names those to choose from."""
    image = config.image_column
    if image is None:
        if len(columns.images) != 1:
            if not columns.images:
                raise DataError(
                    f"{path}: no column holds pictures as bytes, of {listed(columns.names)}. Save the data set with a "
                    "column of the type Image."
                )
            raise DataError(
                f"{path}: columns of pictures are {listed(columns.images)}. Name the one to use: --set "
                "data.image_column=NAME"
            )
        image = columns.images[0]
    elif image in columns.names and image not in columns.images:
        raise DataError(
            f"{path}: the column {image!r} holds {columns.kinds[image]}, and not pictures as bytes. Save the data set "
            "with a column of the type Image."
        )
    label = config.label_column
    if label is None:
        candidates = tuple(columns.class_names) or tuple(name for name in columns.names if name == "label")
        if len(candidates) != 1:
            found = f"columns of labels are {listed(candidates)}" if candidates else "no column is known to hold labels"
            raise DataError(
                f"{path}: {found}, of {listed(columns.names)}. Name the one to use: --set data.label_column=NAME"
            )
        label = candidates[0]
    return _Chosen(image, label)


def _check_columns(shard: Shard, wanted: list[str]) -> None:
    names = columns_of(shard).names
    if missing := next((name for name in wanted if name not in names), None):
        raise DataError(f"{shard.path} has no column {missing!r}. {did_you_mean(missing, names)}")


def _label_of(row: Row, column: str, class_names: tuple[str, ...]) -> str:
    value = row.values[column]
    if not class_names:
        label = text_of(row, column)
    elif value is None or value == -1:
        label = ""
    elif not isinstance(value, int) or not 0 <= value < len(class_names):
        raise DataError(f"{row.place}: the label {value!r} is none of the {len(class_names)} classes' numbers.")
    else:
        label = class_names[value]
    if not label:
        raise DataError(f"{row.place} has no label ({column!r} is empty or -1). Leave such a part out of the folder.")
    return label


def _split_of(name: str) -> SplitName | None:
    return SPLIT_WORDS.get(name.split("/")[0].lower())


def _content_of(value: Any) -> bytes | UnreadablePicture:
    if isinstance(value, dict):
        path, value = value.get("path"), value.get("bytes")
        if value is None and path:
            return UnreadablePicture(f"lies outside of the data set, at {str(path)!r}: save it with its pictures")
    if isinstance(value, bytes):
        return value
    return UnreadablePicture("is no picture" if value is not None else "is missing: its row has none")


@SOURCES.register(
    "hugging_face",
    HuggingFaceConfig,
    "A data set of the library `datasets` on disk: Arrow or Parquet files with pictures",
)
def build_hugging_face(config: SourceConfig) -> Source:
    """The data set at `data.path`. Raises: ConfigError where none is given, DataError."""
    assert isinstance(config, HuggingFaceConfig)
    if not config.path:
        raise ConfigError("data.path: say where the data set is, for example --set data.path=beans")
    path = locate(config.path)
    if not is_data_set(path):
        raise DataError(
            f"{path} is no data set on disk. Save one with save_to_disk of the library `datasets`, or name a folder of "
            "its Parquet files."
        )
    return HuggingFace(path, config)
