"""A classifier slid over a picture that is larger than those it was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from conviction.core.errors import ConfigError
from conviction.nets.surgery import map_stride, to_dense_map


@dataclass(frozen=True)
class DenseMap:
    """What the network says at each place of a picture.

    `probabilities` is `float32` (K, h, w), in the order of `classes`. Position (row, column) speaks of the window of
    `window_px` (height, width) whose upper left corner lies at `(row, column) · stride_px`. Where the network pads its
    maps, or its poolings hang over the edge, it is not quite what it says of that window alone, which ends there.
    """

    classes: tuple[str, ...]
    probabilities: np.ndarray
    stride_px: tuple[int, int]
    window_px: tuple[int, int]
    picture_px: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return self.probabilities.shape[1], self.probabilities.shape[2]

    def share_by_class(self) -> dict[str, float]:
        """The share of positions at which each class is the most likely one."""
        winners = np.bincount(self.probabilities.argmax(axis=0).ravel(), minlength=len(self.classes))
        total = self.probabilities[0].size
        return {name: int(count) / total for name, count in zip(self.classes, winners, strict=True)}

    def strongest(self) -> tuple[str, float, tuple[int, int]]:
        """The class and the position (row, column) with the highest probability of all, and that probability."""
        place = np.unravel_index(int(self.probabilities.argmax()), self.probabilities.shape)
        number, row, column = (int(part) for part in place)
        return self.classes[number], float(self.probabilities[number, row, column]), (row, column)


def dense_map(
    network: nn.Module,
    planned_shape: tuple[int, int, int],
    classes: tuple[str, ...],
    images: Float[Tensor, "1 C H W"],
) -> DenseMap:
    """The probabilities of every class for every place of one standardised picture.

    `planned_shape` (C, H, W) are the pictures that the network was trained on; it stays as it is.

    Raises: ConfigError where the picture is smaller than those, or the network cannot slide.
    """
    _, height, width = planned_shape
    picture = (images.shape[2], images.shape[3])
    if picture[0] < height or picture[1] < width:
        raise ConfigError(
            f"A dense map needs a picture of {height}×{width} pixels or more, as the network was trained on, but got "
            f"{picture[0]}×{picture[1]}. Enlarge it, for example --scale 2."
        )
    sliding = to_dense_map(network, planned_shape).eval()
    with torch.inference_mode():
        probabilities = sliding(images).float().softmax(dim=1)[0]
    stride = map_stride(sliding, planned_shape)
    return DenseMap(classes, probabilities.numpy(), stride, (height, width), picture)
