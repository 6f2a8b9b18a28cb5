"""Small folders of pictures, made for tests."""

from __future__ import annotations

import io
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


def scene(seed: int, size_px: tuple[int, int] = (48, 48)) -> np.ndarray:
    """A picture like no other, `uint8` (H, W, 3): coarse shapes, finer ones in them, grain."""
    random = np.random.default_rng(seed)
    levels = np.zeros((*size_px, 3))
    for cells, strength in ((4, 45), (9, 25), (20, 12)):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        fine = np.asarray(coarse.resize(size_px[::-1], Image.Resampling.BICUBIC), np.float64)
        levels += (fine - 127.5) / 64 * strength
    return np.clip(levels + 120 + random.normal(0, 3, levels.shape), 0, 255).astype(np.uint8)


def jpeg_again(pixels: np.ndarray, quality: int = 50) -> np.ndarray:
    """The picture as it is after being written as JPEG and read."""
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, "JPEG", quality=quality)
    return np.asarray(Image.open(written).convert("RGB"))


def resized_and_back(pixels: np.ndarray, share: float = 0.75) -> np.ndarray:
    """The picture after being made smaller, and larger again."""
    height, width = pixels.shape[:2]
    smaller = Image.fromarray(pixels).resize((round(share * width), round(share * height)), Image.Resampling.BICUBIC)
    return np.asarray(smaller.resize((width, height), Image.Resampling.BICUBIC))


def brightened(pixels: np.ndarray, factor: float = 1.1) -> np.ndarray:
    """The picture with its grey levels multiplied, and cut off at 255."""
    return np.clip(np.rint(pixels * factor), 0, 255).astype(np.uint8)


def save(pixels: np.ndarray, path: Path) -> Path:
    """The picture, without loss, in a folder that is made where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path
