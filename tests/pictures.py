"""Small folders of pictures, made for tests."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
from PIL import Image


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
