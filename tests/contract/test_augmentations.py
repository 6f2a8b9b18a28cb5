"""What every augmentation keeps to."""

from contextlib import suppress
from itertools import product
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from conviction.augment import AUGMENTATIONS, Augmenter, augmented_shape, build_augmentations
from conviction.augment.base import Mixing
from conviction.core.config import Config
from conviction.core.errors import ConfigError
from conviction.data.stream import Draw

# Settings for entries that have some without a default, or that would often leave an image as it is.
SETTINGS: dict[str, dict[str, Any]] = {
    "crop_to": {"size_px": 16},
    "random_resized_crop": {"size_px": 16},
    "translate": {"share": 0.3},
    "mixup": {"alpha": 1.0},
    "torchvision": {"transform": "RandomRotation", "options": {"degrees": 40}},
}
# It changes an image by its row and the epoch alone, whatever the generator.
WITHOUT_A_DRAW = {"alternating_flip"}
# It refuses pictures without colours.
OF_COLOURS = {"hue", "saturation", "grayscale"}
NUM_CLASSES = 5


def noise(num_images: int = 8, num_channels: int = 3, height: int = 24, width: int = 20) -> Tensor:
    generator = Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, num_channels, height, width), generator=generator, dtype=torch.uint8)


def labels_of(images: Tensor) -> Tensor:
    return torch.arange(len(images)) % NUM_CLASSES


def seeded(seed: int = 1) -> Draw:
    return Draw(Generator().manual_seed(seed))


def config_of(name: str) -> Any:
    return AUGMENTATIONS[name].config(**SETTINGS.get(name, {}))


def changed(augment: Augmenter, images: Tensor, draw: Draw) -> Tensor:
    return augment(images, labels_of(images), draw)[0]


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
class TestEveryAugmentation:
    @pytest.fixture
    def augment(self, name: str) -> Augmenter:
        return build_augmentations([config_of(name)], (3, 24, 20), NUM_CLASSES)

    @pytest.mark.parametrize("num_channels", [1, 3])
    @pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
    def test_shape_type_and_range(self, name: str, num_channels: int, dtype: torch.dtype) -> None:
        if num_channels == 1 and name in OF_COLOURS:
            with pytest.raises(ConfigError, match="needs pictures in colour"):
                build_augmentations([config_of(name)], (num_channels, 24, 20), NUM_CLASSES)
            return
        augment = build_augmentations([config_of(name)], (num_channels, 24, 20), NUM_CLASSES)
        height, width = augment.output_size((24, 20))
        assert augmented_shape([config_of(name)], (num_channels, 24, 20)) == (num_channels, height, width)
        for num_images, layout in product((1, 2, 33), (torch.contiguous_format, torch.channels_last)):
            images = noise(num_images, num_channels).contiguous(memory_format=layout)
            given = images if dtype == torch.uint8 else images.float() / 255
            augmented, targets = augment(given, labels_of(images), seeded())
            assert augmented.shape == (num_images, num_channels, height, width)
            assert augmented.dtype == dtype
            # The range 0 … 255 goes with the type.
            if dtype != torch.uint8:
                assert augmented.min() >= 0
                assert augmented.max() <= 1 + 1e-6
            assert len(targets) == num_images

    def test_labels_are_kept_or_shared(self, name: str, augment: Augmenter) -> None:
        images = noise()
        targets = augment(images, labels_of(images), seeded())[1]
        if issubclass(type(AUGMENTATIONS[name].build(config_of(name))), Mixing):
            assert targets.shape == (8, NUM_CLASSES)
            assert torch.allclose(targets.sum(dim=1), torch.ones(8))
            assert (targets >= 0).all()
        else:
            assert torch.equal(targets, labels_of(images))

    def test_float_and_grey_levels_agree(self, augment: Augmenter) -> None:
        """Within one level: `uint8` is rounded at the end."""
        images = noise()
        levels = changed(augment, images, seeded()).float()
        numbers = changed(augment, images.float() / 255, seeded()) * 255
        assert (levels - numbers).abs().max() <= 1

    def test_the_memory_layout_does_not_matter(self, augment: Augmenter) -> None:
        images = noise()
        plain = changed(augment, images, seeded())
        assert torch.equal(plain, changed(augment, images.contiguous(memory_format=torch.channels_last), seeded()))

    def test_the_generator_decides_everything(self, name: str, augment: Augmenter) -> None:
        images = noise()
        torch.manual_seed(1)
        first = changed(augment, images, seeded())
        torch.manual_seed(2)
        assert torch.equal(first, changed(augment, images, seeded()))
        if name not in WITHOUT_A_DRAW:
            assert any(not torch.equal(first, changed(augment, images, seeded(seed))) for seed in range(2, 12))

    def test_the_generator_moves_on(self, name: str, augment: Augmenter) -> None:
        images, draw = noise(), seeded()
        results = [changed(augment, images, draw) for _ in range(10)]
        assert name in WITHOUT_A_DRAW or any(not torch.equal(results[0], other) for other in results[1:])

    def test_every_image_has_a_draw_of_its_own(self, augment: Augmenter) -> None:
        # Two pictures, which a mixture tells apart.
        images = noise(2).repeat_interleave(32, dim=0)
        augmented = changed(augment, images, seeded())
        assert len({tuple(image.flatten().tolist()) for image in augmented[:32]}) > 1

    def test_an_images_draw_does_not_depend_on_the_others_pixels(self, name: str, augment: Augmenter) -> None:
        images = noise()
        others = images.clone()
        others[1:] = 255 - others[1:]
        first, second = changed(augment, images, seeded()), changed(augment, others, seeded())
        if not issubclass(type(AUGMENTATIONS[name].build(config_of(name))), Mixing):
            assert torch.equal(first[0], second[0])

    def test_the_input_is_not_changed(self, augment: Augmenter) -> None:
        for images in (noise(), noise().float() / 255):
            before = images.clone()
            augmented = changed(augment, images, seeded())
            assert torch.equal(images, before)
            augmented.add_(1)
            assert torch.equal(images, before)

    def test_pictures_of_one_pixel_are_taken_or_refused(self, name: str) -> None:
        with suppress(ConfigError):
            augment = build_augmentations([config_of(name)], (1, 1, 1), NUM_CLASSES)
            assert changed(augment, noise(4, 1, 1, 1), seeded()).shape == (4, 1, 1, 1)


