"""The pictures and the weights that all begin with."""

from __future__ import annotations

import shutil
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

PICTURES = "cifar10-jpeg75"
NUM_CLASSES, NUM_HELD_OUT, NUM_CHECKED = 10, 10, 16


def unpack(folder: Path) -> None:
    """All pictures as files, `train/<class>/NNNN.jpg` and `test/…`."""
    from conviction.data.source.locate import locate

    with tarfile.open(locate(PICTURES)) as archive:
        archive.extractall(folder, filter="data")


def take(unpacked: Path, target: Path, num_training: int) -> None:
    """So many training pictures, as evenly over the classes as they go, and a few for validation and test."""
    classes = sorted(path.name for path in (unpacked / "train").iterdir())
    assert len(classes) == NUM_CLASSES
    wanted = Counter(classes[number % NUM_CLASSES] for number in range(num_training))
    for name in classes:
        files = sorted((unpacked / "train" / name).iterdir())
        rest = sorted((unpacked / "test" / name).iterdir())
        shares = {
            "train": files[: wanted[name]],
            "validation": rest[:NUM_HELD_OUT],
            "test": rest[NUM_HELD_OUT : 2 * NUM_HELD_OUT],
        }
        for split, chosen in shares.items():
            place = target / split / name
            place.mkdir(parents=True)
            for file in chosen:
                shutil.copy(file, place)


def write_start(recipe: str, overrides: dict[str, Any], path: Path) -> None:
    """The weights that Conviction begins this training with, and its logits for some pictures (numpy's `.npz`)."""
    import numpy as np
    import torch

    from conviction.run.prepared import Machine, prepare
    from conviction.run.recipe import load_recipe
    from conviction.run.starting import build_trainer

    resolved = load_recipe(recipe, {**overrides, "fit.device": "cpu", "fit.precision": "float32"})
    network = build_trainer(prepare(resolved, Machine.for_recipe(resolved))).network
    weights = [parameter.detach().contiguous().numpy() for parameter in network.parameters()]
    images = torch.randn(NUM_CHECKED, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = network.eval()(images)
    named = {f"weight_{number}": weight for number, weight in enumerate(weights)}
    np.savez(path, images=images.numpy(), logits=logits.numpy(), **named)
