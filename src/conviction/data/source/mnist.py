"""MNIST in its official IDX files, or as class folders of pictures."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np

from conviction.core.errors import DataError
from conviction.core.records import SplitName
from conviction.data.source.base import (
    SOURCES,
    Entry,
    KnownPictures,
    Source,
    SourceConfig,
    file_digest,
    file_stamp,
    shown_name,
)
from conviction.data.source.container import MAX_FILE_BYTES
from conviction.data.source.download import OfficialFile, fetch
from conviction.data.source.folder import open_class_folders
from conviction.data.source.locate import data_folders, find_by_name, locate

_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
OFFICIAL_FILES: dict[SplitName, tuple[OfficialFile, OfficialFile]] = {
    "train": (
        OfficialFile(
            "train-images-idx3-ubyte.gz",
            _URL + "train-images-idx3-ubyte.gz",
            9_912_422,
            "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        ),
        OfficialFile(
            "train-labels-idx1-ubyte.gz",
            _URL + "train-labels-idx1-ubyte.gz",
            28_881,
            "d53e105ee54ea40749a09fcbcd1e9432",
        ),
    ),
    "test": (
        OfficialFile(
            "t10k-images-idx3-ubyte.gz",
            _URL + "t10k-images-idx3-ubyte.gz",
            1_648_877,
            "9fb629c4189551a2d022fa330f9573f3",
        ),
        OfficialFile(
            "t10k-labels-idx1-ubyte.gz",
            _URL + "t10k-labels-idx1-ubyte.gz",
            4_542,
            "ec29112dd5afa0611ce80d1b7f02629c",
        ),
    ),
}
_IMAGES_MAGIC, _LABELS_MAGIC = 0x803, 0x801
_SUBFOLDERS = ("", "mnist", "MNIST", "MNIST/raw", "raw")


class MnistConfig(SourceConfig):
    """60,000 + 10,000 grey 28×28 pictures of handwritten digits."""

    known: ClassVar[KnownPictures | None] = KnownPictures((28, 28), 10, 60_000)
    name: Literal["mnist"] = "mnist"
    color: Literal["rgb", "grey"] = "grey"


class Mnist:
    """The four IDX files, each gzipped or plain."""

    def __init__(self, files: dict[SplitName, tuple[Path, Path]]) -> None:
        self._files = files

    @property
    def shown_path(self) -> str:
        return shown_name(self._files["train"][0].parent)

    def stamp(self) -> str:
        return "|".join(file_stamp(path) for pair in self._files.values() for path in pair)

    def digest(self) -> str:
        digests = (file_digest(path) for pair in self._files.values() for path in pair)
        return hashlib.sha256("".join(digests).encode()).hexdigest()

    def pictures_digest(self) -> str:
        return self.digest()

    def entries(self) -> list[Entry]:
        entries = [
            Entry(_entry_path(split, index), str(label), split)
            for split, (_, labels) in self._files.items()
            for index, label in enumerate(_read_labels(labels))
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def classes(self) -> tuple[str, ...]:
        return tuple(str(digit) for digit in range(10))

    def notes(self) -> tuple[str, ...]:
        return ()

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        for split, (images, labels) in self._files.items():
            pictures = _read_images(images)
            if len(pictures) != len(_read_labels(labels)):
                raise DataError(f"{images.name} and {labels.name} hold different numbers of entries.")
            for index, picture in enumerate(pictures):
                yield _entry_path(split, index), picture[:, :, None]


def _entry_path(split: str, index: int) -> str:
    return f"{split}/{index:05d}"


def _read_bytes(path: Path) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged or cannot be read: {error}.") from error
    if len(content) > MAX_FILE_BYTES:
        raise DataError(f"{path} holds more than {MAX_FILE_BYTES:,} bytes: no file of MNIST.")
    return content


def _read_images(path: Path) -> np.ndarray:
    content = _read_bytes(path)
    if len(content) < 16:
        raise DataError(f"{path} is too short for an IDX file of images.")
    magic, count, height, width = struct.unpack(">IIII", content[:16])
    if magic != _IMAGES_MAGIC or not count * height * width or len(content) != 16 + count * height * width:
        raise DataError(f"{path} is no IDX file of images: its header and its length disagree.")
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)


def _read_labels(path: Path) -> np.ndarray:
    content = _read_bytes(path)
    if len(content) < 8:
        raise DataError(f"{path} is too short for an IDX file of labels.")
    magic, count = struct.unpack(">II", content[:8])
    labels = np.frombuffer(content, np.uint8, offset=8)
    if magic != _LABELS_MAGIC or not count or len(labels) != count or labels.max() > 9:
        raise DataError(f"{path} is no IDX file of digits' labels.")
    return labels


def _find_official(folder: Path) -> dict[SplitName, tuple[Path, Path]] | None:
    """The four files in `folder` or one of its usual subfolders; None where there is none of them.

    Raises: DataError that names what is absent where only some are there.
    """
    for below in _SUBFOLDERS:
        files = {
            split: tuple(_plain_or_zipped(folder / below, file.name) for file in pair)
            for split, pair in OFFICIAL_FILES.items()
        }
        absent = [
            wanted.name
            for split, pair in OFFICIAL_FILES.items()
            for wanted, found in zip(pair, files[split], strict=True)
            if found is None
        ]
        if not absent:
            return cast("dict[SplitName, tuple[Path, Path]]", files)
        if len(absent) < 2 * len(OFFICIAL_FILES):
            raise DataError(f"{folder / below} holds some of MNIST's four files, but lacks {', '.join(absent)}.")
    return None


def _plain_or_zipped(folder: Path, zipped: str) -> Path | None:
    plain = zipped.removesuffix(".gz")
    names = (zipped, plain, plain.replace("-idx", ".idx"))
    return next((folder / name for name in names if (folder / name).is_file()), None)


@SOURCES.register(
    "mnist",
    MnistConfig,
    "70,000 handwritten digits, grey, 28×28 pixels, in the official files or as class folders",
    reference="Y. LeCun et al., Gradient-based learning applied to document recognition, Proc. IEEE 86(11), 1998",
)
def build_mnist(config: SourceConfig) -> Source:
    """The digits at `data.path`, in the folders of CONVICTION_DATA, or downloaded. Raises: DataError."""
    if config.path:
        place = locate(config.path)
        official = _find_official(place) if place.is_dir() else None
        return Mnist(official) if official else open_class_folders(place)
    for folder in data_folders():
        if official := _find_official(folder):
            return Mnist(official)
    if found := find_by_name("mnist"):
        return open_class_folders(found)
    return Mnist({split: (fetch(images), fetch(labels)) for split, (images, labels) in OFFICIAL_FILES.items()})