def test_a_crop_that_could_lose_the_picture_is_refused_before_training() -> None:
    config: Any = AUGMENTATIONS["random_crop"].config(padding_px=8)
    assert build_augmentations([config], (3, 9, 12), 2).output_size((9, 12)) == (9, 12)
    with pytest.raises(ConfigError, match=r"padding_px < 8.* must hold, but got padding_px=8"):
        build_augmentations([config], (3, 8, 12), 2)


@pytest.mark.parametrize("name", ["crop_to", "random_resized_crop"])
def test_a_cut_larger_than_the_picture_is_refused(name: str) -> None:
    config: Any = AUGMENTATIONS[name].config(size_px=9)
    assert augmented_shape([config], (3, 9, 12)) == (3, 9, 9)
    with pytest.raises(ConfigError, match=rf"{name}: `size_px <= 8`.*but got size_px=9"):
        build_augmentations([config], (3, 8, 12), 2)


UNFIT: list[tuple[str, dict[str, Any], tuple[int, int, int], str]] = [
    ("hue", {}, (1, 9, 9), r"hue needs pictures in colour, of 3 channels, but got 1"),
    ("saturation", {}, (1, 9, 9), r"saturation needs pictures in colour"),
    ("grayscale", {}, (4, 9, 9), r"grayscale needs pictures in colour, of 3 channels, but got 4"),
    (
        "color_jitter",
        {"brightness": 0, "contrast": 0},
        (1, 9, 9),
        r"color_jitter without brightness and contrast needs",
    ),
    ("jpeg", {}, (2, 9, 9), r"jpeg: pictures must have 1 channel, grey, or 3.*but got 2"),
    ("cutout", {"size_px": 12}, (3, 9, 12), r"cutout: `size_px < 12`.* must hold, but got size_px=12"),
    ("random_erasing", {"smallest_area": 0.3}, (3, 7, 500), r"none of smallest_area=0.3 and .* fits into 7×500"),
    ("random_erasing", {"smallest_area": 0.95, "largest_area": 0.95}, (3, 9, 9), r"fits into 9×9"),
    ("random_erasing", {}, (3, 1, 9), r"fits into 1×9"),
]


