"""Augmentations of light and colour: brightness, contrast, saturation, hue, grey."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Generator, Tensor

from conviction.augment.base import AUGMENTATIONS, AugmentConfig, Recolouring, uniform
from conviction.augment.interval import Ends, OneOrRange, ends_around, not_only
from conviction.core.device import sent
from conviction.core.errors import ConfigError

Factor = Annotated[float, Field(ge=0, le=10)]
Turn = Annotated[float, Field(ge=-0.5, le=0.5)]
_OF_FACTORS = "s: factors uniform on [1 − s, 1 + s]. Or [low, high] of the factors, 0 to 10; 1 changes nothing"
_OF_TURNS = "Largest turn around the colour circle, either way; 0.5 is the opposite colour. Or [low, high], −0.5 to 0.5"
Strength = Annotated[
    OneOrRange[Annotated[float, Field(gt=0, le=1)], Factor], not_only(1), Field(description=_OF_FACTORS)
]
NoStrength = Annotated[
    OneOrRange[Annotated[float, Field(ge=0, le=1)], Factor],
    not_only(1),
    Field(description=f"{_OF_FACTORS}. 0: left alone"),
]
# The weights of red, green and blue in grey, ITU-R BT.601.
_GREY = (0.2989, 0.587, 0.114)
_TINY = 1e-12
Image = Float[Tensor, "B C H W"]
Factors = Float[Tensor, " B"]


class ColourConfig(AugmentConfig):
    """What all of these share."""

    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it")


class BrightnessConfig(ColourConfig):
    """Multiply all values of an image by a factor."""

    name: Literal["brightness"] = "brightness"
    strength: Strength = 0.4


class ContrastConfig(ColourConfig):
    """Draw an image towards its mean grey, or away from it."""

    name: Literal["contrast"] = "contrast"
    strength: Strength = 0.4


class SaturationConfig(ColourConfig):
    """Draw each pixel towards its grey, or away from it."""

    name: Literal["saturation"] = "saturation"
    strength: Strength = 0.4


class HueConfig(ColourConfig):
    """Turn the colours of an image around the colour circle."""

    name: Literal["hue"] = "hue"
    turns: Annotated[OneOrRange[Annotated[float, Field(gt=0, le=0.5)], Turn], not_only(0)] = Field(
        0.1, description=_OF_TURNS
    )


class GrayscaleConfig(ColourConfig):
    """Take the colours away."""

    name: Literal["grayscale"] = "grayscale"
    p: float = Field(0.2, ge=0, le=1, description="Share of the images that get it")


class ColorJitterConfig(ColourConfig):
    """Brightness, contrast, saturation and hue, in an order that each image draws.

    Of pictures without colours, brightness and contrast alone.
    """

    name: Literal["color_jitter"] = "color_jitter"
    brightness: NoStrength = 0.4
    contrast: NoStrength = 0.4
    saturation: NoStrength = 0.4
    hue: Annotated[OneOrRange[Annotated[float, Field(ge=0, le=0.5)], Turn], not_only(0)] = Field(
        0.1, description=f"{_OF_TURNS}. 0: left alone"
    )

    @model_validator(mode="after")
    def _changes_something(self) -> ColorJitterConfig:
        if not any((self.brightness, self.contrast, self.saturation, self.hue)):
            raise ValueError("all strengths 0 would leave every picture as it is. Give one, or take color_jitter out.")
        return self


def grey(images: Image) -> Float[Tensor, "B 1 H W"]:
    """The grey of each pixel; images of one channel are grey already."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    return (_GREY[0] * red).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2]).unsqueeze(1)


def blend(images: Image, others: Float[Tensor, "B _ _ _"], factor_B: Factors) -> Image:
    """`factor · image + (1 − factor) · other`, clamped to [0, 1]."""
    factor = sent(factor_B, images.device)[:, None, None, None]
    return torch.lerp(others.expand_as(images), images, factor).clamp_(0, 1)


def brightness(images: Image, factor_B: Factors) -> Image:
    """All values multiplied, clamped to [0, 1]."""
    return (images * sent(factor_B, images.device)[:, None, None, None]).clamp_(0, 1)


def contrast(images: Image, factor_B: Factors) -> Image:
    """Towards the image's mean grey below 1, away from it above."""
    return blend(images, grey(images).mean(dim=(1, 2, 3), keepdim=True), factor_B)


def saturation(images: Image, factor_B: Factors) -> Image:
    """Towards each pixel's grey below 1, away from it above."""
    return blend(images, grey(images), factor_B) if images.shape[1] == 3 else images


