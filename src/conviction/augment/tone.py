"""Augmentations of grey levels: invert, solarize, posterize, autocontrast, equalize."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Generator, Tensor

from conviction.augment.base import AUGMENTATIONS, GREY_LEVELS, AugmentConfig, Recolouring
from conviction.augment.interval import Ends, OneOrRange, drawn, drawn_whole
from conviction.core.device import sent

Image = Float[Tensor, "B C H W"]
Threshold = Annotated[float, Field(ge=0, le=1)]
Bits = Annotated[int, Field(ge=1, le=7)]
_TINY = 1e-12


class ToneConfig(AugmentConfig):
    """What all of these share."""

    p: float = Field(0.5, ge=0, le=1, description="Share of the images that get it")


class InvertConfig(ToneConfig):
    """Turn light into dark."""

    name: Literal["invert"] = "invert"


class SolarizeConfig(ToneConfig):
    """Turn what is lighter than a threshold into dark."""

    name: Literal["solarize"] = "solarize"
    threshold: OneOrRange[Threshold, Threshold] = Field(
        0.5, description="On [0, 1]; values from it on are inverted. Or [low, high]: each image draws its own"
    )


class PosterizeConfig(ToneConfig):
    """Keep the highest bits of each grey level alone."""

    name: Literal["posterize"] = "posterize"
    bits: OneOrRange[Bits, Bits] = Field(
        4, description="How many are kept, 1 to 7. Or [low, high]: each image draws its own"
    )


class AutocontrastConfig(ToneConfig):
    """Stretch each channel of an image to the whole range."""

    name: Literal["autocontrast"] = "autocontrast"


class EqualizeConfig(ToneConfig):
    """Spread each channel's grey levels so that all are equally frequent."""

    name: Literal["equalize"] = "equalize"


def invert(images: Image) -> Image:
    """1 − value."""
    return 1 - images


def solarize(images: Image, threshold_B: Float[Tensor, " B"]) -> Image:
    """Inverted where a value is at the image's threshold or above."""
    # |1 − value| where it is, |0 − value| elsewhere; a choice takes six times as long.
    is_above = images.clone().ge_(sent(threshold_B, images.device)[:, None, None, None])
    return is_above.sub_(images).abs_()


def posterize(images: Image, bits_B: Tensor) -> Image:
    """The grey level with its lower bits cleared; `bits` (B) are those that are kept, 8 keeps all."""
    # Of each level, the multiple of the step below it. Half a level more: values lie beside levels by rounding.
    step = torch.pow(2.0, 8 - sent(bits_B, images.device).float())[:, None, None, None]
    return (images * (GREY_LEVELS / step)).add_(0.5 / step).floor_().mul_(step / GREY_LEVELS)


def autocontrast(images: Image) -> Image:
    """Each channel's least value to 0 and largest to 1; a channel of one value is left alone."""
    least, most = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    spread = most - least
    stretch = torch.where(spread > 0, 1 / spread.clamp(min=_TINY), 1.0)
    return (images - torch.where(spread > 0, least, 0.0)).mul_(stretch)


def equalize(images: Image) -> Image:
    """Each channel's grey levels through its own cumulative histogram, as Pillow and torchvision do it."""
    batch, channels, height, width = images.shape
    num_levels = GREY_LEVELS + 1
    first = torch.arange(0, batch * channels * num_levels, num_levels, dtype=torch.int32, device=images.device)
    # Where each pixel's level stands in the histograms, which lie one behind the other.
    index = (images * GREY_LEVELS).round_().to(torch.int32).reshape(-1, height * width).add_(first[:, None]).flatten()
    counts = torch.bincount(index, minlength=batch * channels * num_levels).to(torch.int32).view(-1, num_levels)
    levels = torch.arange(num_levels, dtype=torch.int32, device=images.device)
    # The level that is largest of all does not count, and a channel whose step is 0 is left alone.
    largest = torch.where(counts > 0, levels, 0).amax(dim=1, keepdim=True)
    step = (height * width - counts.gather(1, largest.long())) // GREY_LEVELS
    below = counts.cumsum(dim=1, dtype=torch.int32).sub_(counts)
    table = below.add_(step // 2).div_(step.clamp(min=1), rounding_mode="floor").clamp_(0, GREY_LEVELS)
    table = torch.where(step > 0, table, levels).float().div_(GREY_LEVELS)
    return table.flatten().index_select(0, index).view(images.shape)


class Tone(Recolouring):
    """A change without a draw of its own, but for the images that get it."""

    def __init__(self, change: Callable[[Image], Image], p: float) -> None:
        self._change, self.p = change, p
        self.by_channel = change in (autocontrast, equalize)

    def recolour(self, images: Image, generator: Generator) -> Image:
        """All of them alike."""
        return self._change(images)


class Solarize(Recolouring):
    """Turned into dark from a threshold on."""

    def __init__(self, threshold: float | Ends, p: float) -> None:
        self._threshold, self.p = threshold, p

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image from its own threshold on."""
        return solarize(images, drawn(len(images), self._threshold, generator))


class Posterize(Recolouring):
    """With the lower bits cleared."""

    def __init__(self, bits: int | tuple[int, int], p: float) -> None:
        self._bits, self.p = bits, p

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image with its own number of bits."""
        return posterize(images, drawn_whole(len(images), self._bits, generator))


_CUBUK = "E. Cubuk et al., AutoAugment: learning augmentation strategies from data, 2019, appendix"


@AUGMENTATIONS.register("invert", InvertConfig, "Turn light into dark", _CUBUK)
@AUGMENTATIONS.register("solarize", SolarizeConfig, "Turn what is lighter than a threshold into dark", _CUBUK)
@AUGMENTATIONS.register("posterize", PosterizeConfig, "Keep the highest bits of each grey level", _CUBUK)
@AUGMENTATIONS.register("autocontrast", AutocontrastConfig, "Stretch each channel to the whole range", _CUBUK)
@AUGMENTATIONS.register("equalize", EqualizeConfig, "Make all grey levels equally frequent", _CUBUK)
def _build_tone(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, ToneConfig)
    if isinstance(config, SolarizeConfig):
        return Solarize(config.threshold, config.p)
    if isinstance(config, PosterizeConfig):
        return Posterize(config.bits, config.p)
    changes = {"invert": invert, "autocontrast": autocontrast, "equalize": equalize}
    return Tone(changes[config.name], config.p)
