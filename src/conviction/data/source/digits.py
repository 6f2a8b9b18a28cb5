"""scikit-learn's 1,797 scanned digits, which need no file and no network."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from conviction.core.errors import ConfigError
from conviction.data.source.base import SOURCES, Entry, KnownPictures, Source, SourceConfig

NUM_DIGITS = 1797
HIGHEST_GREY = 16


class DigitsConfig(SourceConfig):
    """Grey 8×8 pictures of handwritten digits, 10 classes."""

    known: ClassVar[KnownPictures | None] = KnownPictures((8, 8), 10, NUM_DIGITS, has_test=False)
    name: Literal["digits"] = "digits"
    color: Literal["rgb", "grey"] = "grey"


class Digits:
    """Grey levels 0…16 become 0…255, rounded to the nearest."""

    shown_path = "digits"

    def stamp(self) -> str:
        return f"scikit-learn {importlib.metadata.version('scikit-learn')}"

    def digest(self) -> str:
        return self.stamp()

    def pictures_digest(self) -> str:
        return self.digest()

    def entries(self) -> list[Entry]:
        _, labels = _load()
        return [Entry(_path(index), str(label), None) for index, label in enumerate(labels)]

    def classes(self) -> tuple[str, ...]:
        return tuple(str(digit) for digit in range(10))

    def notes(self) -> tuple[str, ...]:
        return ()

    def read(self) -> Iterator[tuple[str, np.ndarray]]:
        images, _ = _load()
        for index, image in enumerate(images):
            yield _path(index), np.rint(image * (255 / HIGHEST_GREY)).astype(np.uint8)[:, :, None]


def _path(index: int) -> str:
    return f"digit-{index:04d}"


def _load() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    assert len(bunch.images) == NUM_DIGITS
    return bunch.images, bunch.target


@SOURCES.register(
    "digits",
    DigitsConfig,
    "1,797 scanned digits, grey, 8×8 pixels, embedded in scikit-learn",
    reference="E. Alpaydin, C. Kaynak, Optical Recognition of Handwritten Digits, UCI repository, 1998",
)
def build_digits(config: SourceConfig) -> Source:
    """The embedded digits. Raises: ConfigError where a path is given."""
    if config.path is not None:
        raise ConfigError(f"data.path: the digits are embedded and take no path, but got {config.path!r}.")
    return Digits()
