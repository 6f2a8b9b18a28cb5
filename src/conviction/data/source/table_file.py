"""The rows of a CSV, TSV, JSON-lines or Parquet file, each with its place, or what is wrong with the file."""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from conviction.core.errors import DataError, InstallationError, did_you_mean
from conviction.core.names import is_printable

_DELIMITERS = {".csv": ",", ".tsv": "\t", ".tab": "\t"}
_JSON_LINES = (".jsonl", ".ndjson")
TEXT_SUFFIXES = (*_DELIMITERS, *_JSON_LINES)
TABLE_SUFFIXES = (*TEXT_SUFFIXES, ".parquet")
MAX_TABLE_BYTES = 500_000_000
MAX_TEXT_LETTERS = 1000
_MOST_SHOWN = 60
_LARGEST_EXACT = 2**53
_KINDS = {bool: "true or false", dict: "an object", list: "a list", bytes: "bytes"}


@dataclass(frozen=True)
class Row:
    """`place` is where the row stands, for messages: `photos.csv, line 7`."""

    place: str
    values: dict[str, Any]


def name_fault(row: Row, **names: str) -> str:
    """Why a row cannot be trained on: which of its names cannot be shown as it is; empty where all can."""
    for what, name in names.items():
        if not is_printable(name):
            which = "its name" if what == "name" else f"its {what} {name!r}"
            return f"has unprintable characters in {which} ({row.place}): rename it"
    return ""


def read_rows(path: Path, columns: Collection[str], suffixes: Collection[str] = TABLE_SUFFIXES) -> Iterator[Row]:
    """The rows below the header, with at least the wanted `columns`; blank lines are passed over.

    Raises: DataError where the file cannot be read, or a line breaks the rules of its format; InstallationError where
    Parquet is to be read and pyarrow is not there.
    """
    suffix = path.suffix.lower()
    kind = file_mode(path)
    if stat.S_ISDIR(kind):
        raise DataError(f"{path} is a folder. Name the list itself{_lists_within(path, suffixes)}.")
    if suffix not in suffixes:
        hint = " A list of objects within one JSON document is no JSON lines: write an object a line." * (
            suffix == ".json"
        )
        raise DataError(f"{path}: lists end in {', '.join(suffixes)}, but this one in {suffix!r}.{hint}")
    if not stat.S_ISREG(kind):
        raise DataError(f"{path} is no ordinary file.")
    if suffix == ".parquet":
        return _parquet_rows(path, columns)
    text = read_text(path)
    return _json_rows(path, text) if suffix in _JSON_LINES else _separated_rows(path, text, columns)


def text_of(row: Row, column: str) -> str:
    """The value as text without blanks around it: a whole number without a point, nothing as `""`.

    Raises: DataError where the row lacks the column or holds something else than text or a number.
    """
    if column not in row.values:
        raise DataError(f"{row.place} has no {column!r}. {did_you_mean(column, row.values)}")
    value = row.values[column]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return _bounded(row, column, value).strip()
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        if not isinstance(value, int) and not math.isfinite(value):
            raise DataError(f"{row.place}: {column!r} must be text or a number, but is infinite.")
        # pandas writes whole numbers as 3.0 wherever a column has gaps; above 2⁵³ a float is no exact number.
        is_whole = isinstance(value, int) or (-_LARGEST_EXACT <= value <= _LARGEST_EXACT and value == int(value))
        return _bounded(row, column, str(int(value)) if is_whole else str(value))
    shown = _KINDS.get(type(value), type(value).__name__)
    raise DataError(f"{row.place}: {column!r} must be text or a number, but is {shown} ({cut_text(repr(value))}).")


def _bounded(row: Row, column: str, text: str) -> str:
    if len(text) > MAX_TEXT_LETTERS:
        raise DataError(
            f"{row.place}: {column!r} holds {len(text):,} letters, {cut_text(text)!r}; it has at most "
            f"{MAX_TEXT_LETTERS:,}."
        )
    return text


def check_columns(path: Path, names: list[str], columns: Collection[str]) -> None:
    """Raises: DataError where a column stands twice or a wanted one is missing."""
    named = [name for name in names if name]
    if twice := next((name for name in named if named.count(name) > 1), None):
        raise DataError(f"{path} has the column {twice!r} twice: which one is meant? Rename or remove one.")
    missing = next((column for column in columns if column not in named), None)
    if missing is None:
        return
    headless = next((name for name in named if os.path.isfile(path.parent / name)), None)
    if headless:
        raise DataError(
            f"{path} has no header: its first line holds the picture {headless!r}. Begin it with the names of the "
            f"columns, {', '.join(columns)}."
        )
    hint = _other_delimiter(path, named) or did_you_mean(missing, named)
    raise DataError(f"{path} has no column {missing!r}. {hint}")


