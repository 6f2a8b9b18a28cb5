"""Each augmentation on batches, beside torchvision's way of one image at a time: images a second on this machine.

    make bench                      or: python benchmarks/augmentation.py [NAME …]

Both begin with 512 pictures of 32×32 pixels in grey levels and end in standardised float: ours a batch at once,
torchvision's one by one and stacked. The two are measured in turns; a ratio is that of neighbours in time.
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from record import write_section
from torch import Generator, Tensor
from torchvision.transforms import InterpolationMode, v2

from conviction.augment import AUGMENTATIONS, build_augmentations
from conviction.core.device import keep_freed_memory, num_threads
from conviction.core.environment import describe_environment
from conviction.data.standardize.channel import Standardization
from conviction.data.stream import Draw

NUM_IMAGES, SIDE_PX, NUM_CLASSES = 512, 32, 10
NUM_PAIRS, NUM_OURS, NUM_THEIRS = 7, 4, 128
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
BILINEAR = InterpolationMode.BILINEAR
SETTINGS: dict[str, dict[str, Any]] = {"crop_to": {"size_px": 24}, "random_resized_crop": {"size_px": 32}}
# The same change with the same range and probability; of mixtures the images alone come one by one.
THEIRS: dict[str, Callable[[], Any]] = {
    "horizontal_flip": lambda: v2.RandomHorizontalFlip(0.5),
    "vertical_flip": lambda: v2.RandomVerticalFlip(0.5),
    "alternating_flip": lambda: v2.RandomHorizontalFlip(0.5),
    "random_crop": lambda: v2.RandomCrop(SIDE_PX, padding=4),
    "crop_to": lambda: v2.RandomCrop(24),
    "random_resized_crop": lambda: v2.RandomResizedCrop(SIDE_PX),
    "translate": lambda: v2.RandomAffine(0, translate=(0.1, 0.1), interpolation=BILINEAR),
    "rotate": lambda: v2.RandomRotation(15, interpolation=BILINEAR),
    "scale": lambda: v2.RandomAffine(0, scale=(0.8, 1.25), interpolation=BILINEAR),
    "shear": lambda: v2.RandomAffine(0, shear=(-10, 10, -10, 10), interpolation=BILINEAR),
    "perspective": lambda: v2.RandomPerspective(0.3, p=1.0),
    "brightness": lambda: v2.ColorJitter(brightness=0.4),
    "contrast": lambda: v2.ColorJitter(contrast=0.4),
    "saturation": lambda: v2.ColorJitter(saturation=0.4),
    "hue": lambda: v2.ColorJitter(hue=0.1),
    "color_jitter": lambda: v2.ColorJitter(0.4, 0.4, 0.4, 0.1),
    "grayscale": lambda: v2.RandomGrayscale(0.2),
    "gaussian_blur": lambda: v2.RandomApply([v2.GaussianBlur(3)], 0.5),
    "sharpness": lambda: v2.RandomAdjustSharpness(1.9, 0.5),
    "gaussian_noise": lambda: v2.RandomApply([v2.GaussianNoise(0, 0.05)], 0.5),
    "random_erasing": lambda: v2.RandomErasing(0.5),
    "cutout": lambda: v2.RandomErasing(1.0, scale=(1 / 16, 1 / 16), ratio=(1, 1)),
    "invert": lambda: v2.RandomInvert(0.5),
    "solarize": lambda: v2.RandomSolarize(128, 0.5),
    "posterize": lambda: v2.RandomPosterize(4, 0.5),
    "autocontrast": lambda: v2.RandomAutocontrast(0.5),
    "equalize": lambda: v2.RandomEqualize(0.5),
    "jpeg": lambda: v2.RandomApply([v2.JPEG((25, 95))], 0.5),
    "mixup": v2.Identity,
    "cutmix": v2.Identity,
    "autoaugment_cifar10": lambda: v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10),
    "randaugment": v2.RandAugment,
    "trivialaugment": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
CROP_AND_FLIP = ("random_crop", "horizontal_flip")


def ours(names: tuple[str, ...], images: Tensor, labels: Tensor) -> Callable[[], object]:
    configs: list[Any] = [AUGMENTATIONS[name].config(**SETTINGS.get(name, {})) for name in names]
    augment = build_augmentations(configs, (3, SIDE_PX, SIDE_PX), NUM_CLASSES)
    standardize, draw = Standardization(MEAN, DEVIATION), Draw(Generator().manual_seed(0))

    def batch() -> Tensor:
        changed = standardize(augment(images, labels, draw)[0])
        return changed.contiguous(memory_format=torch.channels_last)

    return batch


def theirs(names: tuple[str, ...], images: Tensor, labels: Tensor) -> Callable[[], object]:
    last = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)]
    transform = v2.Compose([*(THEIRS[name]() for name in names), *last])
    mixing = {"mixup": v2.MixUp, "cutmix": v2.CutMix}
    mix = mixing[names[0]](num_classes=NUM_CLASSES) if names[0] in mixing else None

    def one_by_one() -> object:
        batch = torch.stack([transform(image) for image in images[:NUM_THEIRS]])
        return mix(batch, labels[:NUM_THEIRS]) if mix else batch

    return one_by_one


def seconds(call: Callable[[], object], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return time.perf_counter() - start


def measure(names: tuple[str, ...], images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Images a second in turns, after one turn to warm up: medians, and the ratios of neighbours in time."""
    batched, single = ours(names, images, labels), theirs(names, images.contiguous(), labels)
    batched(), single()
    rates = [
        (NUM_IMAGES * NUM_OURS / seconds(batched, NUM_OURS), NUM_THEIRS / seconds(single, 1)) for _ in range(NUM_PAIRS)
    ]
    ratios = sorted(fast / slow for fast, slow in rates)
    return {
        "images_per_s": round(statistics.median(fast for fast, _ in rates)),
        "torchvision_images_per_s": round(statistics.median(slow for _, slow in rates)),
        "ratio": round(statistics.median(ratios), 1),
        "smallest_ratio": round(ratios[0], 1),
        "largest_ratio": round(ratios[-1], 1),
    }


def main() -> None:
    warnings.filterwarnings("ignore", message="The image decoding and encoding capabilities")
    # As in training.
    torch.set_num_threads(num_threads())
    keep_freed_memory()
    generator = Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (NUM_IMAGES, SIDE_PX, SIDE_PX, 3), generator=generator, dtype=torch.uint8)
    images, labels = pixels.permute(0, 3, 1, 2), torch.arange(NUM_IMAGES) % NUM_CLASSES
    wanted = [(name,) for name in sys.argv[1:]] or [CROP_AND_FLIP, *((name,) for name in AUGMENTATIONS.names())]
    print(f"{'images/s':34}{'batched':>10}{'torchvision':>13}{'ratio':>8}   smallest … largest of {NUM_PAIRS}")
    results = {}
    for names in wanted:
        # It calls torchvision's transforms one by one itself.
        if names == ("torchvision",):
            continue
        key = " + ".join(names)
        results[key] = found = measure(names, images, labels)
        print(
            f"{key:34}{found['images_per_s']:>10,}{found['torchvision_images_per_s']:>13,}{found['ratio']:>8}"
            f"   {found['smallest_ratio']} … {found['largest_ratio']}",
            flush=True,
        )
    if len(sys.argv) == 1:
        environment = describe_environment(torch.get_num_threads(), "cpu", "float32")
        about = {"num_images": NUM_IMAGES, "side_px": SIDE_PX, "num_pairs": NUM_PAIRS}
        write_section("augmentation", {**about, **results}, environment)


if __name__ == "__main__":
    main()
