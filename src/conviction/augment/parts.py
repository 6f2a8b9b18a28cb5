"""Parts of images brought to one size: each new pixel averages all that it covers, so that shrinking does not alias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conviction.augment.base import Images, Resized, Size
from conviction.core.device import sent
from conviction.core.shares import in_shares

# A matrix is made of a few float32 products.
_TOLERANCE_PX = 1e-3
# Of a picture: more take longer than resizing it alone, which takes some 50 µs whatever its size.
_FEW_PRODUCTS = 2_000_000


@dataclass(frozen=True)
class Parts:
    """What matrices show: `part_B4` (top, left, height, width), flipped along height and width or not.

    `is_whole_B` is false where an image is turned or slanted, its part has no whole pixels as its edges, or leaves the
    image; the rest says nothing then.
    """

    part_B4: Int64[Tensor, "B 4"]
    is_flipped_B2: Bool[Tensor, "B 2"]
    is_whole_B: Bool[Tensor, " B"]

    def of(self, rows: Int64[Tensor, " N"] | slice) -> Parts:
        """Those of some of the images."""
        return Parts(self.part_B4[rows], self.is_flipped_B2[rows], self.is_whole_B[rows])


def whole_parts(matrix_B33: Float[Tensor, "B 3 3"], old_size_px: Size, new_size_px: Size) -> Parts:
    """The parts of images of the old size that matrices bring to the new one."""
    slanting = torch.tensor([[False, True, False], [True, False, False], [True, True, False]])
    is_straight_B = (matrix_B33[:, slanting] == 0).all(dim=1) & (matrix_B33[:, 2, 2] == 1)
    old, new = (torch.tensor(size, dtype=torch.float64) for size in (old_size_px, new_size_px))
    scale_B2 = matrix_B33[:, [1, 0], [1, 0]].double()
    sides_B2 = scale_B2.abs() * new
    first_B2 = matrix_B33[:, [1, 0], [2, 2]].double() + (old - sides_B2) / 2
    part_B4 = torch.cat([first_B2, sides_B2], dim=1)
    whole_B4 = part_B4.round()
    is_inside_B = ((whole_B4[:, :2] >= 0) & (whole_B4[:, :2] + whole_B4[:, 2:] <= old)).all(dim=1)
    is_near_B = ((part_B4 - whole_B4).abs() <= _TOLERANCE_PX).all(dim=1) & (whole_B4[:, 2:] >= 1).all(dim=1)
    return Parts(whole_B4.long(), scale_B2 < 0, is_straight_B & is_inside_B & is_near_B)


def resized_parts(images: Images, parts: Parts, new_size_px: Size) -> Resized:
    """Each image's part, bilinearly interpolated to one size with anti-aliasing, then flipped.

    Same type as the input's. Before the flip it is torchvision's `resized_crop` with `antialias=True`, of small grey
    levels to one level.
    """
    num_channels, height, width = images.shape[1:]
    num_products = num_channels * new_size_px[0] * width * (height + new_size_px[1])
    if images.device.type != "cpu" or num_products <= _FEW_PRODUCTS:
        return weighted_parts(images, parts, new_size_px)
    images = images.contiguous(memory_format=torch.channels_last)
    shape = (len(images), num_channels, *new_size_px)
    resized = torch.empty(shape, dtype=images.dtype, memory_format=torch.channels_last)
    seen = [
        image[:, :, top : top + height, left : left + width]
        for image, (top, left, height, width) in zip(_each(images), parts.part_B4.tolist(), strict=True)
    ]
    flips = [[2 + axis for axis in (0, 1) if is_flipped[axis]] for is_flipped in parts.is_flipped_B2.tolist()]
    written = _each(resized)
    in_shares(lambda share: _resize(seen[share], flips[share], written[share]), len(images))
    return resized


def _each(images: Tensor) -> tuple[Tensor, ...]:
    # `split` gives an empty piece where there is nothing to split.
    return images.unsqueeze(1).unbind()


def _resize(parts: Sequence[Tensor], flips: Sequence[list[int]], written: Sequence[Tensor]) -> None:
    """Resize parts (1, C, H, W) into their places (1, C, H2, W2), then flip them along the given dimensions."""
    # `interpolate` cannot write where it is told to.
    resize = torch.ops.aten._upsample_bilinear2d_aa.out
    for part, dims, place in zip(parts, flips, written, strict=True):
        resize(part, place.shape[2:], False, out=place)
        if dims:
            place.copy_(place.flip(dims))


def weighted_parts(images: Images, parts: Parts, new_size_px: Size) -> Resized:
    """The same as products with matrices of weights, all images at once: for small ones, and for GPUs."""
    size_px: Size = (images.shape[2], images.shape[3])
    weights = (
        _weights(
            parts.part_B4[:, axis], parts.part_B4[:, 2 + axis], parts.is_flipped_B2[:, axis], size_px[axis], new_side
        )
        for axis, new_side in enumerate(new_size_px)
    )
    rows_BNH, columns_BNW = (sent(weights_BN, images.device) for weights_BN in weights)
    num_images, num_channels, height, width = images.shape
    pixels = images.permute(0, 2, 3, 1).float().reshape(num_images, height, width * num_channels)
    shrunk = (rows_BNH @ pixels).view(num_images, new_size_px[0], width, num_channels).transpose(1, 2)
    resized = columns_BNW @ shrunk.reshape(num_images, width, new_size_px[0] * num_channels)
    resized_BCHW = resized.view(num_images, new_size_px[1], new_size_px[0], num_channels).permute(0, 3, 2, 1)
    if images.dtype == torch.uint8:
        return resized_BCHW.add(0.5).to(torch.uint8, memory_format=torch.channels_last)
    return resized_BCHW.to(images.dtype).contiguous(memory_format=torch.channels_last)


def _weights(
    first_B: Int64[Tensor, " B"], side_B: Int64[Tensor, " B"], is_flipped_B: Bool[Tensor, " B"], old: int, new: int
) -> Float[Tensor, "B N M"]:
    """How much each old position along a side counts for each new one: a triangle as wide as what a pixel covers."""
    scale_B11 = (side_B.double() / new)[:, None, None]
    places_BN1 = torch.arange(new, dtype=torch.float64)[None, :, None] + 0.5
    places_BN1 = torch.where(is_flipped_B[:, None, None], new - places_BN1, places_BN1)
    centers_BN1 = first_B[:, None, None] + places_BN1 * scale_B11
    olds = torch.arange(old)
    weights = 1 - (olds + 0.5 - centers_BN1).abs() / scale_B11.clamp(min=1)
    is_inside = (olds >= first_B[:, None]) & (olds < (first_B + side_B)[:, None])
    weights = weights.clamp_(min=0) * is_inside[:, None, :]
    return (weights / weights.sum(dim=2, keepdim=True)).float()
