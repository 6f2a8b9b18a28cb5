"""Augmentations that turn, stretch and slant: each a homography, all of them composed into one resampling."""

from __future__ import annotations

import math
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from conviction.augment.base import (
    AUGMENTATIONS,
    AugmentConfig,
    Interpolation,
    Outside,
    Placement,
    Size,
    chosen,
    uniform,
)
from conviction.augment.geometric import middles, shifts
from conviction.augment.interval import OneOrRange, ends_around, not_only
from conviction.augment.rectangle import rectangles
from conviction.core.errors import ConfigError
from conviction.data.stream import Draw

Angle = Annotated[float, Field(ge=-360, le=360)]
Slant = Annotated[float, Field(gt=-90, lt=90)]


class WarpConfig(AugmentConfig):
    """What all of these share."""

    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it")
    outside: Outside = Field("black", description="What lies outside: black, the picture mirrored, its edge")
    interpolation: Interpolation = Field("bilinear", description="How a value between pixels is found")


class TranslateConfig(WarpConfig):
    """Shift each image by whole pixels, up to a share of its width and height."""

    name: Literal["translate"] = "translate"
    share: float = Field(0.1, gt=0, lt=1, description="Largest shift, as a share of the side")


class RotateConfig(WarpConfig):
    """Turn each image about its middle."""

    name: Literal["rotate"] = "rotate"
    degrees: Annotated[OneOrRange[Annotated[float, Field(gt=0, le=180)], Angle], not_only(0)] = Field(
        15.0, description="Largest angle, either way. Or [low, high], −360 to 360; counter-clockwise above 0"
    )


