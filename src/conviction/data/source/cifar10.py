"""CIFAR-10 in its official files (Python or binary version), or as class folders of pictures."""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from conviction.core.errors import DataError
from conviction.core.records import SplitName
from conviction.data.decode import UnreadablePicture
from conviction.data.source.base import SOURCES, Entry, KnownPictures, Source, SourceConfig, shown_name
from conviction.data.source.container import Container, open_container
from conviction.data.source.download import OfficialFile, fetch
from conviction.data.source.folder import open_class_folders
from conviction.data.source.locate import data_folders, find_by_name, locate

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
OFFICIAL_FILE = OfficialFile(
    "cifar-10-python.tar.gz",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
    170_498_071,
    "c58f30108f718f92721af3b95e74349a",
)
_OFFICIAL_NAMES = ("cifar-10-python.tar.gz", "cifar-10-batches-py", "cifar-10-binary.tar.gz", "cifar-10-batches-bin")
_BATCHES = {*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"}
_IMAGE_BYTES = 3 * 32 * 32


class Cifar10Config(SourceConfig):
    """50,000 + 10,000 colour pictures of 32×32 pixels, 10 classes."""

    known: ClassVar[KnownPictures | None] = KnownPictures((32, 32), 10, 50_000)
    name: Literal["cifar10"] = "cifar10"


class Cifar10:
    """The six official batches. Each holds labels and pictures as planes of red, green and blue."""

    def __init__(self, container: Container) -> None:
        self._container = container

    @property
    def shown_path(self) -> str:
        return shown_name(self._container.path)

    def stamp(self) -> str:
        return self._container.stamp()

    def digest(self) -> str:
        return self._container.digest()

    def pictures_digest(self) -> str:
        return self.digest()

    def entries(self) -> list[Entry]:
        entries = [
            Entry(_entry_path(batch, index), CLASSES[label], _split_of(batch))
            for batch, labels, _ in self._batches()
            for index, label in enumerate(labels)
        ]
        return sorted(entries, key=lambda entry: entry.path)

    def classes(self) -> tuple[str, ...]:
        return CLASSES

    def notes(self) -> tuple[str, ...]:
        return ()

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        for batch, _, images in self._batches():
            for index, image in enumerate(images):
                yield _entry_path(batch, index), image

    def _batches(self) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
        files, _ = self._container.names()
        wanted = {name for name in files if _batch_name(name)}
        if {_batch_name(name) for name in wanted} != _BATCHES:
            raise DataError(f"{self._container.path} lacks some of the six batches of CIFAR-10.")
        if len(wanted) > len(_BATCHES):
            raise DataError(f"{self._container.path} holds batches of CIFAR-10 twice: {', '.join(sorted(wanted))}.")
        for name, content in self._container.read(wanted):
            if isinstance(content, UnreadablePicture):
                raise DataError(f"{name} {content}.")
            labels, images = _read_binary(content, name) if name.endswith(".bin") else _read_pickle(content, name)
            yield _batch_name(name), labels, images


def is_official(path: Path) -> bool:
    """Whether `path` holds the official batches, rather than class folders."""
    if path.is_dir():
        return (path / "data_batch_1").is_file() or (path / "data_batch_1.bin").is_file()
    return path.name in _OFFICIAL_NAMES


def _batch_name(path: str) -> str:
    name = path.rsplit("/", 1)[-1].removesuffix(".bin")
    return name if name.startswith("data_batch_") or name == "test_batch" else ""


def _split_of(batch: str) -> SplitName:
    return "test" if batch == "test_batch" else "train"


def _entry_path(batch: str, index: int) -> str:
    return f"{batch}/{index:05d}"


def _read_binary(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    if len(content) % (1 + _IMAGE_BYTES):
        raise DataError(f"{name} is damaged: its length is no multiple of {1 + _IMAGE_BYTES} bytes.")
    rows = np.frombuffer(content, np.uint8).reshape(-1, 1 + _IMAGE_BYTES)
    return _checked(rows[:, 0], rows[:, 1:], name)


class _ArraysOnly(pickle.Unpickler):
    """Loads the official pickles, which hold numpy arrays and plain values, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in (("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct")):
            return np.zeros(0).__reduce__()[0]
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode("latin1")
        raise DataError(f"The batch asks for {module}.{name}, which no official file of CIFAR-10 does: it is refused.")


def _read_pickle(content: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _ArraysOnly(io.BytesIO(content), encoding="bytes").load()
        return _checked(np.asarray(batch[b"labels"], np.int64), batch[b"data"], name)
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{name} is no batch of CIFAR-10: {type(error).__name__}: {error}.") from error


def _checked(labels: np.ndarray, rows: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
    right = labels.ndim == 1 and rows.shape == (len(labels), _IMAGE_BYTES) and rows.dtype == np.uint8
    if not right or len(labels) == 0 or labels.min() < 0 or labels.max() >= len(CLASSES):
        raise DataError(f"{name} is no batch of CIFAR-10: its labels or pictures have other shapes or values.")
    return labels, rows.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


@SOURCES.register(
    "cifar10",
    Cifar10Config,
    "60,000 colour pictures, 32×32 pixels, 10 classes, in the official files or as class folders",
    reference="A. Krizhevsky, Learning multiple layers of features from tiny images, 2009",
)
def build_cifar10(config: SourceConfig) -> Source:
    """The pictures at `data.path`, in the folders of CONVICTION_DATA, or downloaded. Raises: DataError."""
    if config.path:
        place = locate(config.path)
        return Cifar10(open_container(place)) if is_official(place) else open_class_folders(place)
    for folder in data_folders():
        for name in _OFFICIAL_NAMES:
            if (folder / name).exists():
                return Cifar10(open_container(folder / name))
    if found := find_by_name("cifar10"):
        return open_class_folders(found)
    try:
        return Cifar10(open_container(fetch(OFFICIAL_FILE)))
    except DataError as error:
        raise DataError(f"{error}{_alike()}") from error


def _alike() -> str:
    """A pointer to folders that look like CIFAR-10 under another name: other pictures are never taken silently."""
    names = sorted({path.name for folder in data_folders() if folder.is_dir() for path in folder.glob("cifar10*")})
    return f" There is {names[0]}; to train on it, say so: --set data.path={names[0]}" if names else ""
