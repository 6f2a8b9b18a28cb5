"""What an augmentation is, and the registry of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from conviction.core.config import Config
from conviction.core.registry import Registry
from conviction.data.stream import Draw

Images = UInt8[Tensor, "B C H W"] | Float[Tensor, "B C H W"]
# Of another size than those that went in.
Resized = UInt8[Tensor, "B C H2 W2"] | Float[Tensor, "B C H2 W2"]
Size = tuple[int, int]
# What a resampling sees where it looks beyond the picture.
Outside = Literal["black", "reflect", "edge"]
Interpolation = Literal["bilinear", "nearest"]
GREY_LEVELS = 255


class AugmentConfig(Config):
    """Base of the augmentations' settings."""

    name: str


class Augmentation:
    """What moves pixels, gives them new values, or mixes images: see the three kinds below."""

    # Whether it takes less time where each channel's values lie side by side, rather than each pixel's.
    by_channel: bool = False

    def output_size(self, size_px: Size) -> Size:
        """Height and width of what comes out; images that are not augmented are cut to it from their middle.

        Raises: ConfigError where such images are too small.
        """
        return size_px

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Whether images of this shape (C, H, W) can be augmented so. Raises: ConfigError where they cannot."""


class Placement(Augmentation, ABC):
    """An augmentation that moves pixels. Neighbours in a recipe are composed into one resampling.

    What it does to labels: nothing.
    """

    outside: Outside | None = None
    interpolation: Interpolation | None = None
    # Whether every pixel comes from exactly one other, so that nothing is interpolated.
    is_exact: ClassVar[bool] = False
    # Whether what shrinks is smoothed.
    smooths: bool = False

    @abstractmethod
    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """For each image, where in the input (x, y, 1) a position of the output lies; origins are the centres."""


class Recolouring(Augmentation, ABC):
    """An augmentation that gives pixels new values, in a share `p` of the images, each by its own draw.

    What it does to labels: nothing.
    """

    p: float = 1.0

    @abstractmethod
    def recolour(self, images: Float[Tensor, "B C H W"], generator: Generator) -> Float[Tensor, "B C H W"]:
        """Images on [0, 1], changed; the results may leave [0, 1] and are clamped afterwards."""


class Mixing(Augmentation, ABC):
    """An augmentation that makes an image of two.

    What it does to labels: they become shares of both images' classes (B, K).
    """

    @abstractmethod
    def mix(
        self, images: Float[Tensor, "B C H W"], targets: Float[Tensor, "B K"], generator: Generator
    ) -> tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K"]]:
        """Images and the shares of their classes, each mixed with those of another image of the batch."""


AUGMENTATIONS: Registry[Callable[[AugmentConfig], Augmentation]] = Registry("augmentation")


def uniform(num: int, low: int | float, high: int | float, generator: Generator) -> Float[Tensor, " B"]:
    """A number for each image, uniform on [low, high)."""
    return low + (high - low) * torch.rand(num, generator=generator)


def chosen(num: int, p: int | float, generator: Generator) -> Bool[Tensor, " B"]:
    """Which images are chosen, each with probability `p`, whatever the others' draws."""
    return torch.rand(num, generator=generator) < p
