"""Resampling through matrices that shrink: smoothed first, so that what is finer than a new pixel does not alias."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from conviction.augment.base import GREY_LEVELS, Images, Interpolation, Outside, Resized, Size
from conviction.augment.resample import warp
from conviction.core.device import sent

# A matrix is made of a few float32 products: what is turned alone shrinks by a little more or less than 1.
_TOLERANCE = 1e-4


def smoothed_warp(
    images: Images, matrix_B33: Float[Tensor, "B 3 3"], size_px: Size, outside: Outside, interpolation: Interpolation
) -> Resized:
    """`warp`, after each image was smoothed along both sides as much as its matrix shrinks them.

    Same type as the input's; `uint8` is rounded once, at the end. Where nothing shrinks it is `warp` itself.
    """
    numbers = images.float() if images.dtype == torch.uint8 else images
    x_B, y_B = shrinkage(matrix_B33).unbind(1)
    for axis, scale_B in ((2, y_B), (3, x_B)):
        numbers = _smoothed(numbers, axis, scale_B)
    seen = warp(numbers, matrix_B33, size_px, outside, interpolation)
    return seen.round_().clamp_(0, GREY_LEVELS).to(torch.uint8) if images.dtype == torch.uint8 else seen


def shrinkage(matrix_B33: Float[Tensor, "B 3 3"]) -> Float[Tensor, "B 2"]:
    """How many pixels of the input one of the output's spans in its middle, along x and y; 1 where an image is turned.

    The length of each row of the Jacobian: of a part that is shrunk and then turned, exactly what it was shrunk by.
    """
    depth_B11 = matrix_B33[:, 2:, 2:].clamp(min=1e-6)
    jacobian_B22 = matrix_B33[:, :2, :2] - matrix_B33[:, :2, 2:] @ matrix_B33[:, 2:, :2] / depth_B11
    shrunk_B2: Tensor = torch.linalg.vector_norm(jacobian_B22 / depth_B11, dim=2)
    return shrunk_B2


def _smoothed(images: Float[Tensor, "B C H W"], axis: int, scale_B: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Under a triangle that reaches `scale` pixels to each side, as in anti-aliased resizing; 1 changes nothing."""
    size = images.shape[axis]
    # Of a projection that is all but a line, the scale is infinite, or no number.
    scale_B = scale_B.nan_to_num(nan=size, posinf=size).clamp(max=size)
    reach = min(math.ceil(float(scale_B.max()) - _TOLERANCE) - 1, size - 1)
    if reach < 1:
        return images
    places = torch.arange(-reach, reach + 1)
    weights = (1 - places.abs() / scale_B.clamp(min=1)[:, None]).clamp_(min=0)
    weights = sent(weights / weights.sum(dim=1, keepdim=True), images.device)
    padding = (0, 0, reach, reach) if axis == 2 else (reach, reach, 0, 0)
    padded = functional.pad(images, padding, mode="replicate")
    total = torch.zeros_like(images)
    for index in range(len(places)):
        total.addcmul_(padded.narrow(axis, index, size), weights[:, index, None, None, None])
    return total
