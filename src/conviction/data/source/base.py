"""What every source of pictures offers, and the registry of sources."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from pydantic import BeforeValidator, Field

from conviction.core.config import Config
from conviction.core.errors import DataError
from conviction.core.records import SplitName
from conviction.core.registry import Registry
from conviction.data.decode import UnreadablePicture

# Pillow itself warns from 89,478,485 pixels on.
MOST_PIXELS = 89_000_000

SPLIT_WORDS: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_MOST_SHOWN = 100

MOST_SIDE_PX = 8192
SidePx = Annotated[int, Field(ge=1, le=MOST_SIDE_PX)]


def _square(value: object) -> object:
    if not isinstance(value, int) or isinstance(value, bool):
        return value
    if not 1 <= value <= MOST_SIDE_PX:
        raise ValueError(f"must be from 1 to {MOST_SIDE_PX}, but got {value}.")
    return [value, value]


@dataclass(frozen=True)
class KnownPictures:
    """What is known of a published set without looking at it; `num_training` counts its training part undivided."""

    size_px: tuple[int, int]
    num_classes: int
    num_training: int
    has_test: bool = True


class SourceConfig(Config):
    """Settings that every source shares: how a picture becomes an array."""

    known: ClassVar[KnownPictures | None] = None
    name: str
    path: str | None = Field(
        None, description="File or folder, or a name to look for in the folders of CONVICTION_DATA"
    )
    color: Literal["rgb", "grey"] = Field("rgb", description="Three channels, or one")
    image_size_px: Annotated[tuple[SidePx, SidePx] | None, BeforeValidator(_square)] = Field(
        None, description="Height and width that every picture is brought to, one number for both; null: as they are"
    )
    resize: Literal["crop", "squash"] = Field(
        "crop", description="crop: keep the proportions and cut the middle out; squash: change the proportions"
    )
    unreadable: Literal["refuse", "skip"] = Field(
        "refuse", description="What to do about damaged, animated or oversized pictures"
    )
    max_image_pixels: int = Field(50_000_000, ge=1, le=MOST_PIXELS, description="A larger picture counts as unreadable")


@dataclass(frozen=True)
class Entry:
    """One picture: its path within the source, its class, and its split where the source places it.

    Pictures of one `group` (a person, a track, a patient) are never divided between splits. `fault` is why nothing is
    trained on it, whatever is in it: the end of a sentence that begins with its path.
    """

    path: str
    label: str
    split: SplitName | None
    group: str | None = None
    fault: str = ""


# An encoded file, a `uint8` array (H, W, C), or why there is neither.
Content = bytes | np.ndarray | UnreadablePicture


@runtime_checkable
class Source(Protocol):
    """Pictures with labels, read in whatever order they are stored in."""

    @property
    def shown_path(self) -> str:
        """The name of the file or folder, for records and messages."""

    def stamp(self) -> str:
        """Cheap to get, and different whenever the content may have changed (sizes, times)."""

    def digest(self) -> str:
        """Different whenever the content is, and the same for an equal copy."""

    def pictures_digest(self) -> str:
        """As `digest`, of the pictures' files alone: whatever lies beside them, and whatever is said of them."""

    def entries(self) -> list[Entry]:
        """All pictures, sorted by path. Raises: DataError."""

    def classes(self) -> tuple[str, ...]:
        """The union of the classes over all splits, in the order of their labels."""

    def notes(self) -> tuple[str, ...]:
        """What a person should know about this source, a sentence each."""

    def read(self) -> Iterator[tuple[str, Content]]:
        """Path and content of every entry, in storage order."""


SOURCES: Registry[Callable[[SourceConfig], Source]] = Registry("data source")


def open_source(config: SourceConfig) -> Source:
    """The source that a recipe's `data` means. Raises: DataError where it cannot be found."""
    return SOURCES[config.name].build(config)


def shown_name(path: Path) -> str:
    """The last name of a path, for `.` and `..` too."""
    return path.resolve().name if path.name in ("", "..") else path.name


def refuse_faults(shown_path: str, entries: Sequence[Entry]) -> None:
    """Raises: DataError where nothing is to be trained on one of the entries."""
    for entry in entries:
        if entry.fault:
            raise DataError(f"{shown_path} holds {entry.path!r}, which {entry.fault}.")


def ordered_classes(labels: Collection[str]) -> tuple[str, ...]:
    """Classes that are all whole numbers in the order of the numbers, others in that of the letters."""
    numbered = all(label.isascii() and label.isdecimal() for label in labels)
    return tuple(sorted(labels, key=lambda label: (int(label) if numbered else 0, label)))


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first names in quotes, and how many more there are."""
    shown = ", ".join(
        repr(name if len(name) <= _MOST_SHOWN else name[: _MOST_SHOWN - 1] + "…") for name in names[:most]
    )
    return shown + (f" and {len(names) - most:,} more" if len(names) > most else "")


def notes_on_classes(entries: Sequence[Entry], classes: Sequence[str]) -> list[str]:
    """A sentence for each split that lacks pictures of a class, and for classes that may be meant as one."""
    notes = []
    for split in ("train", "validation", "test"):
        present = {entry.label for entry in entries if entry.split == split}
        absent = [label for label in classes if label not in present]
        if present and absent:
            notes.append(f"The {split} split has no pictures of {listed(absent)}.")
    same: dict[str, list[str]] = {}
    for label in classes:
        same.setdefault(unicodedata.normalize("NFC", label).casefold(), []).append(label)
    for labels in same.values():
        forms = {unicodedata.normalize("NFC", label) for label in labels}
        if len(forms) < len(labels):
            notes.append(f"{len(labels)} classes look the same, {labels[0]!r}: their accents are written in two ways.")
        elif len(labels) > 1:
            notes.append(f"The classes {listed(labels)} differ in capital letters alone.")
    return notes


def file_stamp(path: str | Path) -> str:
    """Identity, size and times of a file: changes whenever the file was written, replaced or touched."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"{path} is no ordinary file.")
    return f"{found.st_dev}:{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:{found.st_ctime_ns}"


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"Cannot read {path}: {error.strerror}.") from error
