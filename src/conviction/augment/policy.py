"""Published policies: a few operations for each image, drawn from a space. What they do to labels: nothing."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int64
from pydantic import Field, model_validator
from torch import Generator, Tensor

from conviction.augment.base import (
    AUGMENTATIONS,
    AugmentConfig,
    Interpolation,
    Outside,
    Recolouring,
    Size,
    chosen,
)
from conviction.augment.colour import Factors, Image
from conviction.augment.operation import NOTHING, Resampling, Space, applied
from conviction.core.device import sent

_MOVES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
_COLOURS = ("brightness", "saturation", "contrast", "sharpness")
_TONES = ("posterize", "solarize", "autocontrast", "equalize")


class PolicyConfig(AugmentConfig):
    """What all of these share."""

    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it")
    outside: Outside = Field("black", description="What comes in from outside: black, the picture mirrored, its edge")
    interpolation: Interpolation = Field("nearest", description="How a value between pixels is found")


class AutoAugmentConfig(PolicyConfig):
    """One of the 25 pairs of operations that were learned on CIFAR-10."""

    name: Literal["autoaugment_cifar10"] = "autoaugment_cifar10"


class RandAugmentConfig(PolicyConfig):
    """Some operations of one magnitude, each drawn from all."""

    name: Literal["randaugment"] = "randaugment"
    num_ops: int = Field(2, ge=1, le=20, description="Operations for each image, one after the other")
    magnitude: int = Field(9, ge=0, le=1000, description="Their strength, from 0 to num_magnitude_bins − 1")
    num_magnitude_bins: int = Field(31, ge=2, le=1001, description="Steps from no change to the largest")

    @model_validator(mode="after")
    def _within(self) -> RandAugmentConfig:
        if self.magnitude >= self.num_magnitude_bins:
            raise ValueError(
                f"`magnitude < num_magnitude_bins` must hold, but got {self.magnitude} and {self.num_magnitude_bins}."
            )
        return self


class TrivialAugmentConfig(PolicyConfig):
    """One operation of any magnitude; the wide space."""

    name: Literal["trivialaugment"] = "trivialaugment"
    num_magnitude_bins: int = Field(31, ge=2, le=1001, description="Steps from no change to the largest")


class AugMixConfig(PolicyConfig):
    """The weighted mean of an image and of several chains of operations on it."""

    name: Literal["augmix"] = "augmix"
    interpolation: Interpolation = Field("bilinear", description="How a value between pixels is found")
    severity: int = Field(3, ge=1, le=10, description="A magnitude is one of so many of the ten weakest")
    mixture_width: int = Field(3, ge=1, le=20, description="Number of chains")
    chain_depth: int | None = Field(None, ge=1, le=20, description="Operations of a chain; null: 1 to 3, drawn")
    alpha: float = Field(1.0, gt=0, le=100, description="Weights are drawn from Dirichlet(alpha, …); 1 is uniform")
    all_ops: bool = Field(True, description="Whether brightness, saturation, contrast and sharpness are among them")


def _share_of_331(side_px: int) -> float:
    """150 pixels of the 331 that AutoAugment's authors trained on."""
    return 150 / 331 * side_px


_USUAL = (*_MOVES, *_COLOURS, *_TONES)
AUTOAUGMENT_SPACE = Space((*_USUAL, "invert"), 0.3, _share_of_331, 30.0, 0.9, most_bits=8, fewest_bits=4)
RANDAUGMENT_SPACE = Space(("identity", *_USUAL), 0.3, _share_of_331, 30.0, 0.9, most_bits=8, fewest_bits=4)
TRIVIALAUGMENT_SPACE = Space(("identity", *_USUAL), 0.99, lambda side_px: 32.0, 135.0, 0.99, most_bits=8, fewest_bits=2)
AUGMIX_SPACES = {
    all_ops: Space(names, 0.3, lambda side_px: side_px / 3, 30.0, 0.9, most_bits=4, fewest_bits=0)
    for all_ops, names in ((False, (*_MOVES, *_TONES)), (True, (*_MOVES, *_TONES, *_COLOURS)))
}
_AUTOAUGMENT_BINS = _AUGMIX_BINS = 10
_LONGEST_CHAIN = 3