def hue(images: Image, turns_B: Factors) -> Image:
    """Colours turned by a share of the colour circle; hexcone model, as torchvision's `adjust_hue`."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.unbind(1)
    most, least = images.amax(dim=1), images.amin(dim=1)
    spread = most - least
    # 1 where a channel is the largest, else 0: products take a quarter of the time of choices.
    is_red, is_green = (torch.eq(most, one).to(images.dtype) for one in (red, green))
    # In sixths of the circle: each third has one channel that is the largest.
    sixth = (red - green).add_(spread, alpha=4)
    sixth += is_green * ((blue - red).add_(spread, alpha=2) - sixth)
    sixth += is_red * (green - blue - sixth)
    turned = sixth.div_(spread.clamp(min=_TINY)).div_(6).add_(sent(turns_B, images.device)[:, None, None])
    # Each channel is a trapezium over the circle, a third apart from the next one.
    result = torch.empty_like(images)
    for channel, start in enumerate((5 / 6, 3 / 6, 1 / 6)):
        place = turned + start
        place.sub_(place.floor()).mul_(6)
        torch.addcmul(most, torch.minimum(place, 4 - place).clamp_(0, 1), spread, value=-1, out=result[:, channel])
    return result


_BY_CHANNEL = (contrast, saturation, hue)
_COLOUR_CHANNELS = 3


def _check_colour(name: str, num_channels: int) -> None:
    if num_channels != _COLOUR_CHANNELS:
        raise ConfigError(
            f"{name} needs pictures in colour, of 3 channels, but got {num_channels}: nothing would change. Remove it "
            "from `augment`, or set `data.color: rgb` where the files have colours."
        )


class ByFactor(Recolouring):
    """A change by a factor, or an amount, that each image draws on an interval."""

    def __init__(self, change: Callable[[Image, Factors], Image], low: float, high: float, p: float) -> None:
        self.change, self._low, self._high, self.p = change, low, high, p
        self.by_channel = change in _BY_CHANNEL

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError where colours are changed and there are none."""
        if self.change in (saturation, hue):
            _check_colour(self.change.__name__, input_shape[0])

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draw."""
        return self.change(images, uniform(len(images), self._low, self._high, generator))


class Grayscale(Recolouring):
    """Without colours, in the same number of channels."""

    by_channel = True

    def __init__(self, p: float) -> None:
        self.p = p

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError where there are no colours."""
        _check_colour("grayscale", input_shape[0])

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Grey."""
        return grey(images).expand_as(images).clone()


class ColorJitter(Recolouring):
    """Several changes in an order of each image's own; of pictures without colours, saturation and hue are left out."""

    by_channel = True

    def __init__(self, ranges: Mapping[str, Ends], p: float) -> None:
        self.p = p
        self._blends = {name: ends for name, ends in ranges.items() if name != "hue"}
        self._turns = ranges.get("hue", (0.0, 0.0))
        self._is_of_colours_alone = bool(ranges) and ranges.keys() <= {"saturation", "hue"}

    def check(self, input_shape: tuple[int, int, int]) -> None:
        """Raises: ConfigError where nothing but colours is changed and there are none."""
        if self._is_of_colours_alone:
            _check_colour("color_jitter without brightness and contrast", input_shape[0])

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draws, in its own order: that of the blends, and where the hue stands in it."""
        num, num_blends = len(images), len(self._blends)
        # Side by side lie those whose hue is turned at the same place, so that it is turned in each image once.
        place_B, index = torch.randint(0, num_blends + 1, (num,), generator=generator).sort()
        bounds = [0, *torch.bincount(place_B, minlength=num_blends + 1).cumsum(0).tolist()]
        turns_B = uniform(num, *self._turns, generator)
        factors = [uniform(num, *ends, generator) for ends in self._blends.values()]
        order_BN = torch.rand((num, num_blends), generator=generator).argsort(dim=1)
        index = sent(index, images.device)
        changed = images[index]
        for place in range(num_blends + 1):
            turned = slice(bounds[place], bounds[place + 1])
            if self._turns != (0, 0) and bounds[place] < bounds[place + 1]:
                changed[turned] = hue(changed[turned], turns_B[turned])
            if place < num_blends:
                changed = self._blended(changed, order_BN[:, place], torch.stack(factors))
        return torch.empty_like(images).index_copy_(0, index, changed)

    def _blended(self, images: Image, blend_B: Int64[Tensor, " B"], factors_NB: Float[Tensor, "N B"]) -> Image:
        """Each image after one of the blends, which differ in what they draw it to alone."""
        shares_N2 = torch.tensor([_DRAWN_TO[name] for name in self._blends])
        mean, own = sent(shares_N2[blend_B], images.device)[:, :, None, None, None].unbind(1)
        greys = grey(images)
        others = torch.addcmul(mean * greys.mean(dim=(1, 2, 3), keepdim=True), own, greys)
        return blend(images, others, factors_NB[blend_B, torch.arange(len(images))])


# The shares of its mean grey, and of each pixel's own, in what an image is drawn to, or away from.
_DRAWN_TO = {"brightness": (0.0, 0.0), "contrast": (1.0, 0.0), "saturation": (0.0, 1.0)}
_CHANGES = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
_HOWARD = "A. Howard, Some improvements on deep convolutional neural network based image classification, 2013"


@AUGMENTATIONS.register("brightness", BrightnessConfig, "Multiply all values by a factor", _HOWARD)
@AUGMENTATIONS.register("contrast", ContrastConfig, "Towards the mean grey or away from it", _HOWARD)
@AUGMENTATIONS.register("saturation", SaturationConfig, "Towards each pixel's grey or away from it", _HOWARD)
def _build_by_factor(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, BrightnessConfig | ContrastConfig | SaturationConfig)
    return ByFactor(_CHANGES[config.name], *ends_around(1, config.strength), config.p)


@AUGMENTATIONS.register("hue", HueConfig, "Turn the colours around the colour circle", "torchvision's adjust_hue")
def _build_hue(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, HueConfig)
    return ByFactor(hue, *ends_around(0, config.turns), config.p)


@AUGMENTATIONS.register(
    "grayscale", GrayscaleConfig, "Take the colours away, with probability p", "torchvision's RandomGrayscale"
)
def _build_grayscale(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, GrayscaleConfig)
    return Grayscale(config.p)


@AUGMENTATIONS.register(
    "color_jitter", ColorJitterConfig, "Brightness, contrast, saturation and hue", "torchvision's ColorJitter"
)
def _build_color_jitter(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, ColorJitterConfig)
    strengths = {"brightness": config.brightness, "contrast": config.contrast, "saturation": config.saturation}
    ranges = {name: ends_around(1, strength) for name, strength in strengths.items() if strength != 0}
    if config.hue != 0:
        ranges["hue"] = ends_around(0, config.hue)
    return ColorJitter(ranges, config.p)
