"""What an augmentation is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import UInt8
from torch import Generator, Tensor

from conviction.core.config import Config
from conviction.core.registry import Registry

Augmentation = Callable[[UInt8[Tensor, "B C H W"], Generator], UInt8[Tensor, "B C H2 W2"]]


class AugmentConfig(Config):
    """Base of the augmentations' settings."""

    name: str


AUGMENTATIONS: Registry[Callable[[AugmentConfig], Augmentation]] = Registry("augmentation")


def build_augmentations(configs: Sequence[AugmentConfig], input_shape: tuple[int, int, int]) -> list[Augmentation]:
    """The augmentations for images of `input_shape` (C, H, W), in the order in which they are applied.

    Raises: ConfigError where one of them cannot be applied to such images.
    """
    built = [AUGMENTATIONS[config.name].build(config) for config in configs]
    images = torch.zeros((1, *input_shape), dtype=torch.uint8)
    for augment in built:
        images = augment(images, Generator())
    return built
