"""What an augmentation is, and the registry of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxtyping import UInt8
from torch import Generator, Tensor

from conviction.core.config import Config
from conviction.core.registry import Registry

Augmentation = Callable[[UInt8[Tensor, "B C H W"], Generator], UInt8[Tensor, "B C H2 W2"]]


class AugmentConfig(Config):
    """Base of the augmentations' settings."""

    name: str


AUGMENTATIONS: Registry[Callable[[AugmentConfig], Augmentation]] = Registry("augmentation")


def build_augmentations(configs: Sequence[AugmentConfig]) -> list[Augmentation]:
    """The augmentations in the order in which they are applied."""
    return [AUGMENTATIONS[config.name].build(config) for config in configs]