def _lists_within(folder: Path, suffixes: Collection[str]) -> str:
    try:
        found = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in suffixes)
    except OSError:
        found = []
    return f", for example {folder / (found or ['photos.csv'])[0]}"


def file_mode(path: Path) -> int:
    """What the operating system says a path is. Raises: DataError where there is nothing."""
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        raise DataError(f"No file {path}.") from None
    except (OSError, ValueError) as error:
        raise DataError(f"Cannot read {str(path)!r}: {getattr(error, 'strerror', None) or error}.") from error


def read_text(path: Path) -> str:
    """A list's text, from UTF-8. Raises: DataError where it is no text, empty, or too large."""
    try:
        if (size := path.stat().st_size) > MAX_TABLE_BYTES:
            raise DataError(f"{path} holds {size:,} bytes; a list has at most {MAX_TABLE_BYTES:,}.")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{path} is UTF-16 text: save it as UTF-8 (in Excel: CSV UTF-8).")
    if (zero := content.find(b"\0")) >= 0:
        raise DataError(f"{path}, line {_line_at(content, zero)} holds a NUL byte: this is no text. Write it anew.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}, line {_line_at(content, error.start)} is not UTF-8 (byte 0x{content[error.start]:02X}): save the "
            "list as UTF-8."
        ) from error
    if not text.strip():
        raise DataError(f"{path} is empty. A list has a line for each picture.")
    return text


def _line_at(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


def _separated_rows(path: Path, text: str, columns: Collection[str]) -> Iterator[Row]:
    delimiter = _DELIMITERS[path.suffix.lower()]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    # A quoted field may go over several lines: the row stands where it begins.
    begins = 1
    try:
        for fields in reader:
            place = f"{path}, line {begins}"
            begins = reader.line_num + 1
            if not fields:
                continue
            if names is None:
                names = [field.strip() for field in fields]
                check_columns(path, names, columns)
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{place} has {len(fields)} field{'s' * (len(fields) != 1)} where the header has {len(names)}: "
                    f"{cut_text(delimiter.join(fields))!r}. Put a field that holds the separator in double quotes."
                )
            yield Row(place, dict(zip(names, fields, strict=True)))
    except csv.Error as error:
        advice = "A double quote within quotes is written twice"
        if "field limit" in str(error):
            advice = "Leave such a column out, or look for a double quote that is not closed"
        raise DataError(f"{path}, line {begins} is damaged: {error}. {advice}.") from error


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    # Not splitlines(): it also breaks at U+2028 and its like, which JSON leaves inside of texts.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            value = json.loads(line, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            raise DataError(f"{place} is not JSON (column {error.colno}: {error.msg}): {cut_text(line)!r}.") from error
        except (ValueError, RecursionError) as error:
            reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
            raise DataError(f"{place} cannot be used: {reason}.") from error
        if not isinstance(value, dict):
            raise DataError(
                f'{place} must hold an object, for example {{"file": "a.jpg", "label": "cat"}}, but holds '
                f"{cut_text(line)!r}."
            )
        yield Row(place, value)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the key {twice!r} stands twice")
    return dict(pairs)


def _parquet_rows(path: Path, columns: Collection[str]) -> Iterator[Row]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InstallationError(
            f"{path}: Parquet is read by pyarrow, which is not installed. Install it: pip install "
            "'conviction[parquet]'. CSV and JSON lines need nothing."
        ) from error
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_columns(path, file.schema_arrow.names, columns)
            # Data sets for other tools keep the pictures' bytes in further columns.
            found = file.read(columns=list(columns)).to_pylist()
    except DataError:
        raise
    except Exception as error:  # damaged bytes make the reader raise anything
        why = cut_text(str(error).rstrip("."), 200)
        raise DataError(f"{path} is damaged or no Parquet file: {why}.") from error
    for number, values in enumerate(found, start=1):
        yield Row(f"{path}, row {number}", values)


def _other_delimiter(path: Path, names: list[str]) -> str:
    if len(names) != 1 or path.suffix.lower() not in _DELIMITERS:
        return ""
    wanted = _DELIMITERS[path.suffix.lower()]
    other = next((sign for sign in (",", "\t", ";", "|") if sign != wanted and sign in names[0]), None)
    if other is None:
        return ""
    expected = "tabs" if wanted == "\t" else "commas"
    return f"Its columns seem to be parted by {other!r}; in a {path.suffix} they are parted by {expected}."


def cut_text(text: str, most: int = _MOST_SHOWN) -> str:
    """The text, or its beginning where it is long."""
    return text if len(text) <= most else text[: most - 1] + "…"
