"""From grey levels to numbers that a network learns from well. Statistics come from the training split alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import Field
from torch import Tensor

from conviction.core.config import Config
from conviction.core.errors import ConfigError
from conviction.core.registry import Registry

GREY_LEVELS = 255
_CHUNK = 256
Deviation = Annotated[float, Field(gt=0)]


class StandardizeConfig(Config):
    """Base of the standardisations' settings."""

    name: str


class ScaleConfig(StandardizeConfig):
    """Grey levels 0…255 become [0, 1]."""

    name: Literal["scale"] = "scale"


class CenterConfig(StandardizeConfig):
    """Grey levels 0…255 become [-0.5, 0.5]."""

    name: Literal["center"] = "center"


class ChannelConfig(StandardizeConfig):
    """Mean 0 and deviation 1 in each channel, over all pixels of the training split."""

    name: Literal["channel"] = "channel"


class FixedConfig(StandardizeConfig):
    """Given means and deviations of the channels, on the scale [0, 1]."""

    name: Literal["fixed"] = "fixed"
    mean: tuple[float, ...]
    deviation: tuple[Deviation, ...]


class ImagenetConfig(StandardizeConfig):
    """The means and deviations that networks pretrained on ImageNet expect."""

    name: Literal["imagenet"] = "imagenet"


@dataclass(frozen=True)
class Standardization:
    """`(x / 255 - mean) / deviation` in each channel; the whole of what must travel with a saved network."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    def __call__(self, images: UInt8[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """The images as `float32`, in the memory layout that they have."""
        scale = torch.tensor(self.deviation, device=images.device).mul_(GREY_LEVELS).reciprocal_()
        shift = torch.tensor(self.mean, device=images.device) / torch.tensor(self.deviation, device=images.device)
        return images.float().mul_(scale[:, None, None]).sub_(shift[:, None, None])

    def inverted(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Back to the scale [0, 1]."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        return images * torch.tensor(self.deviation, device=images.device)[:, None, None] + mean


STANDARDIZATIONS: Registry[Callable[[StandardizeConfig, np.ndarray, np.ndarray], Standardization]] = Registry(
    "standardisation"
)


def fit_standardization(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    """The standardisation for `uint8` images (N, H, W, C); `rows` are those of the training split.

    Raises: ConfigError where the settings do not fit the number of channels.
    """
    fitted = STANDARDIZATIONS[config.name].build(config, images, rows)
    num_channels = images.shape[-1]
    if not len(fitted.mean) == len(fitted.deviation) == num_channels:
        raise ConfigError(
            f"standardize: {config.name!r} has {len(fitted.mean)} means and {len(fitted.deviation)} deviations, but "
            f"the pictures have {num_channels} channels."
        )
    return fitted


def channel_statistics(images: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation (C,) over all pixels of the given rows, on the scale [0, 1], exact to rounding.

    Sums of integers are exact, so that the order of the pictures does not matter.
    """
    num_channels = images.shape[-1]
    total = np.zeros(num_channels, np.int64)
    squares = np.zeros(num_channels, np.int64)
    for start in range(0, len(rows), _CHUNK):
        chunk = images[rows[start : start + _CHUNK]]
        # Over the pictures first: pixel by pixel the sums are contiguous, and 255² in each of a chunk fits 32 bits.
        total += np.add.reduce(chunk, axis=0, dtype=np.uint32).sum(axis=(0, 1), dtype=np.int64)
        squares += np.add.reduce(np.square(chunk, dtype=np.uint16), axis=0, dtype=np.uint32).sum(
            axis=(0, 1), dtype=np.int64
        )
    count = len(rows) * images.shape[1] * images.shape[2]
    mean = total / count
    variance = (squares - total * mean) / count
    return mean / GREY_LEVELS, np.sqrt(np.maximum(variance, 0)) / GREY_LEVELS


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
    return Standardization(config.mean, config.deviation)


@STANDARDIZATIONS.register(
    "imagenet",
    ImagenetConfig,
    "ImageNet's means (0.485, 0.456, 0.406) and deviations (0.229, 0.224, 0.225)",
    reference="torchvision's documentation of its pretrained weights",
)
def _imagenet(config: StandardizeConfig, images: np.ndarray, rows: np.ndarray) -> Standardization:
    return Standardization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
