"""Small folders of pictures, made for tests."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor


def write_picture(path: Path, size_px: tuple[int, int] = (8, 8), shade: int = 128) -> None:
    """Noise of its own, reproducible by the path's name, around a shade of grey."""
    noise = np.random.default_rng(zlib.crc32(path.name.encode())).integers(-40, 40, (*size_px, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + shade, 0, 255).astype(np.uint8)).save(path)


def write_class_folders(root: Path, counts: dict[str, int], size_px: tuple[int, int] = (8, 8)) -> Path:
    """A folder for each class, with so many pictures; each class has a shade of its own."""
    for index, (label, count) in enumerate(counts.items()):
        (root / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            shade = 40 + 170 * index // max(1, len(counts) - 1)
            write_picture(root / label / f"{label}-{number:03d}.png", size_px, shade)
    return root


def smooth_pictures(num: int = 24, channels: int = 3, height: int = 33, width: int = 40) -> Tensor:
    """Pictures (B, C, H, W), `uint8`, with edges and saturated places, as photographs have them."""
    generator = Generator().manual_seed(0)
    coarse = torch.rand((num, channels, 6, 7), generator=generator) * 1.4 - 0.2
    fine = torch.rand((num, channels, height, width), generator=generator) * 0.2
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic") + fine
    return (smooth.clamp(0, 1) * 255).round().to(torch.uint8)
