"""Augmentations that move whole pixels: flips, crops, translations by whole pixels."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from conviction.augment.base import AUGMENTATIONS, AugmentConfig, Outside, Placement, Size, chosen
from conviction.core.errors import ConfigError
from conviction.core.rng import derive
from conviction.data.stream import Draw


def shifts(x_B: Float[Tensor, " B"], y_B: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Matrices that look `x` to the right and `y` further down."""
    matrix = torch.eye(3).repeat(len(x_B), 1, 1)
    matrix[:, 0, 2], matrix[:, 1, 2] = x_B, y_B
    return matrix


def middles(num: int, old_px: Size, new_px: Size) -> Float[Tensor, "B 3 3"]:
    """Matrices that cut the middle out, as evaluation does: of an odd rest, half to even."""
    y, x = (round((old - new) / 2) - (old - new) / 2 for old, new in zip(old_px, new_px, strict=True))
    return shifts(torch.full((num,), x), torch.full((num,), y))


class FlipConfig(AugmentConfig):
    """Mirror each image, left to right, with probability `p`. Wrong where left and right differ, as in writing."""

    name: Literal["horizontal_flip"] = "horizontal_flip"
    p: float = Field(0.5, ge=0, le=1, description="Share of the images that are mirrored")


class VerticalFlipConfig(AugmentConfig):
    """Mirror each image, top to bottom, with probability `p`."""

    name: Literal["vertical_flip"] = "vertical_flip"
    p: float = Field(0.5, ge=0, le=1, description="Share of the images that are mirrored")


class AlternatingFlipConfig(AugmentConfig):
    """Mirror each image in every second epoch: about half of them in the first, the others in the second, and so on."""

    name: Literal["alternating_flip"] = "alternating_flip"
    p: float = Field(1.0, ge=0, le=1, description="Share of the images that take turns; the others are never mirrored")


class RandomCropConfig(AugmentConfig):
    """Shift each image by up to `padding_px` in both directions."""

    name: Literal["random_crop"] = "random_crop"
    padding_px: int = Field(4, ge=1, le=1024, description="Largest shift, in both directions")
    outside: Outside = Field("black", description="What comes in from outside: black, the picture mirrored, its edge")
    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it; the others are not shifted")


class CropToConfig(AugmentConfig):
    """Cut each image to `size_px` at a place of its own in training, and from its middle in evaluation."""

    name: Literal["crop_to"] = "crop_to"
    size_px: int = Field(ge=1, le=8192, description="Height and width of what is left")
    p: float = Field(1.0, ge=0, le=1, description="Share of the images cut anywhere; the others from their middle")


class Flip(Placement):
    """Mirrored along one side, each image by a draw of its own."""

    is_exact: ClassVar[bool] = True

    def __init__(self, axis: int, p: float) -> None:
        self._axis, self._p = axis, p

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A sign for each image."""
        return _mirrored(chosen(num_images, self._p, draw.generator), self._axis)


class AlternatingFlip(Placement):
    """Mirrored left to right in every second epoch; the run's seed decides in which, and which images never are."""

    is_exact: ClassVar[bool] = True

    def __init__(self, p: float = 1.0) -> None:
        self._p = p

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A sign for each image, by its row, the epoch and the seed, whatever the generator."""
        rows = torch.arange(num_images) if draw.rows is None else draw.rows
        number_B = _hashed(_hashed(rows) ^ derive(draw.seed, "alternating_flip") % 2**32)
        half_B, share_B = number_B >> 31, (number_B % 2**31).double() / 2**31
        return _mirrored(((half_B + draw.epoch) % 2 == 1) & (share_B < self._p), 0)


def _hashed(numbers: Int64[Tensor, " B"]) -> Int64[Tensor, " B"]:
    """Each number below 2³² to another, as if drawn: MurmurHash3's last step, a bijection."""
    numbers = (numbers ^ numbers >> 16) * 0x85EBCA6B % 2**32
    numbers = (numbers ^ numbers >> 13) * 0xC2B2AE35 % 2**32
    return numbers ^ numbers >> 16


