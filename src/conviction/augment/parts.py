"""Parts of images brought to one size: each new pixel averages all that it covers, so that shrinking does not alias."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from conviction.augment.base import Images, Resized, Size

# A matrix is made of a few float32 products.
_TOLERANCE_PX = 1e-3


def whole_parts(
    matrix_B33: Float[Tensor, "B 3 3"], old_size_px: Size, new_size_px: Size
) -> tuple[Int64[Tensor, "B 4"], Int64[Tensor, "B 2"]] | None:
    """The parts (top, left, height, width) that matrices show, and whether each is flipped along height and width.

    None where an image is turned or slanted, where its part has no whole pixels as its edges, or leaves the image.
    """
    straight = torch.tensor([[False, True, False], [True, False, False], [True, True, False]])
    if matrix_B33[:, straight].any() or (matrix_B33[:, 2, 2] != 1).any():
        return None
    old, new = (torch.tensor(size, dtype=torch.float64) for size in (old_size_px, new_size_px))
    scale_B2 = matrix_B33[:, [1, 0], [1, 0]].double()
    sides_B2 = scale_B2.abs() * new
    first_B2 = matrix_B33[:, [1, 0], [2, 2]].double() + (old - sides_B2) / 2
    part_B4 = torch.cat([first_B2, sides_B2], dim=1)
    whole_B4 = part_B4.round()
    is_inside = (whole_B4[:, :2] >= 0) & (whole_B4[:, :2] + whole_B4[:, 2:] <= old)
    if not is_inside.all() or (part_B4 - whole_B4).abs().max() > _TOLERANCE_PX:
        return None
    return whole_B4.long(), (scale_B2 < 0).long()


def resized_parts(
    images: Images, part_B4: Int64[Tensor, "B 4"], is_flipped_B2: Int64[Tensor, "B 2"], new_size_px: Size
) -> Resized:
    """Each image's part, bilinearly interpolated to one size with anti-aliasing, then flipped.

    Same type as the input's. Before the flip it is torchvision's `resized_crop` with `antialias=True`.
    """
    pixels_BHWC = images.permute(0, 2, 3, 1).contiguous()
    resized_BHWC = pixels_BHWC.new_empty((len(images), *new_size_px, images.shape[1]))
    resized = torch.split(resized_BHWC.permute(0, 3, 1, 2), 1)
    parts = [
        (image[top : top + height, left : left + width].permute(2, 0, 1)[None], part)
        for (top, left, height, width), image, part in zip(part_B4.tolist(), pixels_BHWC, resized, strict=True)
    ]
    if images.device.type == "cpu":
        _resize_in_threads(parts)
    else:
        for part, written in parts:
            written.copy_(resized_as_float(part, new_size_px))
    for axis in range(2):
        for number in is_flipped_B2[:, axis].nonzero().flatten().tolist():
            resized_BHWC[number] = resized_BHWC[number].flip(axis)
    return resized_BHWC.permute(0, 3, 1, 2)


def resized_as_float(part: Images, new_size_px: Size) -> Resized:
    """A part as GPUs resize it, which do so in float alone."""
    resized = functional.interpolate(part.float(), new_size_px, mode="bilinear", antialias=True)
    return resized.round_().to(torch.uint8) if part.dtype == torch.uint8 else resized.to(part.dtype)


def _resize_in_threads(parts: list[tuple[Tensor, Tensor]]) -> None:
    """Resize each first tensor (1, C, H, W) into the second; `interpolate` cannot write where it is told to."""
    resize = torch.ops.aten._upsample_bilinear2d_aa.out
    num_workers = torch.get_num_threads()

    def resize_every(first: int) -> None:
        for part, written in parts[first::num_workers]:
            # Copied by numpy, in this thread alone: torch would divide even this among all of them.
            pixels = torch.from_numpy(np.ascontiguousarray(part.permute(0, 2, 3, 1).numpy())).permute(0, 3, 1, 2)
            resize(pixels, written.shape[2:], False, out=written)

    with ThreadPoolExecutor(num_workers) as workers:
        list(workers.map(resize_every, range(num_workers)))
