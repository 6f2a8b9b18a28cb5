"""One mean and one deviation for each channel: measured, given, or those of a known set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from conviction.core.device import sent
from conviction.core.errors import ConfigError
from conviction.core.shares import in_shares
from conviction.data.resident import read_rows, rows_at_once
from conviction.data.standardize.base import (
    GREY_LEVELS,
    STANDARDIZATION_RECORDS,
    STANDARDIZATIONS,
    StandardizationRecord,
    StandardizeConfig,
    Standardizer,
)

_VALUES_AT_ONCE = 1 << 18
Deviation = Annotated[float, Field(gt=0)]


class ScaleConfig(StandardizeConfig):
    """Grey levels 0…255 become [0, 1]."""

    reads_pictures: ClassVar[bool] = False
    name: Literal["scale"] = "scale"


class CenterConfig(StandardizeConfig):
    """Grey levels 0…255 become [-0.5, 0.5]."""

    reads_pictures: ClassVar[bool] = False
    name: Literal["center"] = "center"


class ChannelConfig(StandardizeConfig):
    """Mean 0 and deviation 1 in each channel, over all pixels of the training split."""

    name: Literal["channel"] = "channel"


class FixedConfig(StandardizeConfig):
    """Given means and deviations of the channels, on the scale [0, 1]."""

    reads_pictures: ClassVar[bool] = False
    name: Literal["fixed"] = "fixed"
    mean: tuple[float, ...]
    deviation: tuple[Deviation, ...]


class ImagenetConfig(StandardizeConfig):
    """The means and deviations that networks pretrained on ImageNet expect."""

    reads_pictures: ClassVar[bool] = False
    name: Literal["imagenet"] = "imagenet"


class ChannelRecord(StandardizationRecord):
    """Means and deviations of the channels, on the scale [0, 1]."""

    name: Literal["channel"] = "channel"
    mean: tuple[float, ...]
    deviation: tuple[Deviation, ...]

    def fits(self, input_shape: tuple[int, int, int]) -> bool:
        return len(self.mean) == len(self.deviation) == input_shape[0]


@dataclass(frozen=True)
class Standardization(Standardizer):
    """`(x / 255 - mean) / deviation` in each channel."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images as `float32`, in the memory layout that they have."""
        mean, deviation = (sent(torch.tensor(values), images.device) for values in (self.mean, self.deviation))
        scale, shift = 1 / (deviation * GREY_LEVELS), mean / deviation
        if not images.is_contiguous(memory_format=torch.channels_last):
            return images.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])
        num_images, num_channels, height, width = images.shape
        # A row of pixels at a time: broadcasting along three channels, the innermost dimension, takes ten times longer.
        rows = images.permute(0, 2, 3, 1).reshape(num_images * height, width * num_channels)
        standardized = torch.empty(rows.shape, device=images.device)
        scale_W, shift_W = scale.repeat(width), shift.repeat(width)

        def standardize(share: slice) -> None:
            # So few at a time that the numbers stay in the core's cache, and so many that threads hardly meet.
            for levels, numbers in zip(
                *(torch.split(one[share], num_rows) for one in (rows, standardized)), strict=True
            ):
                numbers.copy_(levels).mul_(scale_W).sub_(shift_W)

        if images.device.type == "cpu":
            num_rows = max(1, _VALUES_AT_ONCE // rows.shape[1])
            in_shares(standardize, len(rows))
        else:
            num_rows = len(rows)
            standardize(slice(None))
        return standardized.view(num_images, height, width, num_channels).permute(0, 3, 1, 2)

    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Back to the scale [0, 1]."""
        mean, deviation = (sent(torch.tensor(values), images.device) for values in (self.mean, self.deviation))
        return images * deviation[:, None, None] + mean[:, None, None]

    def record(self) -> ChannelRecord:
        """Its means and deviations."""
        return ChannelRecord(mean=self.mean, deviation=self.deviation)


@STANDARDIZATION_RECORDS.register("channel", ChannelRecord, "Means and deviations of the channels")
def _restored(record: StandardizationRecord, tensors: Mapping[str, Tensor]) -> Standardization:
    assert isinstance(record, ChannelRecord)
    return Standardization(record.mean, record.deviation)


def channel_statistics(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) over all pixels of the given rows, on the scale [0, 1], exact to rounding.

    Sums of integers are exact, so that the order of the pictures does not matter.
    """
    num_channels = images.shape[-1]
    total = np.zeros(num_channels, np.int64)
    squares = np.zeros(num_channels, np.int64)
    for chunk in _chunks(images, rows):
        # Over the pictures first: pixel by pixel the sums are contiguous, and 255² in each of a chunk fits 32 bits.
        total += np.add.reduce(chunk, axis=0, dtype=np.uint32).sum(axis=(0, 1), dtype=np.int64)
        squares += np.add.reduce(np.square(chunk, dtype=np.uint16), axis=0, dtype=np.uint32).sum(
            axis=(0, 1), dtype=np.int64
        )
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    variance = (squares - total * mean) / count
    return mean / GREY_LEVELS, np.sqrt(np.maximum(variance, 0)) / GREY_LEVELS


def mean_picture_deviation(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The average over the given rows of each picture's own deviation (C,) on the scale [0, 1], exact to rounding.

    Never above the deviation over all pixels, which holds the differences between the pictures' means as well.
    """
    num_pixels = images.shape[1] * images.shape[2]
    total = np.zeros(images.shape[-1])
    for chunk in _chunks(images, rows):
        values = chunk.reshape(len(chunk), num_pixels, -1)
        sums = np.add.reduce(values, axis=1, dtype=np.int64)
        squares = np.add.reduce(np.square(values, dtype=np.uint16), axis=1, dtype=np.int64)
        total += np.sqrt(np.maximum(squares / num_pixels - (sums / num_pixels) ** 2, 0)).sum(axis=0)
    return total / len(rows) / GREY_LEVELS


def _chunks(images: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    size = rows_at_once(images)
    for start in range(0, len(rows), size):
        yield read_rows(images, rows[start : start + size])


def _for_channels(name: str, fitted: Standardization, num_channels: int) -> Standardization:
    """What was given, if it suits the pictures. Raises: ConfigError."""
    if not len(fitted.mean) == len(fitted.deviation) == num_channels:
        raise ConfigError(
            f"standardize: {name!r} has {len(fitted.mean)} means and {len(fitted.deviation)} deviations, but "
            f"the pictures have {num_channels} channels."
        )
    return fitted


@STANDARDIZATIONS.register("scale", ScaleConfig, "Grey levels 0…255 to [0, 1]")
def _scale(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    num_channels = images.shape[-1]
    return Standardization((0.0,) * num_channels, (1.0,) * num_channels)


@STANDARDIZATIONS.register("center", CenterConfig, "Grey levels 0…255 to [-0.5, 0.5]")
def _center(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    num_channels = images.shape[-1]
    return Standardization((0.5,) * num_channels, (1.0,) * num_channels)


@STANDARDIZATIONS.register("channel", ChannelConfig, "Mean 0 and deviation 1 in each channel of the training split")
def _channel(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    mean, deviation = channel_statistics(images, rows)
    # A channel of one grey level alone carries nothing; dividing by one leaves it at zero.
    deviation = np.where(deviation > 0, deviation, 1.0)
    return Standardization(tuple(mean.tolist()), tuple(deviation.tolist()))


@STANDARDIZATIONS.register("fixed", FixedConfig, "Given means and deviations of the channels")
def _fixed(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    assert isinstance(config, FixedConfig)
    return _for_channels(config.name, Standardization(config.mean, config.deviation), images.shape[-1])


@STANDARDIZATIONS.register(
    "imagenet",
    ImagenetConfig,
    "ImageNet's means (0.485, 0.456, 0.406) and deviations (0.229, 0.224, 0.225)",
    reference="torchvision's documentation of its pretrained weights",
)
def _imagenet(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    fitted = Standardization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return _for_channels(config.name, fitted, images.shape[-1])
