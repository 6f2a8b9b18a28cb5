"""The pipeline of large pictures, beside torch's DataLoader; and the memory that a pack of 10 GB takes.

    make bench                      needs imagenette.tar.xz in a folder of CONVICTION_DATA, and 13 GB of disk

Images a second of an epoch after the first: random-resized crop to 176 pixels, flip, standardisation; the DataLoader
decodes JPEGs with two workers. Pairs are interleaved. Results go to benchmarks/results/<processor>.json.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from record import environment_of, show, write_section

SIZE_PX, BATCH_SIZE, NUM_PAIRS, NUM_WORKERS = 176, 128, 5, 2
PACK_BYTES = 10_000_000_000
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
AUGMENT = [{"name": "random_resized_crop", "size_px": SIZE_PX}, {"name": "horizontal_flip"}]
# Runs in a process of its own: packs a folder, fits the standardisation and passes over the training split twice.
CHILD = """
import json, sys, time
import torch
from conviction.core.device import peak_memory_bytes
from large_pictures import prepared
found = {}
start = time.perf_counter()
ready = prepared(sys.argv[1], "channel")
found["packing_and_statistics_s"] = time.perf_counter() - start
found["peak_after_packing_bytes"] = peak_memory_bytes()
stream = ready.training_stream()
for epoch in (1, 2):
    start = time.perf_counter()
    count = sum(len(batch.images) for batch in stream.shuffled(torch.Generator().manual_seed(epoch), epoch))
    found[f"epoch_{epoch}_images_per_s"] = count / (time.perf_counter() - start)
found["num_images"] = count
found["pack_bytes"] = ready.pack.images.nbytes
found["peak_memory_bytes"] = peak_memory_bytes()
print(json.dumps(found))
"""


def prepared(folder: str, standardize: str) -> Any:
    from conviction.run.prepared import Machine, prepare
    from conviction.run.recipe import load_recipe

    recipe = load_recipe(
        {
            "data": {"name": "folder", "path": folder},
            "split": {"validation": 0.01},
            "network": "convnet",
            "augment": AUGMENT,
            "standardize": standardize,
            "fit": {"batch_size": BATCH_SIZE},
        }
    )
    machine = Machine.for_recipe(recipe)
    machine.engage()
    return prepare(recipe, machine)


def our_epoch(folder: str) -> Callable[[int], float]:
    """Images a second of an epoch of the pipeline."""
    import torch

    stream = prepared(folder, "imagenet").training_stream()

    def epoch(number: int) -> float:
        return _speed(batch.images for batch in stream.shuffled(torch.Generator().manual_seed(number), number))

    return epoch


def loader_epoch(folder: str) -> Callable[[int], float]:
    """Images a second of an epoch of torch's DataLoader, as its tutorials write it."""
    from torch.utils.data import DataLoader
    from torchvision import datasets, transforms

    change = transforms.Compose(
        [
            transforms.RandomResizedCrop(SIZE_PX),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, DEVIATION),
        ]
    )
    pictures = datasets.ImageFolder(folder, change)
    loader = DataLoader(pictures, BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS, persistent_workers=True)
    return lambda number: _speed(images for images, _ in loader)


def _speed(batches: Iterable[Any]) -> float:
    start = time.perf_counter()
    count = sum(len(images) for images in batches)
    return count / (time.perf_counter() - start)


def pack_of_repeats(pictures: Path, folder: Path) -> dict[str, Any]:
    """What a pack of at least 10 GB takes: hard links to the same JPEGs until there are enough."""
    files = sorted(path for path in pictures.glob("train/*/*") if path.is_file())
    num_images = -(-PACK_BYTES // (224 * 224 * 3))
    for number in range(num_images):
        file = files[number % len(files)]
        place = folder / "repeats" / file.parent.name
        place.mkdir(parents=True, exist_ok=True)
        os.link(file, place / f"{number}.jpg")
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder / "repeats")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )
    return dict(json.loads(done.stdout))


def main() -> None:
    from conviction.data.source.locate import locate
    from conviction.run.prepared import Machine
    from conviction.run.recipe import load_recipe

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["CONVICTION_CACHE"] = str(folder / "cache")
        with tarfile.open(locate("imagenette")) as archive:
            archive.extractall(folder, filter="data")
        training = folder / "imagenette" / "train"
        ours, loader = our_epoch(str(training)), loader_epoch(str(training))
        # The first epoch of each starts its workers, and reads the files into the system's cache.
        ours(0), loader(0)
        pairs = [(ours(number), loader(number)) for number in range(1, NUM_PAIRS + 1)]
        found = {
            "pipeline_images_per_s": [round(pair[0]) for pair in pairs],
            "dataloader_images_per_s": [round(pair[1]) for pair in pairs],
            "median_ratio": round(statistics.median(pair[0] / pair[1] for pair in pairs), 2),
            "pack_of_repeats": pack_of_repeats(folder / "imagenette", folder),
        }
        show(found)
        machine = Machine.for_recipe(load_recipe("digits"))
        write_section("large_pictures", found, environment_of(machine))


if __name__ == "__main__":
    main()
