"""Augmentations of detail: blur, sharpness, noise, and parts erased."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn import functional

from conviction.augment.base import AUGMENTATIONS, AugmentConfig, Recolouring, uniform
from conviction.augment.colour import ByFactor, Factors, Image, Strength, blend
from conviction.augment.interval import Ends, OneOrRange, drawn, drawn_whole, ends_around
from conviction.augment.rectangle import rectangles
from conviction.core.device import sent
from conviction.core.errors import ConfigError

Deviation = Annotated[float, Field(gt=0, le=1)]
SquareSide = Annotated[int, Field(ge=1, le=8192)]


class DetailConfig(AugmentConfig):
    """What all of these share."""

    p: float = Field(0.5, ge=0, le=1, description="Share of the images that get it")


class GaussianBlurConfig(DetailConfig):
    """Blur each image by a Gaussian of its own width; mirrored at the edge."""

    name: Literal["gaussian_blur"] = "gaussian_blur"
    kernel_px: int = Field(3, ge=3, le=63, description="Side of the kernel, odd")
    smallest_px: float = Field(0.1, gt=0, le=50, description="Smallest deviation")
    largest_px: float = Field(2.0, gt=0, le=50, description="Largest deviation")

    @model_validator(mode="after")
    def _sensible(self) -> GaussianBlurConfig:
        if self.kernel_px % 2 == 0:
            raise ValueError(f"`kernel_px` must be odd, but got {self.kernel_px}.")
        if self.smallest_px > self.largest_px:
            raise ValueError(f"`smallest_px <= largest_px` must hold, but got {self.smallest_px}, {self.largest_px}.")
        return self


class SharpnessConfig(DetailConfig):
    """Draw each image away from its smoothed self, or towards it."""

    name: Literal["sharpness"] = "sharpness"
    strength: Strength = 0.9


class GaussianNoiseConfig(DetailConfig):
    """Add noise to every value of an image."""

    name: Literal["gaussian_noise"] = "gaussian_noise"
    deviation: OneOrRange[Deviation, Deviation] = Field(
        0.05, description="Its deviation, on the scale [0, 1]. Or [low, high]: each image draws its own"
    )


class RandomErasingConfig(DetailConfig):
    """Erase a rectangle of each image, or fill it with noise; areas are those before sides are rounded to pixels."""

    name: Literal["random_erasing"] = "random_erasing"
    smallest_area: float = Field(0.02, gt=0, lt=1, description="Smallest share of the image that is erased")
    largest_area: float = Field(0.33, gt=0, lt=1, description="Largest share")
    largest_ratio: float = Field(3.3, ge=1, le=10, description="Largest height by width; the smallest is its inverse")
    fill: Literal["black", "grey", "noise"] = "black"

    @model_validator(mode="after")
    def _ordered(self) -> RandomErasingConfig:
        if self.smallest_area > self.largest_area:
            raise ValueError(
                f"`smallest_area <= largest_area` must hold, but got {self.smallest_area}, {self.largest_area}."
            )
        return self


class CutoutConfig(DetailConfig):
    """Erase a square of each image, whose middle may lie anywhere in it."""

    name: Literal["cutout"] = "cutout"
    size_px: OneOrRange[SquareSide, SquareSide] = Field(
        8, description="Side of the square; at the edge less is erased. Or [low, high]: each image draws its own"
    )
    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it")


def gaussian_blur(images: Image, kernel_px: int, deviation_B: Factors) -> Image:
    """Each image blurred along both sides by its own Gaussian, cut off at the kernel and summing to one."""
    reach = kernel_px // 2
    places = torch.arange(-reach, reach + 1, device=images.device)
    weights = torch.exp(-0.5 * (places / sent(deviation_B, images.device)[:, None]) ** 2)
    weights /= weights.sum(dim=1, keepdim=True)
    if min(images.shape[2:]) > reach:
        padded = functional.pad(images, (reach,) * 4, mode="reflect")
    else:
        padded = functional.pad(images, (reach,) * 4, mode="replicate")
    height, width = images.shape[2:]
    for axis, size in ((2, height), (3, width)):
        total = torch.zeros(())
        for index in range(kernel_px):
            total = total + padded.narrow(axis, index, size) * weights[:, index, None, None, None]
        padded = total
    return padded


def sharpness(images: Image, factor_B: Factors) -> Image:
    """Towards the smoothed image below 1, away from it above; pixels at the edge stay as they are."""
    if min(images.shape[2:]) < 3:
        return images
    inner = images[:, :, 1:-1, 1:-1]
    # The mean of nine pixels, the middle one five times: a 3×3 sum along one side, then the other.
    rows = images[:, :, :-2] + images[:, :, 1:-1] + images[:, :, 2:]
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * inner) / 13
    changed = images.clone()
    changed[:, :, 1:-1, 1:-1] = blend(inner, smooth, factor_B)
    return changed


def boxes(top_B: Tensor, left_B: Tensor, height_B: Tensor, width_B: Tensor, size_px: tuple[int, int]) -> Tensor:
    """A mask (B, 1, H, W) of a rectangle in each image; what lies outside the image is cut off."""
    rows, columns = torch.arange(size_px[0]), torch.arange(size_px[1])
    in_rows = (rows >= top_B[:, None]) & (rows < (top_B + height_B)[:, None])
    in_columns = (columns >= left_B[:, None]) & (columns < (left_B + width_B)[:, None])
    return (in_rows[:, :, None] & in_columns[:, None, :])[:, None]


class GaussianBlur(Recolouring):
    """Blurred, each image by its own deviation."""

    def __init__(self, config: GaussianBlurConfig) -> None:
        self._config, self.p = config, config.p

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draw."""
        deviation_B = uniform(len(images), self._config.smallest_px, self._config.largest_px, generator)
        return gaussian_blur(images, self._config.kernel_px, deviation_B)


