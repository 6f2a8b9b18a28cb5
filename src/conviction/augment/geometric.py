"""Augmentations that move pixels: flip and crop."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Generator, Tensor

from conviction.augment.base import AUGMENTATIONS, Augmentation, AugmentConfig
from conviction.core.errors import ConfigError


class HorizontalFlipConfig(AugmentConfig):
    """Mirror each image, left to right, with probability `p`."""

    name: Literal["horizontal_flip"] = "horizontal_flip"
    p: float = Field(0.5, ge=0, le=1)


class RandomCropConfig(AugmentConfig):
    """Shift each image by up to `padding_px` in both directions; what comes in from outside is black."""

    name: Literal["random_crop"] = "random_crop"
    padding_px: int = Field(4, ge=1, le=1024)


def horizontal_flip(images: UInt8[Tensor, "B C H W"], p: float, generator: Generator) -> UInt8[Tensor, "B C H W"]:
    """Each image mirrored with probability `p`, whatever the others' draws."""
    flip_B = (torch.rand(len(images), generator=generator) < p).to(images.device)
    return torch.where(flip_B[:, None, None, None], images.flip(-1), images)


def random_crop(images: UInt8[Tensor, "B C H W"], padding_px: int, generator: Generator) -> UInt8[Tensor, "B C H W"]:
    """Each image padded with zeros on all sides, then cut to its former size at a place of its own.

    The two offsets of an image are uniform on 0 … 2·padding_px.

    Raises: ConfigError where an image could be shifted out of sight.
    """
    num_images, _, height, width = images.shape
    if padding_px >= min(height, width):
        raise ConfigError(
            f"random_crop: `padding_px < {min(height, width)}`, the pictures' shorter side, must hold, but got "
            f"{padding_px=}: a picture could be shifted out of sight."
        )
    offsets_2B = torch.randint(0, 2 * padding_px + 1, (2, num_images), generator=generator).to(images.device)
    padded = torch.nn.functional.pad(images, (padding_px,) * 4).permute(0, 2, 3, 1)
    rows_BH = offsets_2B[0, :, None] + torch.arange(height, device=images.device)
    columns_BW = offsets_2B[1, :, None] + torch.arange(width, device=images.device)
    image_B = torch.arange(num_images, device=images.device)
    return padded[image_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]].permute(0, 3, 1, 2)


@AUGMENTATIONS.register("horizontal_flip", HorizontalFlipConfig, "Mirror each image with probability p")
def _build_horizontal_flip(config: AugmentConfig) -> Augmentation:
    assert isinstance(config, HorizontalFlipConfig)
    return lambda images, generator: horizontal_flip(images, config.p, generator)


@AUGMENTATIONS.register(
    "random_crop",
    RandomCropConfig,
    "Shift each image by up to padding_px, black outside",
    reference="A. Krizhevsky et al., ImageNet classification with deep convolutional networks, 2012",
)
def _build_random_crop(config: AugmentConfig) -> Augmentation:
    assert isinstance(config, RandomCropConfig)
    return lambda images, generator: random_crop(images, config.padding_px, generator)
