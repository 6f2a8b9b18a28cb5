"""The operations that published policies draw from: each image by its own operation and magnitude."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conviction.augment.base import Interpolation, Outside, Size
from conviction.augment.colour import Factors, Image, brightness, contrast, saturation
from conviction.augment.detail import sharpness
from conviction.augment.geometric import shifts
from conviction.augment.resample import warp
from conviction.augment.tone import autocontrast, equalize, invert, posterize, solarize
from conviction.augment.warp import rotation
from conviction.core.device import sent

Matrices = Float[Tensor, "B 3 3"]
# What is drawn where an image is left alone.
NOTHING = -1


def _shear_x(slope_B: Factors, size_px: Size) -> Matrices:
    matrix = shifts(slope_B * size_px[0] / 2, torch.zeros_like(slope_B))
    matrix[:, 0, 1] = slope_B
    return matrix


def _shear_y(slope_B: Factors, size_px: Size) -> Matrices:
    matrix = shifts(torch.zeros_like(slope_B), slope_B * size_px[1] / 2)
    matrix[:, 1, 0] = slope_B
    return matrix


# The magnitude of a shear is a slope about the upper left corner, of a translation pixels, of a rotation degrees.
_MOVES: Mapping[str, Callable[[Factors, Size], Matrices]] = {
    "shear_x": _shear_x,
    "shear_y": _shear_y,
    "translate_x": lambda pixels_B, size_px: shifts(-pixels_B.trunc(), torch.zeros_like(pixels_B)),
    "translate_y": lambda pixels_B, size_px: shifts(torch.zeros_like(pixels_B), -pixels_B.trunc()),
    "rotate": lambda degrees_B, size_px: rotation(degrees_B),
}
# The magnitude of a change of colour is what its factor differs from one by.
_CHANGES: Mapping[str, Callable[[Image, Factors], Image]] = {
    "brightness": lambda images, magnitude_B: brightness(images, 1 + magnitude_B),
    "saturation": lambda images, magnitude_B: saturation(images, 1 + magnitude_B),
    "contrast": lambda images, magnitude_B: contrast(images, 1 + magnitude_B),
    "sharpness": lambda images, magnitude_B: sharpness(images, 1 + magnitude_B),
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": lambda images, magnitude_B: autocontrast(images),
    "equalize": lambda images, magnitude_B: equalize(images),
    "invert": lambda images, magnitude_B: invert(images),
    "identity": lambda images, magnitude_B: images,
}
_SIGNED = {*_MOVES, "brightness", "saturation", "contrast", "sharpness"}
_WITHOUT_MAGNITUDE = {"autocontrast", "equalize", "invert", "identity"}


@dataclass(frozen=True)
class Space:
    """The operations of a policy, by name, and their magnitudes, which go in even steps from none to the largest."""

    names: tuple[str, ...]
    # Slope, pixels by the picture's side, degrees, and what a colour's factor differs from one by.
    largest_shear: float
    largest_shift: Callable[[int], float]
    largest_angle: float
    largest_change: float
    most_bits: int
    fewest_bits: int

    def magnitudes(self, num_bins: int, size_px: Size) -> Float[Tensor, "O M"]:
        """A row for each operation; 0 where it has no magnitude."""
        return torch.stack([self._row(name, num_bins, size_px) for name in self.names])

    def signed(self) -> Bool[Tensor, " O"]:
        """Which operations go either way."""
        return torch.tensor([name in _SIGNED for name in self.names])

    def _row(self, name: str, num_bins: int, size_px: Size) -> Float[Tensor, " M"]:
        if name in _WITHOUT_MAGNITUDE:
            return torch.zeros(num_bins)
        if name == "posterize":
            steps = torch.arange(num_bins) / ((num_bins - 1) / (self.most_bits - self.fewest_bits))
            return (self.most_bits - steps).round()
        if name == "solarize":
            return torch.linspace(1, 0, num_bins)
        largest = {
            "shear_x": self.largest_shear,
            "shear_y": self.largest_shear,
            "translate_x": self.largest_shift(size_px[1]),
            "translate_y": self.largest_shift(size_px[0]),
            "rotate": self.largest_angle,
        }
        return torch.linspace(0, largest.get(name, self.largest_change), num_bins)


@dataclass(frozen=True)
class Resampling:
    """How operations that move pixels see what lies outside and between them."""

    outside: Outside
    interpolation: Interpolation


def applied(
    images: Image,
    operation_B: Int64[Tensor, " B"],
    magnitude_B: Factors,
    names: tuple[str, ...],
    resampling: Resampling,
) -> Image:
    """Each image after the operation that it drew, an index into `names`, or as it is for `NOTHING`.

    Images of one operation are changed together, and all that are moved in one resampling.
    """
    changed = images.clone()
    moved, matrices = [], []
    for number, name in enumerate(names):
        index = (operation_B == number).nonzero().flatten()
        if len(index) == 0:
            continue
        if name in _MOVES:
            moved.append(index)
            matrices.append(_MOVES[name](magnitude_B[index], (images.shape[2], images.shape[3])))
        else:
            here = sent(index, images.device)
            changed.index_copy_(0, here, _CHANGES[name](images[here], magnitude_B[index]))
    if moved:
        here = sent(torch.cat(moved), images.device)
        size_px = (images.shape[2], images.shape[3])
        seen = warp(images[here], torch.cat(matrices), size_px, resampling.outside, resampling.interpolation)
        changed.index_copy_(0, here, seen)
    return changed
