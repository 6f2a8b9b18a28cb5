"""What every augmentation keeps to."""

from contextlib import suppress
from typing import Any

import pytest
import torch
from torch import Generator, Tensor

from conviction.augment import AUGMENTATIONS, build_augmentations
from conviction.augment.base import Augmentation
from conviction.core.errors import ConfigError

# Settings for entries that have some without a default, or that would often leave an image as it is.
SETTINGS: dict[str, dict[str, Any]] = {}


def noise(num_images: int = 8, num_channels: int = 3, height: int = 12, width: int = 10) -> Tensor:
    generator = Generator().manual_seed(0)
    return torch.randint(0, 256, (num_images, num_channels, height, width), generator=generator, dtype=torch.uint8)


def seeded(seed: int = 1) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
class TestEveryAugmentation:
    @pytest.fixture
    def augment(self, name: str) -> Augmentation:
        entry = AUGMENTATIONS[name]
        [built] = build_augmentations([entry.config(**SETTINGS.get(name, {}))], (3, 12, 10))  # type: ignore[list-item]
        return built

    @pytest.mark.parametrize("num_channels", [1, 3])
    @pytest.mark.parametrize("num_images", [1, 2, 33])
    @pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
    def test_shape_type_and_range_are_kept(
        self, augment: Augmentation, num_channels: int, num_images: int, memory_format: torch.memory_format
    ) -> None:
        images = noise(num_images, num_channels).contiguous(memory_format=memory_format)
        augmented = augment(images, seeded())
        assert augmented.shape == images.shape
        # Range 0 … 255 goes with the type.
        assert augmented.dtype == torch.uint8

    def test_the_memory_layout_does_not_matter(self, augment: Augmentation) -> None:
        images = noise()
        plain = augment(images, seeded())
        assert torch.equal(plain, augment(images.contiguous(memory_format=torch.channels_last), seeded()))

    def test_the_generator_decides_everything(self, augment: Augmentation) -> None:
        images = noise()
        torch.manual_seed(1)
        first = augment(images, seeded())
        torch.manual_seed(2)
        assert torch.equal(first, augment(images, seeded()))
        assert any(not torch.equal(first, augment(images, seeded(seed))) for seed in range(2, 12))

    def test_the_generator_moves_on(self, augment: Augmentation) -> None:
        images, generator = noise(), seeded()
        results = [augment(images, generator) for _ in range(10)]
        assert any(not torch.equal(results[0], other) for other in results[1:])

    def test_every_image_has_a_draw_of_its_own(self, augment: Augmentation) -> None:
        images = noise(1).expand(64, -1, -1, -1)
        augmented = augment(images, seeded())
        assert len({tuple(image.flatten().tolist()) for image in augmented}) > 1

    def test_an_images_draw_does_not_depend_on_the_others_pixels(self, augment: Augmentation) -> None:
        images = noise()
        others = images.clone()
        others[1:] = 255 - others[1:]
        assert torch.equal(augment(images, seeded())[0], augment(others, seeded())[0])

    def test_the_input_is_not_changed(self, augment: Augmentation) -> None:
        images = noise()
        before = images.clone()
        augmented = augment(images, seeded())
        assert torch.equal(images, before)
        augmented.add_(1)
        assert torch.equal(images, before)

    def test_pictures_of_one_pixel_are_taken_or_refused(self, augment: Augmentation) -> None:
        with suppress(ConfigError):
            assert augment(noise(4, 1, 1, 1), seeded()).shape == (4, 1, 1, 1)


def test_a_crop_that_could_lose_the_picture_is_refused_before_training() -> None:
    config = AUGMENTATIONS["random_crop"].config(padding_px=8)
    assert len(build_augmentations([config], (3, 9, 12))) == 1  # type: ignore[list-item]
    with pytest.raises(ConfigError, match=r"padding_px < 8.* must hold, but got padding_px=8"):
        build_augmentations([config], (3, 8, 12))  # type: ignore[list-item]


def test_augmentations_are_built_in_the_order_given() -> None:
    configs = [AUGMENTATIONS[name].config(**SETTINGS.get(name, {})) for name in ("random_crop", "horizontal_flip")]
    crop, flip = build_augmentations(configs, (1, 9, 9))  # type: ignore[arg-type]
    white = torch.full((64, 1, 9, 9), 255, dtype=torch.uint8)
    assert (crop(white, seeded()) == 0).any()
    assert (flip(white, seeded()) == 255).all()
