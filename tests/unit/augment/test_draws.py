"""What is drawn, how often, and what becomes of labels: numbers by hand and their sampling errors."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor

from conviction.augment import AUGMENTATIONS, Augmenter, build_augmentations
from conviction.augment.detail import boxes
from conviction.augment.geometric import AlternatingFlip
from conviction.augment.mix import shares
from conviction.data.stream import Draw

NUM = 4000


def seeded(seed: int = 0, epoch: int = 1, rows: Tensor | None = None) -> Draw:
    return Draw(Generator().manual_seed(seed), epoch, rows)


def built(name: str, shape: tuple[int, int, int], num_classes: int = 2, **settings: Any) -> Augmenter:
    config: Any = AUGMENTATIONS[name].config(**settings)
    return build_augmentations([config], shape, num_classes)


def changed(augment: Augmenter, images: Tensor, draw: Draw | None = None) -> Tensor:
    return augment(images, torch.zeros(len(images), dtype=torch.int64), draw or seeded())[0]


COLOURED = torch.tensor([200, 100, 40], dtype=torch.uint8).view(1, 3, 1, 1)


@pytest.mark.parametrize("name", ["invert", "grayscale", "brightness", "hue", "gaussian_noise", "cutout", "solarize"])
def test_as_many_images_as_asked_for(name: str) -> None:
    images = COLOURED.expand(NUM, 3, 9, 9).clone()
    touched = (changed(built(name, (3, 9, 9), p=0.3), images) != images).flatten(1).any(dim=1)
    assert stats.binomtest(int(touched.sum()), NUM, 0.3).pvalue > 1e-3


def test_brightness_is_uniform_on_its_range() -> None:
    images = torch.full((NUM, 1, 1, 1), 0.5)
    factors = changed(built("brightness", (1, 1, 1), strength=0.4), images).flatten() / 0.5
    assert stats.kstest(factors.numpy(), "uniform", (0.6, 0.8)).pvalue > 1e-3


def test_a_jitter_without_parts_leaves_all_as_it_is() -> None:
    images = COLOURED.expand(8, 3, 6, 6).clone()
    augment = built("color_jitter", (3, 6, 6), brightness=0, contrast=0, saturation=0, hue=0)
    assert torch.equal(changed(augment, images), images)


def test_alternating_flips_mirror_each_image_every_second_epoch() -> None:
    rows = torch.arange(NUM)
    epochs = [AlternatingFlip().matrices(NUM, (4, 4), seeded(epoch, epoch, rows))[:, 0, 0] for epoch in (1, 2, 3)]
    assert torch.equal(epochs[0], -epochs[1])
    assert torch.equal(epochs[0], epochs[2])
    assert abs(int((epochs[0] < 0).sum()) - NUM // 2) <= 2
    # Neither neighbours nor a class of neighbours go together.
    assert abs(int((epochs[0][:100] < 0).sum()) - 50) <= 5
    # A batch in another order mirrors the same images.
    other = AlternatingFlip().matrices(NUM, (4, 4), seeded(7, 1, rows.flip(0)))[:, 0, 0]
    assert torch.equal(other.flip(0), epochs[0])


def test_crops_are_uniform_over_all_places() -> None:
    picture = torch.arange(25, dtype=torch.uint8).view(1, 1, 5, 5).expand(NUM, -1, -1, -1)
    corners = changed(built("crop_to", (1, 5, 5), size_px=3), picture)[:, 0, 0, 0]
    counts = torch.bincount(corners.long(), minlength=25).view(5, 5)
    assert (counts[3:] == 0).all()
    assert stats.chisquare(counts[:3, :3].flatten().numpy()).pvalue > 1e-3


def test_erased_areas_lie_in_their_range() -> None:
    augment = built("random_erasing", (1, 40, 40), p=1.0, smallest_area=0.1, largest_area=0.2, largest_ratio=2.0)
    erased = (changed(augment, torch.ones((500, 1, 40, 40))) == 0).float().mean(dim=(1, 2, 3))
    # Sides are rounded to pixels: 0.5 of about 12 to 25 pixels each.
    assert erased.min() > 0.1 * 0.92
    assert erased.max() < 0.2 * 1.08
    assert abs(float(erased.mean()) - 0.15) < 0.005


def test_a_cutout_at_the_edge_is_cut_off() -> None:
    augment = built("cutout", (1, 20, 20), size_px=6)
    areas = (changed(augment, torch.ones((NUM, 1, 20, 20))) == 0).sum(dim=(1, 2, 3))
    assert areas.max() == 36
    # The middle in the corner itself leaves 3 × 3 of it.
    assert areas.min() == 9


def test_a_box_by_hand() -> None:
    mask = boxes(*(torch.tensor([float(value)]) for value in (-1, 1, 2, 5)), (3, 4))
    assert mask.int().tolist() == [[[[0, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]]]


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_shares_are_beta_distributed(alpha: float) -> None:
    found = shares(NUM, alpha, 1.0, Generator().manual_seed(0))
    assert stats.kstest(found.numpy(), "beta", (alpha, alpha)).pvalue > 1e-3
    assert (shares(NUM, alpha, 0.0, Generator().manual_seed(0)) == 1).all()


def mixed(name: str) -> tuple[Tensor, Tensor, Tensor]:
    """White pictures of class 1 and black ones of class 0, and what becomes of them."""
    labels = torch.arange(512) % 2
    images = labels.float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16).clone()
    found, targets = built(name, (1, 16, 16), alpha=1.0)(images, labels, seeded())
    return found, targets, labels


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_labels_are_shared_as_the_pixels_are(name: str) -> None:
    """The share of white in a mixture is its share of the white class."""
    found, targets, labels = mixed(name)
    assert torch.allclose(found.mean(dim=(1, 2, 3)), targets[:, 1], atol=1e-5)
    assert torch.allclose(targets.sum(dim=1), torch.ones(512))
    # Half of the partners are of the same class.
    apart = ((targets[:, 1] > 1e-3) & (targets[:, 1] < 1 - 1e-3)).float().mean()
    assert 0.35 < apart < 0.6
    assert not torch.equal(targets.argmax(dim=1), labels)


def test_mixup_is_a_weighted_mean_and_cutmix_is_not() -> None:
    grey = lambda found: ((found > 0.01) & (found < 0.99)).float().mean()  # noqa: E731
    assert grey(mixed("mixup")[0]) > 0.3
    assert grey(mixed("cutmix")[0]) == 0


def test_labels_mixed_by_one_are_kept_by_others() -> None:
    configs: list[Any] = [AUGMENTATIONS[name].config() for name in ("horizontal_flip", "mixup", "invert")]
    augment = build_augmentations(configs, (1, 8, 8), 3)
    assert augment.mixes_labels
    images = torch.zeros((4, 1, 8, 8), dtype=torch.uint8)
    assert augment(images, torch.tensor([0, 1, 2, 0]), seeded())[1].shape == (4, 3)
    assert not build_augmentations(configs[:1], (1, 8, 8), 3).mixes_labels