def _mirrored(flip_B: Tensor, axis: int) -> Float[Tensor, "B 3 3"]:
    matrix = torch.eye(3).repeat(len(flip_B), 1, 1)
    matrix[:, axis, axis] = torch.where(flip_B.cpu(), -1.0, 1.0)
    return matrix


class RandomCrop(Placement):
    """Padded on all sides, then cut to the former size; both offsets are uniform on 0 … 2·padding_px.

    Images that are not chosen are not shifted.
    """

    is_exact: ClassVar[bool] = True

    def __init__(self, padding_px: int, outside: Outside, p: float = 1.0) -> None:
        self._padding_px, self.outside, self._p = padding_px, outside, p

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A shift for each image."""
        padding = self._padding_px
        if padding >= min(size_px):
            raise ConfigError(
                f"random_crop: `padding_px < {min(size_px)}`, the pictures' shorter side, must hold, but got "
                f"padding_px={padding}: a picture could be shifted out of sight."
            )
        offsets_2B = torch.randint(0, 2 * padding + 1, (2, num_images), generator=draw.generator) - padding
        if self._p < 1:
            offsets_2B *= chosen(num_images, self._p, draw.generator)
        return shifts(offsets_2B[1].float(), offsets_2B[0].float())


class CropTo(Placement):
    """Cut to a smaller square, at any place in training, in the middle in evaluation."""

    is_exact: ClassVar[bool] = True

    def __init__(self, size_px: int, p: float = 1.0) -> None:
        self._size_px, self._p = size_px, p

    def output_size(self, size_px: Size) -> Size:
        """A square. Raises: ConfigError."""
        if self._size_px > min(size_px):
            raise ConfigError(
                f"crop_to: `size_px <= {min(size_px)}`, the pictures' shorter side, must hold, but got "
                f"size_px={self._size_px}."
            )
        return self._size_px, self._size_px

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A shift for each image."""
        wanted = self.output_size(size_px)
        room = [side - self._size_px for side in size_px]
        corners = [torch.randint(0, side + 1, (num_images,), generator=draw.generator) - side / 2 for side in room]
        anywhere = shifts(corners[1], corners[0])
        if self._p == 1:
            return anywhere
        is_chosen_B = chosen(num_images, self._p, draw.generator)
        return torch.where(is_chosen_B[:, None, None], anywhere, middles(num_images, size_px, wanted))


_KRIZHEVSKY = "A. Krizhevsky et al., ImageNet classification with deep convolutional networks, 2012"


@AUGMENTATIONS.register(
    "horizontal_flip", FlipConfig, "Mirror each image, left to right, with probability p", _KRIZHEVSKY
)
def _build_flip(config: AugmentConfig) -> Placement:
    assert isinstance(config, FlipConfig)
    return Flip(0, config.p)


@AUGMENTATIONS.register(
    "vertical_flip",
    VerticalFlipConfig,
    "Mirror each image, top to bottom, with probability p",
    reference="torchvision's RandomVerticalFlip",
)
def _build_vertical_flip(config: AugmentConfig) -> Placement:
    assert isinstance(config, VerticalFlipConfig)
    return Flip(1, config.p)


@AUGMENTATIONS.register(
    "alternating_flip",
    AlternatingFlipConfig,
    "Mirror each image in every second epoch",
    reference="K. Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024, section 3.6",
)
def _build_alternating_flip(config: AugmentConfig) -> Placement:
    assert isinstance(config, AlternatingFlipConfig)
    return AlternatingFlip(config.p)


@AUGMENTATIONS.register(
    "random_crop",
    RandomCropConfig,
    "Shift each image by up to padding_px",
    reference="K. He et al., Deep residual learning for image recognition, 2015, section 4.2, after C. Lee et al., "
    "Deeply-supervised nets, 2015",
)
def _build_random_crop(config: AugmentConfig) -> Placement:
    assert isinstance(config, RandomCropConfig)
    return RandomCrop(config.padding_px, config.outside, config.p)


@AUGMENTATIONS.register(
    "crop_to",
    CropToConfig,
    "Cut to a smaller square: anywhere in training, the middle in evaluation",
    reference=_KRIZHEVSKY,
)
def _build_crop_to(config: AugmentConfig) -> Placement:
    assert isinstance(config, CropToConfig)
    return CropTo(config.size_px, config.p)
