"""Augmentation in batches: every image has its own random draw. Importing this package fills `AUGMENTATIONS`."""

from conviction.augment import colour, detail, geometric, jpeg, mix, policy, tone, torchvision_transform, warp
from conviction.augment.base import AUGMENTATIONS, AugmentConfig
from conviction.augment.pipeline import Augmenter, augmented_shape, build_augmentations

__all__ = [
    "AUGMENTATIONS",
    "AugmentConfig",
    "Augmenter",
    "augmented_shape",
    "build_augmentations",
    "colour",
    "detail",
    "geometric",
    "jpeg",
    "mix",
    "policy",
    "tone",
    "torchvision_transform",
    "warp",
]