class GaussianNoise(Recolouring):
    """With noise added."""

    def __init__(self, deviation: float | Ends, p: float) -> None:
        self._deviation, self.p = deviation, p

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each value by its own draw, of its image's deviation."""
        deviation_B = sent(drawn(len(images), self._deviation, generator), images.device)
        noise = sent(torch.randn(images.shape, generator=generator), images.device)
        return images.addcmul(noise, deviation_B[:, None, None, None])


class RandomErasing(Recolouring):
    """With a rectangle erased."""

    def __init__(self, config: RandomErasingConfig) -> None:
        self._config, self.p = config, config.p

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError where no rectangle would fit into the picture."""
        config, (_, height, width) = self._config, input_shape
        area = config.smallest_area * height * width
        # The ratios that leave sides which are rounded to less than the picture's.
        lowest = max(1 / config.largest_ratio, area / (width - 0.5) ** 2)
        highest = min(config.largest_ratio, (height - 0.5) ** 2 / area)
        if min(height, width) < 2 or lowest > highest:
            raise ConfigError(
                f"random_erasing: a rectangle must fit into the pictures, but none of smallest_area="
                f"{config.smallest_area:g} and largest_ratio={config.largest_ratio:g} fits into {height}×{width}. "
                "Lower `smallest_area`, or raise `largest_ratio`."
            )

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by the first of ten draws that fits, as torchvision does it; left alone where none does."""
        config, (num, _, height, width) = self._config, images.shape
        areas = (config.smallest_area, config.largest_area)
        found, fits_B = rectangles(
            num, (height, width), (height - 1, width - 1), areas, config.largest_ratio, generator
        )
        # Without a height nothing is erased.
        top_B, left_B, height_B, width_B = torch.where(fits_B, found, 0.0)
        mask = sent(boxes(top_B, left_B, height_B, width_B, (height, width)), images.device)
        if config.fill == "noise":
            noise = sent(torch.rand(images.shape, generator=generator), images.device)
            return torch.where(mask, noise, images)
        return images.masked_fill(mask, 0.0 if config.fill == "black" else 0.5)


class Cutout(Recolouring):
    """With a square erased."""

    def __init__(self, size_px: int | tuple[int, int], p: float) -> None:
        self._size_px, self.p = size_px, p

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError where nothing of a picture might be left."""
        longer = max(input_shape[1:])
        largest = self._size_px[1] if isinstance(self._size_px, tuple) else self._size_px
        if largest >= longer:
            raise ConfigError(
                f"cutout: `size_px < {longer}`, the pictures' longer side, must hold, but got size_px={largest}: "
                "a picture could be erased altogether."
            )

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draw."""
        num, _, height, width = images.shape
        side_B = drawn_whole(num, self._size_px, generator)
        top_B = torch.randint(0, height, (num,), generator=generator) - side_B // 2
        left_B = torch.randint(0, width, (num,), generator=generator) - side_B // 2
        mask = boxes(top_B, left_B, side_B, side_B, (height, width))
        return images.masked_fill(sent(mask, images.device), 0.0)


@AUGMENTATIONS.register(
    "gaussian_blur", GaussianBlurConfig, "Blur, each image by its own width", "torchvision's GaussianBlur"
)
def _build_blur(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, GaussianBlurConfig)
    return GaussianBlur(config)


@AUGMENTATIONS.register(
    "sharpness",
    SharpnessConfig,
    "Sharpen or smooth",
    reference="E. Cubuk et al., AutoAugment: learning augmentation strategies from data, 2019, appendix",
)
def _build_sharpness(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, SharpnessConfig)
    return ByFactor(sharpness, *ends_around(1, config.strength), config.p)


@AUGMENTATIONS.register(
    "gaussian_noise",
    GaussianNoiseConfig,
    "Add noise to every value",
    reference="C. Bishop, Training with noise is equivalent to Tikhonov regularization, 1995",
)
def _build_noise(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, GaussianNoiseConfig)
    return GaussianNoise(config.deviation, config.p)


@AUGMENTATIONS.register(
    "random_erasing",
    RandomErasingConfig,
    "Erase a rectangle, or fill it with noise",
    reference="Z. Zhong et al., Random erasing data augmentation, 2017",
)
def _build_erasing(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, RandomErasingConfig)
    return RandomErasing(config)


@AUGMENTATIONS.register(
    "cutout",
    CutoutConfig,
    "Erase a square whose middle lies anywhere",
    reference="T. DeVries, G. Taylor, Improved regularization of CNNs with cutout, 2017",
)
def _build_cutout(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, CutoutConfig)
    return Cutout(config.size_px, config.p)