# Of each pair's operations: name, probability, magnitude (0 where it has none). Table 7 of the paper.
CIFAR10_PAIRS: tuple[tuple[tuple[str, float, int], tuple[str, float, int]], ...] = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalize", 0.9, 0)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("saturation", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 0), ("equalize", 0.5, 0)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("saturation", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("saturation", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 0)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 0), ("equalize", 0.6, 0)),
    (("saturation", 0.9, 9), ("equalize", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("saturation", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 0)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 0), ("invert", 0.1, 0)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 0)),
)


class Policy(Recolouring):
    """Operations of a space, each image by its own draws; those that move pixels are resampled one after the other."""

    by_channel = True

    def __init__(self, config: PolicyConfig, space: Space, num_bins: int) -> None:
        self.p, self._space, self._num_bins = config.p, space, num_bins
        self._resampling = Resampling(config.outside, config.interpolation)

    def applied(
        self, images: Image, operation_B: Int64[Tensor, " B"], bin_B: Int64[Tensor, " B"], generator: Generator
    ) -> Image:
        """Each image after its operation at its magnitude, either way with equal probability where it has two."""
        magnitude_B = self.magnitudes(operation_B, bin_B, (images.shape[2], images.shape[3]), generator)
        return applied(images, operation_B, magnitude_B, self._space.names, self._resampling)

    def magnitudes(
        self, operation_B: Int64[Tensor, " B"], bin_B: Int64[Tensor, " B"], size_px: Size, generator: Generator
    ) -> Factors:
        """The magnitude of each image's operation, with its sign."""
        magnitude_B = self._space.magnitudes(self._num_bins, size_px)[operation_B, bin_B]
        is_negative_B = chosen(len(operation_B), 0.5, generator) & self._space.signed()[operation_B]
        return torch.where(is_negative_B, -magnitude_B, magnitude_B)

    def any_operation(self, num: int, generator: Generator) -> Int64[Tensor, " B"]:
        """One for each image, all equally likely."""
        return torch.randint(0, len(self._space.names), (num,), generator=generator)


class AutoAugment(Policy):
    """A pair of operations for each image, each operation with its own probability."""

    def __init__(self, config: AutoAugmentConfig) -> None:
        super().__init__(config, AUTOAUGMENT_SPACE, _AUTOAUGMENT_BINS)
        names = self._space.names
        self._operations = torch.tensor([[names.index(name) for name, _, _ in pair] for pair in CIFAR10_PAIRS])
        self._probabilities = torch.tensor([[p for _, p, _ in pair] for pair in CIFAR10_PAIRS])
        self._bins = torch.tensor([[number for _, _, number in pair] for pair in CIFAR10_PAIRS])

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draws."""
        pair_B = torch.randint(0, len(CIFAR10_PAIRS), (len(images),), generator=generator)
        for place in range(2):
            is_chosen_B = torch.rand(len(images), generator=generator) < self._probabilities[pair_B, place]
            operation_B = torch.where(is_chosen_B, self._operations[pair_B, place], NOTHING)
            images = self.applied(images, operation_B, self._bins[pair_B, place], generator)
        return images


class RandAugment(Policy):
    """Some operations one after the other, all of one magnitude."""

    def __init__(self, config: RandAugmentConfig) -> None:
        super().__init__(config, RANDAUGMENT_SPACE, config.num_magnitude_bins)
        self._num_ops, self._bin = config.num_ops, config.magnitude

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draws."""
        bin_B = torch.full((len(images),), self._bin)
        for _ in range(self._num_ops):
            images = self.applied(images, self.any_operation(len(images), generator), bin_B, generator)
        return images


