"""The files of a Hugging Face data set on disk: which there are, what their columns mean, and their rows.

Two layouts are read: what `save_to_disk` of the library `datasets` writes (Arrow streams, named by `state.json`), and
the Parquet files that data sets are published in (`data/train-00000-of-00005.parquet`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conviction.core.errors import ConvictionError, DataError, InstallationError
from conviction.data.source.base import SPLIT_WORDS, listed
from conviction.data.source.container import Directory

SAVED_SPLITS, SAVED_STATE = "dataset_dict.json", "state.json"
# train-00000-of-00005-0f3a.parquet
_NUMBERING = re.compile(r"-?\d+-of-\d+.*$")
_ROWS_AT_ONCE = 16
_MOST_SHOWN = 200


@dataclass(frozen=True)
class Shard:
    """A file of rows; `split` is the data set's own word for its part, None where it is not divided."""

    path: Path
    split: str | None


@dataclass(frozen=True)
class Columns:
    """Of a shard: its columns and their types, those that hold pictures, and the classes' names of those of labels."""

    names: tuple[str, ...]
    kinds: dict[str, str]
    images: tuple[str, ...]
    class_names: dict[str, tuple[str, ...]]


def is_data_set(folder: Path) -> bool:
    """Whether a folder was written by `save_to_disk`, or holds Parquet files."""
    saved = any((folder / name).is_file() for name in (SAVED_SPLITS, SAVED_STATE))
    return saved or (folder.is_dir() and bool(_parquet_files(folder)))


def find_shards(folder: Path) -> list[Shard]:
    """The files of a data set, part by part. Raises: DataError."""
    if (folder / SAVED_SPLITS).is_file():
        parts = _read_json(folder / SAVED_SPLITS).get("splits")
        if not isinstance(parts, list) or not parts:
            raise DataError(f"{folder / SAVED_SPLITS} names no splits. Save the data set anew.")
        return [shard for part in parts for shard in _saved(folder / _plain(part, folder / SAVED_SPLITS), part)]
    if (folder / SAVED_STATE).is_file():
        return _saved(folder, None)
    found = _published(folder)
    if not found:
        raise DataError(
            f"{folder} holds no data set: neither {SAVED_SPLITS} or {SAVED_STATE}, as save_to_disk writes them, nor "
            "Parquet files."
        )
    return found


def columns_of(shard: Shard) -> Columns:
    """Raises: DataError, InstallationError."""
    with _faults(shard.path) as pyarrow:
        if _is_parquet(shard.path):
            with pyarrow.parquet.ParquetFile(shard.path) as file:
                return _columns(file.schema_arrow)
        with pyarrow.memory_map(str(shard.path)) as source:
            return _columns(pyarrow.ipc.open_stream(source).schema)


def read_rows(shard: Shard, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The wanted columns of every row. Raises: DataError, InstallationError."""
    with _faults(shard.path) as pyarrow:
        for batch in _batches(pyarrow, shard.path, columns):
            # Reading a damaged batch unchecked may end the process.
            batch.validate(full=True)
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                yield from batch.slice(start, _ROWS_AT_ONCE).to_pylist()


def _batches(pyarrow: Any, path: Path, columns: Sequence[str]) -> Iterator[Any]:
    if _is_parquet(path):
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(_ROWS_AT_ONCE, columns=list(columns))
        return
    with pyarrow.memory_map(str(path)) as source:
        names = pyarrow.ipc.open_stream(source).schema.names
        source.seek(0)
        wanted = [number for number, name in enumerate(names) if name in columns]
        yield from pyarrow.ipc.open_stream(source, options=pyarrow.ipc.IpcReadOptions(included_fields=wanted))


def _is_parquet(path: Path) -> bool:
    return path.suffix == ".parquet"


@contextmanager
def _faults(path: Path) -> Iterator[Any]:
    """Gives pyarrow, and turns what it raises into a DataError."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InstallationError(
            f"{path}: Arrow and Parquet files are read by pyarrow, which is not installed. Install it: pip install "
            "'conviction[parquet]'."
        ) from error
    try:
        yield pyarrow
    except ConvictionError:
        raise
    except Exception as error:  # damaged bytes make the readers raise anything
        reason = str(error).partition("\n")[0][:_MOST_SHOWN]
        raise DataError(f"{path} is damaged, or no file of a data set: {reason}.") from error


def _columns(schema: Any) -> Columns:
    features = _features(schema.metadata or {})
    # Whoever wrote them, pictures are bytes, alone or beside their path.
    holding = [field.name for field in schema if _holds_bytes(field.type)]
    images = [name for name in holding if features.get(name, {}).get("_type") == "Image"] or holding
    labels = {
        name: tuple(map(str, feature.get("names") or ()))
        for name, feature in features.items()
        if feature.get("_type") == "ClassLabel"
    }
    return Columns(tuple(schema.names), {field.name: str(field.type) for field in schema}, tuple(images), labels)


def _features(metadata: dict[bytes, bytes]) -> dict[str, dict[str, Any]]:
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _holds_bytes(kind: Any) -> bool:
    import pyarrow

    if pyarrow.types.is_struct(kind):
        return any(kind.field(number).name == "bytes" for number in range(kind.num_fields))
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _saved(folder: Path, part: str | None) -> list[Shard]:
    path = folder / SAVED_STATE
    state = _read_json(path)
    if state.get("_indices_data_files"):
        raise DataError(
            f"{folder} holds a choice of rows, as version 1 of `datasets` saved it. Load it and save it again with "
            "version 2 or later."
        )
    try:
        names = [_plain(file["filename"], path) for file in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is damaged: it names no files of data. Save the data set anew.") from error
    for name in names:
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name!r}, which {SAVED_STATE} names. Copy or save the data set anew.")
    return [Shard(folder / name, part) for name in names]


def _plain(name: object, path: Path) -> str:
    """A name without folders. Raises: DataError."""
    if not isinstance(name, str) or not name or name in (".", "..") or re.search(r"[/\\\0]", name):
        raise DataError(f"{path} names {name!r}, which is no file or folder beside it: such a data set is refused.")
    return name


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or "it is no JSON"
        raise DataError(f"Cannot read {path}: {reason}.") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is damaged: it must hold an object. Save the data set anew.")
    return found


def _parquet_files(folder: Path) -> list[Path]:
    """As the folder's stamp has them: without hidden files and what desktops leave behind."""
    return [folder / name for name in Directory(folder).names()[0] if name.endswith(".parquet")]


def _published(folder: Path) -> list[Shard]:
    found = [(path, *_part_of(path, folder)) for path in _parquet_files(folder)]
    configurations = sorted({place for _, place, _ in found})
    if len(configurations) > 1:
        raise DataError(
            f"{folder} holds several data sets, {listed([str(place) for place in configurations])}, which may hold the "
            "same pictures. Name the folder of one."
        )
    return [Shard(path, part) for path, _, part in found]


def _part_of(path: Path, folder: Path) -> tuple[Path, str | None]:
    """The folder of the data set that a file belongs to, and its part: train-00000-of-00005, my-train, train/0000."""
    within = path.relative_to(folder)
    stem = _NUMBERING.sub("", path.stem)
    if not stem or stem.isdecimal():
        return (within.parent.parent, within.parent.name) if within.parent.name else (within.parent, None)
    words = [word for word in re.split(r"[-_.\s]", stem) if word.lower() in SPLIT_WORDS]
    return within.parent, words[0] if len(words) == 1 else stem
