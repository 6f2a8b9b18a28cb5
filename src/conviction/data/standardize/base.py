"""What every standardisation offers, the registry of those to choose from, and of the forms they are saved in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from conviction.core.config import Config
from conviction.core.registry import Registry

GREY_LEVELS = 255


class StandardizeConfig(Config):
    """Base of the standardisations' settings."""

    # Whether fitting it takes a pass over the training split.
    reads_pictures: ClassVar[bool] = True
    name: str


class StandardizationRecord(Config):
    """Base of what a saved model says of its standardisation; `name` is the form, and large tensors lie beside it."""

    has_tensors: ClassVar[bool] = False
    name: str

    def fits(self, input_shape: tuple[int, int, int]) -> bool:
        """Whether it suits pictures of (C, H, W)."""
        return True


class Standardizer(ABC):
    """A fitted standardisation: the whole of what must travel with a saved network."""

    @abstractmethod
    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images as `float32`, in the memory layout that they have."""

    @abstractmethod
    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Back to the scale [0, 1], as far as that goes."""

    @abstractmethod
    def record(self) -> StandardizationRecord:
        """What `restore_standardization` makes it again from, together with its tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """What is too large for the record."""
        return {}


STANDARDIZATIONS: Registry[Callable[[StandardizeConfig, np.ndarray, np.ndarray], Standardizer]] = Registry(
    "standardisation"
)
STANDARDIZATION_RECORDS: Registry[Callable[[StandardizationRecord, Mapping[str, Tensor]], Standardizer]] = Registry(
    "saved standardisation"
)


def fit_standardization(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardizer:
    """The standardisation for `uint8` images (N, H, W, C); `rows` are those of the training split.

    Raises: ConfigError where the settings do not fit the pictures.
    """
    return STANDARDIZATIONS[config.name].build(config, images, rows)


def restore_standardization(record: StandardizationRecord, tensors: Mapping[str, Tensor]) -> Standardizer:
    """The standardisation that was saved as `record` and `tensors`.

    Raises: DataError where the tensors are not those that the record speaks of.
    """
    return STANDARDIZATION_RECORDS[record.name].build(record, tensors)
