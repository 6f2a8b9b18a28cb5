"""Global contrast normalisation: each picture by its own mean and deviation, over all of its values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from conviction.core.config import Config
from conviction.data.resident import read_rows, rows_at_once
from conviction.data.standardize.base import (
    GREY_LEVELS,
    STANDARDIZATION_RECORDS,
    STANDARDIZATIONS,
    StandardizationRecord,
    StandardizeConfig,
    Standardizer,
)

Positive = Annotated[float, Field(gt=0)]


class PerImageConfig(StandardizeConfig):
    """Each picture's own mean 0 and deviation 1, over all of its values."""

    name: Literal["per_image"] = "per_image"


class Contrast(Config):
    """`scale * (x - own mean) / max(own deviation, floor)`, over all values of each picture, channels together.

    `floor` keeps an almost constant picture from being blown up to noise. `mean` and `deviation` are the averages of
    the training pictures' own ones: what a picture that has lost its own is shown with. All on the scale [0, 1].
    Source: Coates, Ng and Lee 2011, "An analysis of single-layer networks in unsupervised feature learning".
    """

    scale: Positive
    floor: Positive
    mean: float
    deviation: Positive

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images with their own mean 0 and, above the floor, their own deviation `scale`."""
        values = images.float()
        values.sub_(values.mean(dim=(1, 2, 3), keepdim=True))
        # Several times as fast as torch.var, and as exact, the mean being gone.
        norm = torch.linalg.vector_norm(values, dim=(1, 2, 3), keepdim=True)
        deviation = norm.div_(images[0].numel() ** 0.5)
        return values.mul_(self.scale / deviation.clamp_(min=self.floor * GREY_LEVELS))

    def of_rows(self, values: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
        """The same in `float64`, for pictures as rows of grey levels."""
        centred = values - values.mean(axis=1, keepdims=True)
        deviation = np.sqrt(np.square(centred).mean(axis=1, keepdims=True))
        normalized: np.ndarray = centred * (self.scale / np.maximum(deviation, self.floor * GREY_LEVELS))
        return normalized

    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """On the scale [0, 1], with the training pictures' average brightness and contrast: its own are lost."""
        return images * (self.deviation / self.scale) + self.mean


@dataclass(frozen=True)
class PerImageStandardization(Standardizer):
    """`(x - own mean) / max(own deviation, 1 / sqrt(number of values))`, in grey levels, over all of its values.

    The floor is one that only an all but constant picture meets. `mean` and `deviation` are the averages of the
    training pictures' own ones, on the scale [0, 1], and serve `inverted` alone.
    Source: TensorFlow's `tf.image.per_image_standardization`.
    """

    mean: float
    deviation: float

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images as `float32`, in the memory layout that they have."""
        floor = images[0].numel() ** -0.5 / GREY_LEVELS
        return Contrast(scale=1.0, floor=floor, mean=self.mean, deviation=self.deviation)(images)

    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """On the scale [0, 1], with the training pictures' average brightness and contrast.

        A picture's own mean and deviation are lost: what comes back is the picture up to brightness and contrast.
        """
        return images * self.deviation + self.mean

    def record(self) -> PerImageRecord:
        """The averages."""
        return PerImageRecord(mean=self.mean, deviation=self.deviation)


class PerImageRecord(StandardizationRecord):
    """The averages of the training pictures' own means and deviations, on the scale [0, 1]."""

    name: Literal["per_image"] = "per_image"
    mean: float
    deviation: Positive


def average_mean_and_deviation(images: np.ndarray, rows: np.ndarray) -> tuple[float, float]:
    """The averages over the given rows of each picture's own mean and deviation, on the scale [0, 1]; never 0."""
    num_values = images[:1].size
    means, deviations = np.empty(len(rows)), np.empty(len(rows))
    size = rows_at_once(images)
    for start in range(0, len(rows), size):
        values = read_rows(images, rows[start : start + size]).reshape(-1, num_values)
        means[start : start + size] = values.mean(axis=1, dtype=np.float64)
        deviations[start : start + size] = values.std(axis=1, dtype=np.float64)
    # Summed in one order, whatever that of the rows: equal pictures give equal bits.
    deviation = float(np.sort(deviations).mean() / GREY_LEVELS)
    return float(np.sort(means).mean() / GREY_LEVELS), deviation or 1.0


@STANDARDIZATION_RECORDS.register("per_image", PerImageRecord, "Averages of the pictures' own means and deviations")
def _restored(record: StandardizationRecord, tensors: Mapping[str, Tensor]) -> PerImageStandardization:
    assert isinstance(record, PerImageRecord)
    return PerImageStandardization(record.mean, record.deviation)


@STANDARDIZATIONS.register(
    "per_image",
    PerImageConfig,
    "Each picture's own mean 0 and deviation 1, over all of its values",
    reference="TensorFlow's `tf.image.per_image_standardization`",
)
def _per_image(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> PerImageStandardization:
    return PerImageStandardization(*average_mean_and_deviation(images, rows))
