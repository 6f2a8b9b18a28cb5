"""Augmentation in batches: every image has its own random draw. Importing this package fills `AUGMENTATIONS`."""

from conviction.augment import geometric
from conviction.augment.base import AUGMENTATIONS, AugmentConfig, build_augmentations

__all__ = ["AUGMENTATIONS", "AugmentConfig", "build_augmentations", "geometric"]
