"""A recipe's augmentations as one: what moves pixels is composed, and numbers are rounded once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor
from torch.nn import functional

from conviction.augment.base import (
    AUGMENTATIONS,
    GREY_LEVELS,
    Augmentation,
    AugmentConfig,
    Images,
    Interpolation,
    Mixing,
    Outside,
    Placement,
    Recolouring,
    Resized,
    Size,
    chosen,
)
from conviction.augment.parts import resized_parts, whole_parts
from conviction.augment.resample import move, warp
from conviction.augment.shrink import smoothed_warp
from conviction.core.device import sent
from conviction.data.stream import Draw


@dataclass
class _Composed:
    """Placements that are one resampling."""

    placements: list[Placement] = field(default_factory=list)

    def takes(self, other: Placement) -> bool:
        """Whether another one looks at what lies outside, and between pixels, in the same way."""
        return all(
            getattr(other, what) is None
            or {getattr(own, what) for own in self.placements} <= {None, getattr(other, what)}
            for what in ("outside", "interpolation")
        )

    def output_size(self, size_px: Size) -> Size:
        for placement in self.placements:
            size_px = placement.output_size(size_px)
        return size_px

    def __call__(self, images: Images, draw: Draw) -> Resized:
        size_px: Size = (images.shape[2], images.shape[3])
        part = draw.part or slice(None)
        num_drawn = len(images) if draw.rows is None else len(draw.rows)
        total = torch.eye(3).expand(num_drawn, 3, 3)
        for placement in self.placements:
            total = total @ placement.matrices(num_drawn, size_px, draw)
            size_px = placement.output_size(size_px)
        return self._resampled(images, total[part], size_px)

    def _resampled(self, images: Images, matrix_B33: Float[Tensor, "B 3 3"], size_px: Size) -> Resized:
        outside: Outside = next((one.outside for one in self.placements if one.outside), "black")
        if all(placement.is_exact for placement in self.placements):
            return move(images, matrix_B33, size_px, outside)
        between: Interpolation = next((one.interpolation for one in self.placements if one.interpolation), "bilinear")
        if not any(placement.smooths for placement in self.placements):
            return warp(images, matrix_B33, size_px, outside, between)
        # Each image by itself: that its neighbour is turned is nothing to it.
        parts = whole_parts(matrix_B33, (images.shape[2], images.shape[3]), size_px)
        if parts.is_whole_B.all():
            return resized_parts(images, parts, size_px)
        whole, others = (chosen_B.nonzero().flatten() for chosen_B in (parts.is_whole_B, ~parts.is_whole_B))
        resampled = images.new_empty((*images.shape[:2], *size_px))
        here, there = sent(whole, images.device), sent(others, images.device)
        resampled.index_copy_(0, here, resized_parts(images[here], parts.of(whole), size_px))
        turned = smoothed_warp(images[there], matrix_B33[others], size_px, outside, between)
        resampled.index_copy_(0, there, turned)
        return resampled


class Augmenter:
    """All augmentations of a recipe, in their order, for batches of `uint8` images, or of float images on [0, 1].

    Whatever their type, floats are computed with as `float32`.

    Called with images (B, C, H, W), labels (B) and a draw; gives images of the same type and targets: the labels, or
    shares of classes (B, K) where images are mixed. The input is not changed.
    """

    def __init__(self, augmentations: Sequence[Augmentation], num_classes: int) -> None:
        self.num_classes = num_classes
        self._stages: list[_Composed | Recolouring | Mixing] = []
        for augmentation in augmentations:
            if not isinstance(augmentation, Placement):
                assert isinstance(augmentation, Recolouring | Mixing)
                self._stages.append(augmentation)
                continue
            last = self._stages[-1] if self._stages else None
            if not isinstance(last, _Composed) or not last.takes(augmentation):
                last = _Composed()
                self._stages.append(last)
            last.placements.append(augmentation)

    @property
    def divides(self) -> bool:
        """Whether it can change a part of a batch by the draws for all of it.

        Where pixels only move, draws are a matrix for each image. Elsewhere drawing and changing are one, or an image
        needs its neighbour.
        """
        return all(isinstance(stage, _Composed) for stage in self._stages)

    @property
    def mixes_labels(self) -> bool:
        """Whether the targets are shares of classes."""
        return any(isinstance(stage, Mixing) for stage in self._stages)

    def output_size(self, size_px: Size) -> Size:
        """Height and width of what comes out; in evaluation so much is cut from the middle. Raises: ConfigError."""
        for stage in self._stages:
            size_px = stage.output_size(size_px)
        return size_px

    def __call__(
        self, images: Images, labels: Int64[Tensor, " B"], draw: Draw
    ) -> tuple[Resized, Int64[Tensor, " B"] | Float[Tensor, "B K"]]:
        """Images and targets."""
        if images.is_floating_point() and images.dtype != torch.float32:
            changed, targets = self(images.float(), labels, draw)
            return changed.to(images.dtype), targets
        targets = functional.one_hot(labels, self.num_classes).float() if self.mixes_labels else labels
        in_grey_levels, is_own = images.dtype == torch.uint8, False
        for stage in self._stages:
            if isinstance(stage, _Composed):
                images = stage(images, draw)
                continue
            if images.dtype == torch.uint8:
                images, is_own = images.float().div_(GREY_LEVELS), True
            if stage.by_channel:
                images = images.contiguous()
            if isinstance(stage, Recolouring):
                images, is_own = _recoloured(stage, images if is_own else images.clone(), draw.generator), True
            else:
                images, targets = stage.mix(images, targets, draw.generator)
        if in_grey_levels and images.dtype != torch.uint8:
            # Rounded by cutting off what lies above half a level; no value has left [0, 1].
            images = images.mul_(GREY_LEVELS).add_(0.5).to(torch.uint8, memory_format=torch.channels_last)
        return images, targets


def _recoloured(
    stage: Recolouring, images: Float[Tensor, "B C H W"], generator: Generator
) -> Float[Tensor, "B C H2 W2"]:
    """The chosen images recoloured, in place where not all are; the others are left alone, and take no time."""
    if stage.p == 1:
        return stage.recolour(images, generator).clamp_(0, 1)
    index = sent(chosen(len(images), stage.p, generator).nonzero().flatten(), images.device)
    if len(index) == 0:
        return images
    changed = stage.recolour(images[index], generator).clamp_(0, 1)
    return images.index_copy_(0, index, changed)


def build_augmentations(
    configs: Sequence[AugmentConfig], input_shape: tuple[int, int, int], num_classes: int
) -> Augmenter:
    """The augmentations for images of `input_shape` (C, H, W), in the order in which they are applied.

    Raises: ConfigError where one of them cannot be applied to such images.
    """
    built = [AUGMENTATIONS[config.name].build(config) for config in configs]
    size_px: Size = input_shape[1:]
    for augmentation in built:
        augmentation.check((input_shape[0], *size_px))
        size_px = augmentation.output_size(size_px)
    augment = Augmenter(built, num_classes)
    images = torch.zeros((2, *input_shape), dtype=torch.uint8)
    augment(images, torch.zeros(2, dtype=torch.int64), Draw(Generator(), 1, torch.arange(2)))
    return augment


def augmented_shape(configs: Sequence[AugmentConfig], input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """(C, H, W) of what comes out of the augmentations, in training and in evaluation. Raises: ConfigError."""
    built = [AUGMENTATIONS[config.name].build(config) for config in configs]
    height, width = Augmenter(built, 2).output_size(input_shape[1:])
    return input_shape[0], height, width
