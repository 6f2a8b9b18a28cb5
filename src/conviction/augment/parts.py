"""Parts of images brought to one size: each new pixel averages all that it covers, so that shrinking does not alias."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional

from conviction.augment.base import Images, Resized, Size

# A matrix is made of a few float32 products.
_TOLERANCE_PX = 1e-3


@dataclass(frozen=True)
class Parts:
    """What matrices show: `part_B4` (top, left, height, width), flipped along height and width or not.

    `is_whole_B` is false where an image is turned or slanted, its part has no whole pixels as its edges, or leaves the
    image; the rest says nothing then.
    """

    part_B4: Int64[Tensor, "B 4"]
    is_flipped_B2: Bool[Tensor, "B 2"]
    is_whole_B: Bool[Tensor, " B"]

    def of(self, rows: Int64[Tensor, " N"]) -> Parts:
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

    Same type as the input's. Before the flip it is torchvision's `resized_crop` with `antialias=True`.
    """
    pixels_BHWC = images.permute(0, 2, 3, 1).contiguous()
    resized_BHWC = pixels_BHWC.new_empty((len(images), *new_size_px, images.shape[1]))
    resized = torch.split(resized_BHWC.permute(0, 3, 1, 2), 1)
    pairs = [
        (image[top : top + height, left : left + width].permute(2, 0, 1)[None], part)
        for (top, left, height, width), image, part in zip(parts.part_B4.tolist(), pixels_BHWC, resized, strict=True)
    ]
    if images.device.type == "cpu":
        _resize_in_threads(pairs)
    else:
        for part, written in pairs:
            written.copy_(resized_as_float(part, new_size_px))
    for axis in range(2):
        for number in parts.is_flipped_B2[:, axis].nonzero().flatten().tolist():
            resized_BHWC[number] = resized_BHWC[number].flip(axis)
    return resized_BHWC.permute(0, 3, 1, 2)


def resized_as_float(part: Images, new_size_px: Size) -> Resized:
    """A part as GPUs resize it, which do so in float alone."""
    resized = functional.interpolate(part.float(), new_size_px, mode="bilinear", antialias=True)
    return resized.round_().to(torch.uint8) if part.dtype == torch.uint8 else resized.to(part.dtype)


def _resize_in_threads(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Resize each first tensor (1, C, H, W) into the second; `interpolate` cannot write where it is told to."""
    resize = torch.ops.aten._upsample_bilinear2d_aa.out
    num_workers = torch.get_num_threads()

    def resize_every(first: int) -> None:
        for part, written in pairs[first::num_workers]:
            # Copied by numpy, in this thread alone: torch would divide even this among all of them.
            pixels = torch.from_numpy(np.ascontiguousarray(part.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2)
            resize(pixels, written.shape[2:], False, out=written)

    with ThreadPoolExecutor(num_workers) as workers:
        list(workers.map(resize_every, range(num_workers)))
