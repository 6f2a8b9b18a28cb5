"""A new head on a frozen SqueezeNet, beside the loop of PyTorch's transfer-learning tutorial, which keeps nothing.

    make bench                      needs imagenette.tar.xz and weights/ in a folder of CONVICTION_DATA

Twenty epochs on Imagenette, 224 pixels, not augmented: seconds of the whole training, figures and checkpoints included,
with the frozen layers not computed before. The tutorial's loop is run for two epochs and counted ten times, as each of
its epochs does the same work. Pairs are interleaved. Results go to benchmarks/results/<processor>.json.
"""

from __future__ import annotations

import os
import resource
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from record import environment_of, show, write_section

NUM_EPOCHS, BATCH_SIZE, NUM_PAIRS, NUM_WORKERS, MEASURED_EPOCHS = 20, 32, 5, 2, 2
LEARNING_RATE, MOMENTUM = 0.001, 0.9
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
WEIGHTS = "weights/squeezenet1_1_imagenet.pth"


def recipe_for(folder: Path) -> dict[str, Any]:
    return {
        "name": "frozen-head",
        "data": {"name": "folder", "path": str(folder)},
        "split": {"validation": 0.2},
        "standardize": "imagenet",
        "network": {
            "name": "torchvision",
            "model": "squeezenet1_1",
            "weights": WEIGHTS,
            "freeze": "all_but_head",
        },
        "optimizer": {"name": "sgd", "learning_rate": LEARNING_RATE, "momentum": MOMENTUM},
        "fit": {"epochs": NUM_EPOCHS, "batch_size": BATCH_SIZE, "precision": "float32"},
    }


def timed(training: Callable[[], list[float]]) -> tuple[float, float, list[float]]:
    """Seconds of the clock, seconds of all cores together, and what the training gives."""
    start, before = time.perf_counter(), _processor_s()
    accuracies = training()
    return time.perf_counter() - start, _processor_s() - before, accuracies


def _processor_s() -> float:
    """Of this process and the workers that it waited for; a machine that others use too does not stretch them."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def our_training(recipe: Mapping[str, Any]) -> list[float]:
    """The validation accuracy after each epoch."""
    from conviction import train
    from conviction.data.source.locate import cache_folder

    shutil.rmtree(cache_folder() / "frozen", ignore_errors=True)
    return [record.validation.accuracy for record in train(recipe).history[1:]]


class Tutorial:
    """pytorch.org/tutorials/beginner/transfer_learning_tutorial, "ConvNet as fixed feature extractor"."""

    def __init__(self, folder: Path, splits: Mapping[str, list[str]]) -> None:
        from torch.utils.data import DataLoader, Subset
        from torchvision import datasets, transforms

        change = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, DEVIATION)])
        pictures = datasets.ImageFolder(str(folder), change)
        numbers = {str(Path(path).relative_to(folder)): number for number, (path, _) in enumerate(pictures.samples)}
        self._loaders = {
            split: DataLoader(
                Subset(pictures, [numbers[path] for path in paths]), BATCH_SIZE, shuffle=True, num_workers=NUM_WORKERS
            )
            for split, paths in splits.items()
        }
        self._num_classes = len(pictures.classes)

    def training(self, num_epochs: int) -> list[float]:
        """The validation accuracy after each epoch."""
        import torch
        from torch import nn
        from torchvision import models

        from conviction.data.source.locate import locate

        torch.manual_seed(0)
        network = models.squeezenet1_1(weights=None)
        network.load_state_dict(torch.load(locate(WEIGHTS), weights_only=True))
        for parameter in network.parameters():
            parameter.requires_grad = False
        network.classifier[1] = nn.Conv2d(512, self._num_classes, kernel_size=1)
        criterion = nn.CrossEntropyLoss()
        optimizer = torch.optim.SGD(network.classifier[1].parameters(), lr=LEARNING_RATE, momentum=MOMENTUM)
        accuracies = []
        for _ in range(num_epochs):
            for split, loader in self._loaders.items():
                is_training = split == "train"
                network.train(is_training)
                correct = count = 0
                for images, labels in loader:
                    optimizer.zero_grad()
                    with torch.set_grad_enabled(is_training):
                        logits = network(images)
                        loss = criterion(logits, labels)
                        if is_training:
                            loss.backward()
                            optimizer.step()
                    correct += int((logits.argmax(1) == labels).sum())
                    count += len(labels)
            accuracies.append(correct / count)
        return accuracies


def splits_of(recipe: Mapping[str, Any]) -> tuple[dict[str, list[str]], float]:
    """The paths in the training and validation splits, and how long it took to pack the pictures."""
    from conviction.run.prepared import Machine, prepare
    from conviction.run.recipe import load_recipe

    loaded = load_recipe(recipe)
    start = time.perf_counter()
    ready = prepare(loaded, Machine.for_recipe(loaded))
    packing_s = time.perf_counter() - start
    named = {"train": ready.splits.train, "validation": ready.splits.validation}
    return {split: [ready.pack.paths[row] for row in rows] for split, rows in named.items()}, packing_s


def ratios(ours: list[Any], theirs: list[Any], kind: int) -> list[float]:
    """How many times as long the tutorial's loop takes for all epochs, in each pair."""
    times = NUM_EPOCHS / MEASURED_EPOCHS
    return [round(b[kind] * times / a[kind], 2) for a, b in zip(ours, theirs, strict=True)]


def main() -> None:
    from conviction.data.source.locate import locate
    from conviction.run.prepared import Machine
    from conviction.run.recipe import load_recipe

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        os.environ["CONVICTION_CACHE"], os.environ["CONVICTION_HOME"] = str(place / "cache"), str(place / "runs")
        with tarfile.open(locate("imagenette")) as archive:
            archive.extractall(place, filter="data")
        # The training pictures alone: the test split stays closed.
        folder = place / "imagenette" / "train"
        recipe = recipe_for(folder)
        splits, packing_s = splits_of(recipe)
        tutorial = Tutorial(folder, splits)
        ours, theirs = [], []
        for _ in range(NUM_PAIRS):
            ours.append(timed(lambda: our_training(recipe)))
            print(f"ours      {ours[-1]}", flush=True)
            theirs.append(timed(lambda: tutorial.training(MEASURED_EPOCHS)))
            print(f"tutorial  {theirs[-1]}", flush=True)
        found = {
            "num_train": len(splits["train"]),
            "num_validation": len(splits["validation"]),
            "packing_s": round(packing_s, 1),
            f"ours_{NUM_EPOCHS}_epochs_s": [round(one[0], 1) for one in ours],
            f"ours_{NUM_EPOCHS}_epochs_processor_s": [round(one[1], 1) for one in ours],
            f"tutorial_{MEASURED_EPOCHS}_epochs_s": [round(one[0], 1) for one in theirs],
            f"tutorial_{MEASURED_EPOCHS}_epochs_processor_s": [round(one[1], 1) for one in theirs],
            "ratios": ratios(ours, theirs, 0),
            "ratios_processor": ratios(ours, theirs, 1),
            f"ours_validation_accuracy_epoch_{MEASURED_EPOCHS}": [one[2][MEASURED_EPOCHS - 1] for one in ours],
            f"tutorial_validation_accuracy_epoch_{MEASURED_EPOCHS}": [one[2][-1] for one in theirs],
            f"ours_validation_accuracy_epoch_{NUM_EPOCHS}": [one[2][-1] for one in ours],
        }
        show(found)
        machine = Machine.for_recipe(load_recipe(recipe))
        write_section("frozen_head", found, environment_of(machine))


if __name__ == "__main__":
    main()
