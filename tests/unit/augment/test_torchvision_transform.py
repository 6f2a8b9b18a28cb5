"""torchvision's transforms by name: which, with what options, seeded how, and of what size."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms import v2

from conviction.augment import augmented_shape, build_augmentations
from conviction.augment.torchvision_transform import TorchvisionConfig, transform_names
from conviction.core.errors import ConfigError
from conviction.data.stream import Draw
from conviction.run.recipe import load_recipe
from pictures import smooth_pictures

# Those whose options have no default.
OPTIONS: dict[str, dict[str, Any]] = {
    "CenterCrop": {"size": 20},
    "RandomCrop": {"size": [18, 22]},
    "RandomResizedCrop": {"size": 24},
    "GaussianBlur": {"kernel_size": 5},
    "Grayscale": {"num_output_channels": 3},
    "JPEG": {"quality": [20, 60]},
    "RandomAdjustSharpness": {"sharpness_factor": 2.0},
    "RandomAffine": {"degrees": 20, "translate": [0.1, 0.2]},
    "RandomPosterize": {"bits": 3},
    "RandomRotation": {"degrees": 30, "interpolation": "bilinear"},
    "RandomSolarize": {"threshold": 128},
}


def config_of(name: str, **options: Any) -> TorchvisionConfig:
    return TorchvisionConfig(transform=name, options=options)


def augmented(config: TorchvisionConfig, images: Tensor, seed: int = 0) -> Tensor:
    augment = build_augmentations([config], (images.shape[1], images.shape[2], images.shape[3]), 2)
    return augment(images, torch.zeros(len(images), dtype=torch.int64), Draw(Generator().manual_seed(seed)))[0]


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
@pytest.mark.parametrize("name", transform_names())
def test_every_transform_works_on_colour_pictures_and_float_agrees(name: str) -> None:
    config = config_of(name, **OPTIONS.get(name, {}))
    images = smooth_pictures(3)
    found = augmented(config, images)
    assert (3, *found.shape[1:]) == (3, *augmented_shape([config], (3, 33, 40)))
    assert found.dtype == torch.uint8
    floats = augmented(config, images.float() / 255)
    assert torch.allclose(floats * 255, found.float(), atol=1e-3)


def test_what_torchvision_does_with_the_same_seed() -> None:
    """Each image has a seed of its own, which the generator draws."""
    images = smooth_pictures(5)
    found = augmented(config_of("ElasticTransform", alpha=80.0), images, seed=3)
    seeds = torch.randint(0, 2**63 - 1, (5,), generator=Generator().manual_seed(3)).tolist()
    theirs = v2.ElasticTransform(alpha=80.0)
    for image, seed, changed in zip(images, seeds, found, strict=True):
        torch.manual_seed(seed)
        assert torch.equal(theirs(image), changed)


def test_torchs_own_generator_is_left_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    augmented(config_of("RandomRotation", degrees=90), smooth_pictures(4))
    assert torch.equal(torch.rand(3), expected)


def test_the_share_of_images_is_the_transforms_own() -> None:
    images = smooth_pictures(1).expand(600, -1, -1, -1)
    turned = (augmented(config_of("RandomInvert", p=0.3), images) != images).flatten(1).any(dim=1).sum()
    # Three deviations of 600 draws.
    assert abs(int(turned) - 180) < 3 * (600 * 0.3 * 0.7) ** 0.5


def test_crops_leave_as_much_as_evaluation_cuts() -> None:
    assert augmented_shape([config_of("RandomCrop", size=[18, 22])], (3, 33, 40)) == (3, 18, 22)
    assert augmented_shape([config_of("RandomCrop", size=32, padding=4)], (3, 32, 32)) == (3, 32, 32)
    with pytest.raises(ConfigError, match=r"CenterCrop gives 34×34 pixels.*which have 33×40"):
        augmented_shape([config_of("CenterCrop", size=34)], (3, 33, 40))


def test_crops_may_stand_among_others() -> None:
    configs = load_recipe(
        {
            "network": "lenet5",
            "augment": [
                {"name": "torchvision", "transform": "RandomCrop", "options": {"size": 28}},
                "horizontal_flip",
                {"name": "crop_to", "size_px": 24},
            ],
        }
    ).augment
    augment = build_augmentations(configs, (3, 33, 40), 2)
    assert augment.output_size((33, 40)) == (24, 24)
    draw = Draw(Generator().manual_seed(0))
    assert augment(smooth_pictures(), torch.zeros(24, dtype=torch.int64), draw)[0].shape == (24, 3, 24, 24)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("RandomPosterise", {"bits": 3}, "Did you mean 'RandomPosterize'"),
        ("RandomRotation", {"degrees": 3, "interpolation": "bilinar"}, "cannot be built with"),
        ("functional", {}, "No transform of images named 'functional'"),
        ("Lambda", {}, "holds no functions"),
        ("ToPILImage", {}, "changes the type"),
        ("Normalize", {}, "`standardize` does that"),
        ("Compose", {}, "entries of the list"),
        ("MixUp", {}, "take `mixup`"),
        ("CutMix", {}, "take `cutmix`"),
        ("Resize", {"size": 8}, "`data.image_size_px`"),
        ("Pad", {"padding": 2}, "other sizes than in evaluation"),
        ("RandomRotation", {"degrees": 5, "expand": True}, "with expand: true"),
        ("RandomPosterize", {}, "needs `options` with bits"),
        ("RandomPosterize", {"bit": 3}, "no option 'bit'. Did you mean 'bits'"),
        ("RandomHorizontalFlip", {"p": 3}, "torchvision says"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_recipe(name: str, options: dict[str, Any], says: str) -> None:
    entry = {"name": "torchvision", "transform": name, "options": options}
    with pytest.raises(ConfigError) as raised:
        load_recipe({"network": "lenet5", "augment": [entry]})
    assert "augment.0: " in raised.value.message
    assert says in raised.value.message


@pytest.mark.parametrize(
    ("name", "options", "shape", "says"),
    [
        ("Grayscale", {}, (3, 8, 8), "gives pictures of 1×8×8 .* they have 3×8×8"),
        ("RandomChannelPermutation", {}, (1, 8, 8), None),
        ("RandomPhotometricDistort", {"p": 1.0}, (1, 8, 8), None),
        ("GaussianBlur", {"kernel_size": 33}, (3, 8, 8), "cannot be applied to pictures of 3×8×8"),
    ],
)
def test_what_does_not_fit_the_pictures_is_refused_before_training(
    name: str, options: dict[str, Any], shape: tuple[int, int, int], says: str | None
) -> None:
    if says is None:
        assert build_augmentations([config_of(name, **options)], shape, 2)
        return
    with pytest.raises(ConfigError, match=says):
        build_augmentations([config_of(name, **options)], shape, 2)
