"""Pictures that lie on the device that computes, so that no batch has to travel there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from conviction.core.device import sent
from conviction.data.resident import read_rows, rows_at_once

# Of the device's free memory: the rest is for the network and its maps.
_MOST_OF_FREE = 0.4


@dataclass(frozen=True)
class OnDevice:
    """Some rows of a pack on a device; `rows`, ascending, says which."""

    images: UInt8[Tensor, "N H W C"]
    rows: np.ndarray

    def of(self, rows: np.ndarray) -> UInt8[Tensor, "B H W C"]:
        """The pictures of the pack's given rows, all of which are here."""
        places = torch.from_numpy(np.searchsorted(self.rows, rows).astype(np.int64))
        return self.images.index_select(0, sent(places, self.images.device))


def on_device(images: np.ndarray, rows: np.ndarray, device: torch.device, free_bytes: int) -> OnDevice | None:
    """The given rows of `uint8` images (N, H, W, C), copied to a device; None where they take too much memory."""
    kept = np.sort(rows)
    if len(kept) == 0 or len(kept) * images[:1].nbytes > _MOST_OF_FREE * free_bytes:
        return None
    found = torch.empty((len(kept), *images.shape[1:]), dtype=torch.uint8, device=device)
    for start in range(0, len(kept), size := rows_at_once(images)):
        found[start : start + size] = sent(torch.from_numpy(read_rows(images, kept[start : start + size])), device)
    return OnDevice(found, kept)
