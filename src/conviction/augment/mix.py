"""Augmentations that make an image of two, and shares of two classes of their labels."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Generator, Tensor

from conviction.augment.base import AUGMENTATIONS, AugmentConfig, Mixing, chosen
from conviction.augment.detail import boxes
from conviction.core.device import sent

Mixed = tuple[Float[Tensor, "B C H W"], Float[Tensor, "B K"]]


class MixConfig(AugmentConfig):
    """What both share."""

    alpha: float = Field(1.0, gt=0, le=100, description="The share is drawn from Beta(alpha, alpha); 1 is uniform")
    p: float = Field(1.0, ge=0, le=1, description="Share of the images that get it")


class MixupConfig(MixConfig):
    """The weighted mean of two images; their labels in the same proportion."""

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(0.2, gt=0, le=100, description="The share is drawn from Beta(alpha, alpha); 1 is uniform")


class CutmixConfig(MixConfig):
    """A rectangle of another image; the labels in proportion to the areas."""

    name: Literal["cutmix"] = "cutmix"


def shares(num: int, alpha: float, p: float, generator: Generator) -> Float[Tensor, " B"]:
    """How much of itself each image keeps, from Beta(alpha, alpha); 1 for images that are not chosen."""
    # Of two gamma variables, one's part in both is a beta variable.
    first, second = (torch._standard_gamma(torch.full((num,), alpha), generator=generator) for _ in range(2))
    total = first + second
    share = torch.where(total > 0, first / total, 0.5)
    return torch.where(chosen(num, p, generator), share, 1.0)


class Mixup(Mixing):
    """The weighted mean with another image."""

    def __init__(self, config: MixupConfig) -> None:
        self._config = config

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> Mixed:
        """Each image with one that a permutation of the batch gives it."""
        share_B = sent(shares(len(images), self._config.alpha, self._config.p, generator), images.device)
        other_B = sent(torch.randperm(len(images), generator=generator), images.device)
        mixed = torch.lerp(images[other_B], images, share_B[:, None, None, None])
        return mixed, torch.lerp(targets[other_B], targets, share_B[:, None])


class Cutmix(Mixing):
    """With a rectangle of another image."""

    by_channel = True

    def __init__(self, config: CutmixConfig) -> None:
        self._config = config

    def mix(self, images: Tensor, targets: Tensor, generator: Generator) -> Mixed:
        """Each image with one that a permutation of the batch gives it; the middle of the rectangle is uniform."""
        num, _, height, width = images.shape
        share_B = shares(num, self._config.alpha, self._config.p, generator)
        other_B = sent(torch.randperm(num, generator=generator), images.device)
        side_B = (1 - share_B).sqrt()
        height_B, width_B = (side_B * height).floor(), (side_B * width).floor()
        top_B = torch.randint(0, height, (num,), generator=generator) - (height_B / 2).floor()
        left_B = torch.randint(0, width, (num,), generator=generator) - (width_B / 2).floor()
        mask = sent(boxes(top_B, left_B, height_B, width_B, (height, width)), images.device)
        # What lies outside is cut off, so that the areas are counted and not the draw.
        kept_B = 1 - mask.float().mean(dim=(1, 2, 3))
        # By weights of 0 and 1, which is exact, and takes less time than a choice.
        mixed = torch.lerp(images, images[other_B], mask.to(images.dtype))
        return mixed, torch.lerp(targets[other_B], targets, kept_B[:, None])


@AUGMENTATIONS.register(
    "mixup",
    MixupConfig,
    "The weighted mean of two images and of their labels",
    reference="H. Zhang et al., mixup: beyond empirical risk minimization, 2018",
)
def _build_mixup(config: AugmentConfig) -> Mixing:
    assert isinstance(config, MixupConfig)
    return Mixup(config)


@AUGMENTATIONS.register(
    "cutmix",
    CutmixConfig,
    "A rectangle of another image; labels in proportion to the areas",
    reference="S. Yun et al., CutMix: regularization strategy to train strong classifiers, 2019",
)
def _build_cutmix(config: AugmentConfig) -> Mixing:
    assert isinstance(config, CutmixConfig)
    return Cutmix(config)