@pytest.mark.parametrize(("name", "settings", "shape", "message"), UNFIT)
def test_what_pictures_cannot_have_is_refused_before_training(
    name: str, settings: dict[str, Any], shape: tuple[int, int, int], message: str
) -> None:
    """Whatever `p` is, so that the draw of the first batch does not decide it."""
    for p in (0.01, 1.0):
        config: Any = AUGMENTATIONS[name].config(p=p, **settings)
        with pytest.raises(ConfigError, match=message):
            build_augmentations([config], shape, 2)


def test_what_pictures_must_have_is_asked_of_those_that_an_entry_sees() -> None:
    """After a crop there is less to erase from."""
    crop, cutout = AUGMENTATIONS["crop_to"].config(size_px=6), AUGMENTATIONS["cutout"].config(size_px=6)
    configs: list[Any] = [cutout, crop]
    assert build_augmentations(configs, (3, 9, 12), 2).output_size((9, 12)) == (6, 6)
    with pytest.raises(ConfigError, match=r"cutout: `size_px < 6`"):
        build_augmentations(configs[::-1], (3, 9, 12), 2)


def test_a_jitter_of_grey_pictures_leaves_their_colours_out() -> None:
    picture = noise(16, 1)
    jitter: Any = build_augmentations([config_of("color_jitter")], (1, 24, 20), 2)
    assert not torch.equal(changed(jitter, picture, seeded()), picture)


SENSELESS: list[tuple[str, dict[str, Any]]] = [
    ("horizontal_flip", {"p": 1.5}),
    ("alternating_flip", {"p": -0.1}),
    ("crop_to", {"size_px": 8, "p": 1.1}),
    ("random_resized_crop", {"size_px": 8, "p": 2}),
    ("random_crop", {"padding_px": 0}),
    ("random_crop", {"outside": "white"}),
    ("crop_to", {}),
    ("rotate", {"degrees": -5}),
    ("scale", {"smallest": 2.0, "largest": 1.0}),
    ("shear", {"degrees": 90}),
    ("perspective", {"distortion": 2}),
    ("random_resized_crop", {"size_px": 8, "smallest_area": 0.9, "largest_area": 0.5}),
    ("hue", {"turns": 0.6}),
    ("brightness", {"strength": 1.5}),
    ("gaussian_blur", {"kernel_px": 4}),
    ("gaussian_blur", {"smallest_px": 3.0, "largest_px": 1.0}),
    ("posterize", {"bits": 8}),
    ("solarize", {"threshold": 2}),
    ("random_erasing", {"smallest_area": 0.5, "largest_area": 0.1}),
    ("jpeg", {"smallest_quality": 0}),
    ("jpeg", {"largest_quality": 101}),
    ("jpeg", {"smallest_quality": 60, "largest_quality": 50}),
    ("autoaugment_cifar10", {"interpolation": "cubic"}),
    ("randaugment", {"num_ops": 0}),
    ("randaugment", {"magnitude": 31}),
    ("randaugment", {"num_magnitude_bins": 1}),
    ("trivialaugment", {"p": 2}),
    ("augmix", {"severity": 11}),
    ("augmix", {"chain_depth": 0}),
    ("torchvision", {}),
    ("mixup", {"alpha": 0}),
    ("cutmix", {"p": -0.1}),
]


@pytest.mark.parametrize(("name", "settings"), SENSELESS)
def test_senseless_settings_are_refused(name: str, settings: dict[str, Any]) -> None:
    config: type[Config] = AUGMENTATIONS[name].config
    with pytest.raises(ValueError, match="validation error"):
        config(**settings)


def test_augmentations_are_applied_in_the_order_given() -> None:
    """Brightness before black comes in leaves it black; inverting after it turns it white."""
    white = torch.full((64, 1, 9, 9), 255, dtype=torch.uint8)
    crop, invert = config_of("random_crop"), AUGMENTATIONS["invert"].config(p=1.0)
    first: Any = build_augmentations([crop, invert], (1, 9, 9), 2)
    second: Any = build_augmentations([invert, crop], (1, 9, 9), 2)
    assert (changed(first, white, seeded()) == 255).any()
    assert (changed(second, white, seeded()) == 0).all()
