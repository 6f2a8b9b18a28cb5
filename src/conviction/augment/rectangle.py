"""Rectangles of a random area, ratio and place, one for each image."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from conviction.augment.base import Size

_TRIES = 10


def rectangles(
    num: int, size_px: Size, largest_px: Size, areas: tuple[float, float], largest_ratio: float, generator: Generator
) -> tuple[Float[Tensor, "4 B"], Bool[Tensor, " B"]]:
    """Top, left, height and width by the first of ten draws that is at most `largest_px`, and whether there is one.

    Areas are shares of the image, uniform before sides are rounded to pixels; ratios lie between `largest_ratio` and
    its inverse, uniform in their logarithm. As torchvision's RandomResizedCrop and RandomErasing.
    """
    draws = torch.rand((2, _TRIES, num), generator=generator)
    area = size_px[0] * size_px[1] * (areas[0] + draws[0] * (areas[1] - areas[0]))
    ratio = largest_ratio ** (draws[1] * 2 - 1)
    widths, heights = (_root(squares).round() for squares in (area * ratio, area / ratio))
    fits = (widths <= largest_px[1]) & (heights <= largest_px[0]) & (widths > 0) & (heights > 0)
    first, images = fits.int().argmax(dim=0), torch.arange(num)
    height_B, width_B = heights[first, images], widths[first, images]
    places = torch.rand((2, num), generator=generator)
    top_B = (places[0] * (size_px[0] - height_B + 1)).floor()
    left_B = (places[1] * (size_px[1] - width_B + 1)).floor()
    return torch.stack([top_B, left_B, height_B, width_B]), fits.any(dim=0)


def _root(numbers: Tensor) -> Tensor:
    # torch's would wake all cores, even for so few; they then look for more work for milliseconds, beside what follows.
    return torch.from_numpy(np.sqrt(numbers.numpy()))
