"""Moving pixels: one resampling for all that was composed, exact where whole pixels move."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from conviction.augment.base import GREY_LEVELS, Images, Interpolation, Outside, Resized, Size
from conviction.core.device import sent

# Positions beyond the edge are mirrored before the sampling, which would mirror the edge's own pixel too.
_PADDING = {"black": "zeros", "reflect": "border", "edge": "border"}


def move(images: Images, matrix_B33: Float[Tensor, "B 3 3"], size_px: Size, outside: Outside) -> Resized:
    """Each image moved by whole pixels and mirrored: the output's pixel at p is the input's at `matrix · p`.

    Positions are measured from the centres. Same type and exactly the same values as the input's.
    """
    num_images, _, height, width = images.shape
    rows_BH = sent(_indices(matrix_B33[:, 1, 1], matrix_B33[:, 1, 2], height, size_px[0]), images.device)
    columns_BW = sent(_indices(matrix_B33[:, 0, 0], matrix_B33[:, 0, 2], width, size_px[1]), images.device)
    pixels = images.permute(0, 2, 3, 1)
    if outside == "black":
        # One more row and column on the far sides, to which all that lies outside leads.
        pixels = functional.pad(pixels, (0, 0, 0, 1, 0, 1))
        rows_BH = torch.where((rows_BH < 0) | (rows_BH >= height), height, rows_BH)
        columns_BW = torch.where((columns_BW < 0) | (columns_BW >= width), width, columns_BW)
    else:
        rows_BH, columns_BW = _inside(rows_BH, height, outside), _inside(columns_BW, width, outside)
    _, padded_height, padded_width, channels = pixels.shape
    first_B = torch.arange(num_images, device=images.device) * (padded_height * padded_width)
    index = (first_B[:, None] + rows_BH * padded_width)[:, :, None] + columns_BW[:, None, :]
    moved = pixels.reshape(-1, channels).index_select(0, index.flatten())
    return moved.view(num_images, *size_px, channels).permute(0, 3, 1, 2)


def _indices(
    sign_B: Float[Tensor, " B"], shift_B: Float[Tensor, " B"], old_size: int, new_size: int
) -> Int64[Tensor, "B N"]:
    """The old index of each new one along one side; below 0 and beyond the last for what lies outside."""
    places = torch.arange(new_size) - (new_size - 1) / 2
    return (sign_B[:, None] * places + shift_B[:, None] + (old_size - 1) / 2).round().long()


def _inside(index: Tensor, size: int, outside: Outside) -> Tensor:
    if outside == "edge" or size == 1:
        return index.clamp(0, size - 1)
    # The edge's own pixel is not repeated: … 2 1 | 0 1 2 … n−1 | n−2 ….
    period = 2 * (size - 1)
    folded = index % period
    return torch.where(folded >= size, period - folded, folded)


def warp(
    images: Images,
    matrix_B33: Float[Tensor, "B 3 3"],
    size_px: Size,
    outside: Outside,
    interpolation: Interpolation,
) -> Resized:
    """Each image seen through a homography: the output at p is the input at `matrix · p`, interpolated.

    Positions are measured from the centres, in pixels. Same type as the input's; `uint8` is rounded.
    """
    height, width = size_px
    y = torch.arange(height, device=images.device) - (height - 1) / 2
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    places_N3 = torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones_like(x).repeat(height)], dim=1)
    seen_BN3 = places_N3 @ sent(matrix_B33, images.device).mT
    # Behind a projection's horizon there is nothing to see.
    depth_BN = seen_BN3[..., 2].clamp(min=1e-6)
    seen_BN2 = seen_BN3[..., :2] / depth_BN[..., None]
    sides = sent(torch.tensor([images.shape[3], images.shape[2]]), images.device)
    if outside == "reflect":
        seen_BN2 = _mirrored_inside(seen_BN2, sides)
    grid = (seen_BN2 * (2 / sides)).view(-1, height, width, 2)
    numbers = images.float() if images.dtype == torch.uint8 else images
    seen = functional.grid_sample(numbers, grid, interpolation, _PADDING[outside], align_corners=False)
    return seen.round_().clamp_(0, GREY_LEVELS).to(torch.uint8) if images.dtype == torch.uint8 else seen


def _mirrored_inside(places_BN2: Float[Tensor, "B N 2"], sides_2: Int64[Tensor, " 2"]) -> Float[Tensor, "B N 2"]:
    """Positions from the centre, mirrored at the middles of the outermost pixels as often as need be."""
    period = 2 * (sides_2 - 1)
    folded = (places_BN2 + period / 4) % period.clamp(min=1)
    return torch.minimum(folded, period - folded) - period / 4
