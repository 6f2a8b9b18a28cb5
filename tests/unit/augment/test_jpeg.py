"""JPEG in tensors against libjpeg, which torchvision calls for one image at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from conviction.augment.jpeg import Jpeg, JpegConfig, jpeg
from pictures import smooth_pictures

Make = Callable[[int, int, int], Tensor]
QUALITIES = torch.arange(1, 101)
# Whole blocks and parts of one, even and odd sides, chroma of two columns and fewer, which libjpeg enlarges otherwise.
SIZES = [(32, 32), (33, 40), (16, 31), (15, 6), (17, 5), (5, 4), (2, 7), (1, 1)]


def smooth(channels: int, height: int, width: int) -> Tensor:
    return smooth_pictures(len(QUALITIES), channels, height, width)


def noise(channels: int, height: int, width: int) -> Tensor:
    shape = (len(QUALITIES), channels, height, width)
    return torch.randint(0, 256, shape, generator=Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
@pytest.mark.parametrize("make", [smooth, noise])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_every_quality_is_libjpegs_to_the_last_bit(height: int, width: int, channels: int, make: Make) -> None:
    images = make(channels, height, width)
    found = (jpeg(images.float() / 255, QUALITIES) * 255).round().to(torch.uint8)
    for image, quality, changed in zip(images, QUALITIES.tolist(), found, strict=True):
        assert torch.equal(functional.jpeg(image, quality), changed)


def test_a_large_batch_is_that_of_its_parts() -> None:
    """It is computed a part at a time: 2¹⁷ pixels are two pictures of this size."""
    images = torch.rand((5, 3, 256, 250), generator=Generator().manual_seed(0))
    quality = torch.tensor([5, 30, 60, 90, 100])
    alone = [jpeg(images[at : at + 1], quality[at : at + 1]) for at in range(5)]
    assert torch.equal(jpeg(images, quality), torch.cat(alone))


def test_qualities_are_uniform_from_the_smallest_to_the_largest() -> None:
    images = noise(1, 8, 8)[:1].expand(3000, -1, -1, -1).float() / 255
    augment = Jpeg(JpegConfig(smallest_quality=40, largest_quality=42))
    found = augment.recolour(images, Generator().manual_seed(0))
    # The quality is read off the result.
    results = [jpeg(images[:1], torch.tensor([quality])) for quality in (40, 41, 42)]
    counts = torch.stack([(found == result).flatten(1).all(dim=1).sum() for result in results])
    assert counts.sum() == 3000
    # Three standard deviations of a third of 3000.
    assert (counts - 1000).abs().max() < 3 * (3000 * 2 / 9) ** 0.5