class ScaleConfig(WarpConfig):
    """Enlarge or shrink each image about its middle, by a factor whose logarithm is uniform."""

    name: Literal["scale"] = "scale"
    smallest: float = Field(0.8, gt=0, le=100)
    largest: float = Field(1.25, gt=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> ScaleConfig:
        if self.smallest >= self.largest:
            raise ValueError(f"`smallest < largest` must hold, but got {self.smallest} and {self.largest}.")
        return self


class ShearConfig(WarpConfig):
    """Slant each image along both sides."""

    name: Literal["shear"] = "shear"
    degrees: Annotated[OneOrRange[Annotated[float, Field(gt=0, lt=90)], Slant], not_only(0)] = Field(
        10.0, description="Largest angle along each side, either way. Or [low, high] for both sides, within ±90"
    )


class PerspectiveConfig(WarpConfig):
    """See each image from aside: its corners are drawn inwards."""

    name: Literal["perspective"] = "perspective"
    distortion: float = Field(0.3, gt=0, le=1, description="How far a corner may move, as a share of half the side")


class RandomResizedCropConfig(AugmentConfig):
    """Cut a part of each image out and bring it to `size_px`; in evaluation, cut that size from the middle."""

    name: Literal["random_resized_crop"] = "random_resized_crop"
    size_px: int = Field(ge=1, le=8192, description="Height and width of what comes out")
    p: float = Field(
        1.0, ge=0, le=1, description="Share of the images that get it; the others are cut as in evaluation"
    )
    smallest_area: float = Field(0.08, gt=0, le=1, description="Smallest share of the image that is cut out")
    largest_area: float = Field(1.0, gt=0, le=1, description="Largest share")
    largest_ratio: float = Field(4 / 3, ge=1, le=10, description="Largest width by height; the smallest is its inverse")
    interpolation: Interpolation = "bilinear"

    @model_validator(mode="after")
    def _ordered(self) -> RandomResizedCropConfig:
        if self.smallest_area > self.largest_area:
            raise ValueError(
                f"`smallest_area <= largest_area` must hold, but got {self.smallest_area} and {self.largest_area}."
            )
        return self


def rotation(degrees_B: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Matrices of images turned counter-clockwise."""
    angle = degrees_B * (math.pi / 180)
    matrix = torch.eye(3).repeat(len(angle), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = angle.cos()
    matrix[:, 1, 0], matrix[:, 0, 1] = angle.sin(), -angle.sin()
    return matrix


def scaling(factor_B: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Matrices of images enlarged by a factor."""
    matrix = torch.eye(3).repeat(len(factor_B), 1, 1)
    matrix[:, 0, 0] = matrix[:, 1, 1] = 1 / factor_B
    return matrix


def shearing(x_degrees_B: Float[Tensor, " B"], y_degrees_B: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Matrices of images slanted along x, then along y, as torchvision's `affine` does it."""
    x, y = ((degrees * (math.pi / 180)).tan() for degrees in (x_degrees_B, y_degrees_B))
    matrix = torch.eye(3).repeat(len(x), 1, 1)
    matrix[:, 0, 0], matrix[:, 0, 1], matrix[:, 1, 0] = 1 + x * y, x, y
    return matrix


def homography(
    output_B42: Float[Tensor, "B 4 2"], input_B42: Float[Tensor, "B 4 2"], size_px: Size
) -> Float[Tensor, "B 3 3"]:
    """Matrices that lead the four points of the output to those of the input.

    Points are (x, y) from the upper left corner of images of `size_px`; solved as eight linear equations.
    """
    (x, y), (u, v) = output_B42.double().unbind(-1), input_B42.double().unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.cat(
        [
            torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1),
            torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1),
        ],
        dim=1,
    )
    found = torch.linalg.solve(rows, torch.cat([u, v], dim=1))
    corner = torch.cat([found, torch.ones(len(found), 1, dtype=found.dtype)], dim=1).view(-1, 3, 3)
    half = torch.tensor([[size_px[1] / 2, size_px[0] / 2]], dtype=torch.float64)
    to_corner, from_corner = (torch.eye(3, dtype=torch.float64).repeat(1, 1, 1) for _ in range(2))
    to_corner[0, :2, 2], from_corner[0, :2, 2] = half[0], -half[0]
    return (from_corner @ corner @ to_corner).float()


class Warp(Placement):
    """A homography for each image; the images that are not chosen stay as they are."""

    def __init__(self, config: WarpConfig) -> None:
        self.outside, self.interpolation, self._p = config.outside, config.interpolation, config.p
        self._config = config

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A matrix for each image."""
        matrix = self._drawn(num_images, size_px, draw)
        if self._p == 1:
            return matrix
        return torch.where(chosen(num_images, self._p, draw.generator)[:, None, None], matrix, torch.eye(3))

    def _drawn(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        config, generator = self._config, draw.generator
        if isinstance(config, TranslateConfig):
            x, y = (uniform(num_images, -1, 1, generator) * config.share * side for side in (size_px[1], size_px[0]))
            return shifts(-x.round(), -y.round())
        if isinstance(config, RotateConfig):
            return rotation(uniform(num_images, *ends_around(0, config.degrees), generator))
        if isinstance(config, ScaleConfig):
            return scaling(uniform(num_images, math.log(config.smallest), math.log(config.largest), generator).exp())
        if isinstance(config, ShearConfig):
            x, y = (uniform(num_images, *ends_around(0, config.degrees), generator) for _ in range(2))
            return shearing(x, y)
        assert isinstance(config, PerspectiveConfig)
        height, width = size_px
        if min(size_px) < 2:
            raise ConfigError(f"perspective: pictures must have 2 pixels a side or more, but got {height}×{width}.")
        corners = torch.tensor([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=torch.float32)
        inwards = torch.tensor([[1, 1], [-1, 1], [-1, -1], [1, -1]])
        reach = torch.tensor([config.distortion * width / 2, config.distortion * height / 2])
        moved = corners + inwards * torch.rand((num_images, 4, 2), generator=generator) * reach
        return homography(moved, corners.expand(num_images, 4, 2), size_px)


class RandomResizedCrop(Placement):
    """A part of each image, brought to one size."""

    def __init__(self, config: RandomResizedCropConfig) -> None:
        self.interpolation = config.interpolation
        self.smooths = config.interpolation == "bilinear"
        self._config = config

    def output_size(self, size_px: Size) -> Size:
        """A square. Raises: ConfigError."""
        wanted = self._config.size_px
        if wanted > min(size_px):
            raise ConfigError(
                f"random_resized_crop: `size_px <= {min(size_px)}`, the pictures' shorter side, must hold, as that "
                f"much is cut from their middle in evaluation, but got size_px={wanted}."
            )
        return wanted, wanted

    def matrices(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "B 3 3"]:
        """A stretch and a shift for each image."""
        wanted = self.output_size(size_px)[0]
        top_B, left_B, height_B, width_B = self._parts(num_images, size_px, draw)
        matrix = shifts(left_B + (width_B - size_px[1]) / 2, top_B + (height_B - size_px[0]) / 2)
        matrix[:, 0, 0], matrix[:, 1, 1] = width_B / wanted, height_B / wanted
        if self._config.p == 1:
            return matrix
        is_chosen_B = chosen(num_images, self._config.p, draw.generator)
        return torch.where(is_chosen_B[:, None, None], matrix, middles(num_images, size_px, (wanted, wanted)))

    def _parts(self, num_images: int, size_px: Size, draw: Draw) -> Float[Tensor, "4 B"]:
        """Top, left, height and width of each part: the first of ten draws that fits, else the largest in the middle.

        Of pictures much wider or higher than the ratios allow, the largest is cut to the nearest of them.
        """
        config, (height, width) = self._config, size_px
        areas = (config.smallest_area, config.largest_area)
        drawn, fits_B = rectangles(num_images, size_px, size_px, areas, config.largest_ratio, draw.generator)
        largest_height = min(height, round(width * config.largest_ratio))
        largest_width = min(width, round(height * config.largest_ratio))
        middle = ((height - largest_height) // 2, (width - largest_width) // 2, largest_height, largest_width)
        return torch.where(fits_B, drawn, torch.tensor(middle).float()[:, None])


_SIMARD = "P. Simard et al., Best practices for convolutional neural networks, 2003"


@AUGMENTATIONS.register("translate", TranslateConfig, "Shift by whole pixels, up to a share of the side", _SIMARD)
@AUGMENTATIONS.register("rotate", RotateConfig, "Turn by up to some degrees, either way", _SIMARD)
@AUGMENTATIONS.register("scale", ScaleConfig, "Enlarge or shrink about the middle", _SIMARD)
@AUGMENTATIONS.register("shear", ShearConfig, "Slant by up to some degrees along both sides", _SIMARD)
@AUGMENTATIONS.register(
    "perspective", PerspectiveConfig, "See from aside: corners drawn inwards", "torchvision's RandomPerspective"
)
def _build_warp(config: AugmentConfig) -> Placement:
    assert isinstance(config, WarpConfig)
    return Warp(config)


@AUGMENTATIONS.register(
    "random_resized_crop",
    RandomResizedCropConfig,
    "A part of each image, brought to one size; the middle in evaluation",
    reference="C. Szegedy et al., Going deeper with convolutions, 2014, section 6",
)
def _build_random_resized_crop(config: AugmentConfig) -> Placement:
    assert isinstance(config, RandomResizedCropConfig)
    return RandomResizedCrop(config)
