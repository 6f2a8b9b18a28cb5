"""Pictures decoded into memory, as torchvision's CIFAR10 and Keras's data sets give them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

_FILE = "train.npz"


def write_arrays(folder: Path) -> None:
    """Decode the pictures of `folder`/train/<class>, so that reading them is no part of what is measured."""
    places = sorted((folder / "train").iterdir())
    files = [(path, label) for label, place in enumerate(places) for path in sorted(place.iterdir())]
    images = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    np.savez(folder / _FILE, images=images, labels=np.array([label for _, label in files]))


def read_arrays(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The training pictures (N, H, W, 3) in uint8, and their labels (N,), class by class."""
    with np.load(folder / _FILE) as kept:
        return kept["images"], kept["labels"]
