"""JPEG: written and read again, as libjpeg does it to the last bit, for a whole batch at once."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Generator, Tensor
from torch.nn import functional

from conviction.augment.base import AUGMENTATIONS, GREY_LEVELS, AugmentConfig, Recolouring
from conviction.core.device import sent
from conviction.core.errors import ConfigError

Image = Float[Tensor, "B C H W"]
Plane = Float[Tensor, "B _ _ _"]
# libjpeg's tables for quality 50: ITU-T T.81, annex K.1.
_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    *((99,) * 8,) * 4,
)
# libjpeg's cosine transform in whole numbers: √8 times the orthonormal one, in 13 bits, with its own rounding errors.
_COSINES = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
_BLOCK = 8
_ONE = 1 << 16
_NUDGE = 2.0**-40
# Of colours in fewer columns libjpeg repeats each value, instead of going over from one to the next.
_LEAST_SMOOTHED_PX = 3
_PIXELS_IN_CACHE = 1 << 17


class JpegConfig(AugmentConfig):
    """Write each image as JPEG, in a quality of its own, and read it again."""

    name: Literal["jpeg"] = "jpeg"
    p: float = Field(0.5, ge=0, le=1, description="Share of the images that get it")
    smallest_quality: int = Field(25, ge=1, le=100, description="Worst quality, on libjpeg's scale")
    largest_quality: int = Field(95, ge=1, le=100, description="Best quality")

    @model_validator(mode="after")
    def _ordered(self) -> JpegConfig:
        if self.smallest_quality > self.largest_quality:
            raise ValueError(
                "`smallest_quality <= largest_quality` must hold, but got "
                f"{self.smallest_quality}, {self.largest_quality}."
            )
        return self


def jpeg(images: Image, quality_B: Int64[Tensor, " B"]) -> Image:
    """What is left of each image after JPEG: 4:2:0, baseline tables, the accurate integer cosine transform.

    Whole numbers below 2⁵³ throughout, so that double precision computes what libjpeg does in integers.
    """
    num_pixels = images.shape[2] * images.shape[3]
    # A part of a batch at a time stays in a processor's cache.
    most = max(1, _PIXELS_IN_CACHE // num_pixels) if images.device.type == "cpu" else len(images)
    parts = zip(torch.split(images, most), torch.split(quality_B, most), strict=True)
    return torch.cat([_written_and_read(part, quality) for part, quality in parts])


def _written_and_read(images: Image, quality_B: Int64[Tensor, " B"]) -> Image:
    height, width = images.shape[2:]
    levels = (images * GREY_LEVELS).round()
    if images.shape[1] == 1:
        return _coded(levels, _steps(_LUMINANCE, quality_B), height, width) / GREY_LEVELS
    luminance, chrominance = _to_ycc(levels)
    luminance = _coded(luminance, _steps(_LUMINANCE, quality_B), height, width)
    small = _halved(chrominance)
    coded = _coded(small, _steps(_CHROMINANCE, quality_B), (height + 1) // 2, (width + 1) // 2)
    return _to_rgb(luminance, _doubled(coded)[:, :, :height, :width]) / GREY_LEVELS


def _steps(table: tuple[tuple[int, ...], ...], quality_B: Int64[Tensor, " B"]) -> Float[Tensor, "8 8 B"]:
    """Each image's quantisation steps, as libjpeg scales its tables."""
    percent_B = torch.where(quality_B < 50, 5000 // quality_B, 200 - 2 * quality_B)
    scaled = (torch.tensor(table)[..., None] * percent_B + 50) // 100
    return scaled.clamp_(1, 255).double()


def _to_ycc(levels: Image) -> tuple[Plane, Plane]:
    """Luminance (B, 1, H, W) and both chrominances (B, 2, H, W), in libjpeg's 16 bits; sums stay below 2²⁴."""
    red, green, blue = levels.unbind(1)
    luminance = (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(_ONE // 2)
    chrominance = torch.empty_like(levels[:, :2]).fill_(128 * _ONE + _ONE // 2 - 1)
    for plane, weights in zip(chrominance.unbind(1), ((-11059, -21709, 32768), (32768, -27439, -5329)), strict=True):
        for channel, weight in zip((red, green, blue), weights, strict=True):
            plane.add_(channel, alpha=weight)
    return luminance.mul_(1 / _ONE).floor_().unsqueeze(1), chrominance.mul_(1 / _ONE).floor_()


def _to_rgb(luminance: Plane, chrominance: Plane) -> Image:
    """Back again, clamped to grey levels."""
    bluish, reddish = (chrominance - 128).unbind(1)
    num, _, height, width = luminance.shape
    levels = luminance.new_full((num, 3, height, width), _ONE // 2)
    levels[:, 0].add_(reddish, alpha=91881)
    levels[:, 1].sub_(bluish, alpha=22554).sub_(reddish, alpha=46802)
    levels[:, 2].add_(bluish, alpha=116130)
    return levels.mul_(1 / _ONE).floor_().add_(luminance).clamp_(0, GREY_LEVELS)


def _halved(planes: Plane) -> Plane:
    """The mean of every four neighbours, rounded down and up in turn along a row."""
    height, width = planes.shape[2:]
    # Towards the right libjpeg goes on with the last pixel to the end of the block; below it, with the last mean.
    columns = 2 * _BLOCK * -(-width // (2 * _BLOCK))
    padded = functional.pad(planes, (0, columns - width, 0, height % 2), mode="replicate")
    rows = padded[:, :, ::2] + padded[:, :, 1::2]
    bias = sent(torch.tensor([1.0, 2.0]), planes.device).repeat(columns // 4)
    return (rows[..., ::2] + rows[..., 1::2]).add_(bias).mul_(1 / 4).floor_()


def _doubled(planes: Plane) -> Plane:
    """Twice as high and wide: three parts of the nearest pixel and one of the next, along both sides."""
    if planes.shape[3] < _LEAST_SMOOTHED_PX:
        return planes.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    num, channels, height, width = planes.shape
    tall, near = functional.pad(planes, (0, 0, 1, 1), mode="replicate"), 3 * planes
    rows = planes.new_empty((num, channels, 2 * height, width))
    torch.add(near, tall[:, :, :-2], out=rows[:, :, ::2])
    torch.add(near, tall[:, :, 2:], out=rows[:, :, 1::2])
    wide, near = functional.pad(rows, (1, 1, 0, 0), mode="replicate"), 3 * rows
    columns = planes.new_empty((num, channels, 2 * height, 2 * width))
    torch.add(near + 8, wide[..., :-2], out=columns[..., ::2])
    torch.add(near + 7, wide[..., 2:], out=columns[..., 1::2])
    return columns.mul_(1 / 16).floor_()


def _coded(planes: Plane, steps_88B: Float[Tensor, "8 8 B"], height: int, width: int) -> Plane:
    """The planes after quantisation in blocks of 8×8, cut to `height` and `width`."""
    num, channels = planes.shape[:2]
    rows, columns = (-(-side // _BLOCK) for side in planes.shape[2:])
    padding = (0, columns * _BLOCK - planes.shape[3], 0, rows * _BLOCK - planes.shape[2])
    padded = functional.pad(planes, padding, mode="replicate") if any(padding) else planes
    # The same place of all blocks side by side: then a transform is one product of matrices, without transpositions.
    blocks = padded.view(num, channels, rows, _BLOCK, columns, _BLOCK).permute(3, 5, 0, 1, 2, 4)
    numbers = (blocks - 128).double().reshape(_BLOCK, _BLOCK, -1)
    cosines = sent(torch.tensor(_COSINES, dtype=torch.float64), planes.device)
    # Rows before columns, and back in the other order: between the two each number is rounded.
    found = _rounded((cosines * 2**-15) @ _rounded((cosines * 2**-11) @ numbers).view(_BLOCK, -1))
    # Coefficients are eight times too large; halves are rounded away from zero, which the smallest nudge does.
    steps = sent(steps_88B, planes.device)[..., None]
    coefficients = found.view(_BLOCK, _BLOCK, num, -1).mul_((1 + _NUDGE) / (8 * steps)).round_().mul_(steps)
    along_columns = _rounded((cosines.T * 2**-11) @ coefficients.view(_BLOCK, -1)).view(_BLOCK, _BLOCK, -1)
    decoded = _rounded((cosines.T * 2**-18) @ along_columns).float().add_(128).clamp_(0, GREY_LEVELS)
    whole = decoded.view(blocks.shape).permute(2, 3, 4, 0, 5, 1).reshape(padded.shape)
    return whole[:, :, :height, :width]


def _rounded(numbers: Tensor) -> Tensor:
    """In place; halves upwards."""
    return numbers.add_(0.5).floor_()


class Jpeg(Recolouring):
    """Written as JPEG and read again, each image in its own quality."""

    by_channel = True

    def __init__(self, config: JpegConfig) -> None:
        self._config, self.p = config, config.p

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError for other pictures than JPEG holds."""
        if input_shape[0] not in (1, 3):
            raise ConfigError(
                f"jpeg: pictures must have 1 channel, grey, or 3, red, green and blue, but got {input_shape[0]}. "
                "Remove it from `augment`."
            )

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draw."""
        low, high = self._config.smallest_quality, self._config.largest_quality
        return jpeg(images, torch.randint(low, high + 1, (len(images),), generator=generator))


@AUGMENTATIONS.register(
    "jpeg", JpegConfig, "Write as JPEG, each image in its own quality, and read again", "ITU-T T.81, 1992, and libjpeg"
)
def _build_jpeg(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, JpegConfig)
    return Jpeg(config)