class TrivialAugment(Policy):
    """One operation of any magnitude."""

    def __init__(self, config: TrivialAugmentConfig) -> None:
        super().__init__(config, TRIVIALAUGMENT_SPACE, config.num_magnitude_bins)

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draws."""
        bin_B = torch.randint(0, self._num_bins, (len(images),), generator=generator)
        return self.applied(images, self.any_operation(len(images), generator), bin_B, generator)


class AugMix(Policy):
    """The weighted mean of an image and of chains of operations on it."""

    def __init__(self, config: AugMixConfig) -> None:
        super().__init__(config, AUGMIX_SPACES[config.all_ops], _AUGMIX_BINS)
        self._config = config

    def recolour(self, images: Image, generator: Generator) -> Image:
        """Each image by its own draws."""
        own_B, weights_WB = self.weights(len(images), generator)
        mixed = images * sent(own_B, images.device)[:, None, None, None]
        for weight_B in sent(weights_WB, images.device):
            mixed.addcmul_(self._chain(images, generator), weight_B[:, None, None, None])
        return mixed

    def weights(self, num: int, generator: Generator) -> tuple[Float[Tensor, " B"], Float[Tensor, "W B"]]:
        """The weight of each image itself, and of each of its chains; together they are one."""
        own = dirichlet(num, 2, self._config.alpha, generator)
        return own[0], own[1] * dirichlet(num, self._config.mixture_width, self._config.alpha, generator)

    def _chain(self, images: Image, generator: Generator) -> Image:
        depth, num = self._config.chain_depth, len(images)
        depth_B = torch.randint(1, _LONGEST_CHAIN + 1, (num,), generator=generator)
        if depth is not None:
            depth_B = torch.full((num,), depth)
        for place in range(depth or _LONGEST_CHAIN):
            operation_B = self.any_operation(num, generator).masked_fill_(depth_B <= place, NOTHING)
            bin_B = torch.randint(0, self._config.severity, (num,), generator=generator)
            images = self.applied(images, operation_B, bin_B, generator)
        return images


def dirichlet(num: int, num_parts: int, alpha: float, generator: Generator) -> Float[Tensor, "W B"]:
    """Shares that sum to one for each image, from Dirichlet(alpha, …, alpha)."""
    # In double precision a small alpha does not make all of them zero.
    gamma = torch._standard_gamma(torch.full((num_parts, num), alpha, dtype=torch.float64), generator=generator)
    return (gamma / gamma.sum(dim=0)).float()


@AUGMENTATIONS.register(
    "autoaugment_cifar10",
    AutoAugmentConfig,
    "One of the 25 pairs of operations learned on CIFAR-10",
    reference="E. Cubuk et al., AutoAugment: learning augmentation strategies from data, 2019, table 7",
)
def _build_autoaugment(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, AutoAugmentConfig)
    return AutoAugment(config)


@AUGMENTATIONS.register(
    "randaugment",
    RandAugmentConfig,
    "Some operations drawn from fourteen, all of one magnitude",
    reference="E. Cubuk et al., RandAugment: practical automated data augmentation, 2020",
)
def _build_randaugment(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, RandAugmentConfig)
    return RandAugment(config)


@AUGMENTATIONS.register(
    "trivialaugment",
    TrivialAugmentConfig,
    "One operation drawn from fourteen, of any magnitude; the wide space",
    reference="S. Müller, F. Hutter, TrivialAugment: tuning-free yet state-of-the-art data augmentation, 2021",
)
def _build_trivialaugment(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, TrivialAugmentConfig)
    return TrivialAugment(config)


@AUGMENTATIONS.register(
    "augmix",
    AugMixConfig,
    "The weighted mean of an image and of chains of operations on it",
    reference="D. Hendrycks et al., AugMix: a simple data processing method to improve robustness, 2020",
)
def _build_augmix(config: AugmentConfig) -> Recolouring:
    assert isinstance(config, AugMixConfig)
    return AugMix(config)
