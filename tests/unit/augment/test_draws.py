"""What is drawn, how often, and what becomes of labels: numbers by hand and their sampling errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Generator, Tensor

from conviction.augment import AUGMENTATIONS, Augmenter, build_augmentations
from conviction.augment.detail import boxes
from conviction.augment.geometric import AlternatingFlip
from conviction.augment.mix import shares
from conviction.data.standardize.channel import Standardization
from conviction.data.stream import Draw, Stream, cut_middle

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


def test_a_jitter_without_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match="all strengths 0 would leave every picture as it is"):
        built("color_jitter", (3, 6, 6), brightness=0, contrast=0, saturation=0, hue=0)


def flipped(epoch: int, rows: Tensor, seed: int = 0, p: float = 1.0) -> Tensor:
    draw = Draw(Generator().manual_seed(epoch), epoch, rows, seed)
    return AlternatingFlip(p).matrices(len(rows), (4, 4), draw)[:, 0, 0] < 0


def test_alternating_flips_mirror_each_image_every_second_epoch() -> None:
    rows = torch.arange(NUM)
    first, second, third = (flipped(epoch, rows) for epoch in (1, 2, 3))
    assert torch.equal(first, ~second)
    assert torch.equal(first, third)
    assert stats.binomtest(int(first.sum()), NUM, 0.5).pvalue > 1e-3
    # Neither neighbours nor a class of neighbours go together.
    pairs = first.view(-1, 2).sum(dim=1)
    assert stats.chisquare(torch.bincount(pairs).numpy(), [NUM / 8, NUM / 4, NUM / 8]).pvalue > 1e-3
    groups = first.view(-1, 100).sum(dim=1).double()
    assert stats.kstest(((groups - 50) / 5).numpy(), "norm").pvalue > 1e-4
    # A batch in another order mirrors the same images.
    assert torch.equal(flipped(1, rows.flip(0)).flip(0), first)


def test_alternating_flips_of_two_seeds_mirror_independent_halves() -> None:
    rows = torch.arange(NUM)
    found = {seed: flipped(1, rows, seed) for seed in (0, 1, 2, 2**63 - 1)}
    for one, other in itertools.combinations(found.values(), 2):
        assert stats.binomtest(int((one == other).sum()), NUM, 0.5).pvalue > 1e-3


def test_alternating_flips_of_a_share_leave_the_others_as_they_are() -> None:
    rows = torch.arange(NUM)
    all_of_them, first, second, third = flipped(1, rows), *(flipped(epoch, rows, p=0.3) for epoch in (1, 2, 3))
    assert not (first & second).any()
    assert torch.equal(first, third)
    takes_turns = first | second
    assert stats.binomtest(int(takes_turns.sum()), NUM, 0.3).pvalue > 1e-3
    assert stats.binomtest(int(first.sum()), int(takes_turns.sum()), 0.5).pvalue > 1e-3
    assert torch.equal(first, all_of_them & takes_turns)
    assert not flipped(1, rows, p=0.0).any()


def test_a_stream_mirrors_by_the_runs_seed() -> None:
    """Each picture once, with its mark on the left or on the right; the order is the generator's."""
    images = np.zeros((64, 1, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(1, 65)
    augment = built("alternating_flip", (1, 1, 2))
    stream = Stream(images, np.arange(64), np.arange(64), Standardization((0.0,), (1.0,)), 10, augment)

    def mirrored(epoch: int, seed: int, draws: int) -> list[bool]:
        batches = stream.shuffled(Generator().manual_seed(draws), epoch, seed)
        found = [(b.labels, b.images[:, 0, 0, 1] > 0) for b in batches]
        labels, is_mirrored = (torch.cat(parts) for parts in zip(*found, strict=True))
        return [bool(one) for one in is_mirrored[labels.argsort()]]

    first = mirrored(1, 5, 1)
    assert mirrored(2, 5, 2) == [not one for one in first]
    # An epoch that is drawn again after a pause, or in another order, mirrors the same.
    assert mirrored(1, 5, 1) == mirrored(3, 5, 9) == first
    assert mirrored(1, 6, 1) != first


@pytest.mark.parametrize(("height", "width"), [(5, 5), (6, 5), (8, 7)])
@pytest.mark.parametrize("name", ["crop_to", "random_resized_crop"])
def test_crops_that_are_not_chosen_take_what_evaluation_takes(name: str, height: int, width: int) -> None:
    picture = torch.arange(height * width, dtype=torch.uint8).view(1, 1, height, width)
    middle = torch.from_numpy(cut_middle(picture.permute(0, 2, 3, 1).numpy(), (3, 3))).permute(0, 3, 1, 2)
    pictures = picture.expand(NUM, -1, -1, -1)
    never, always, some = (changed(built(name, (1, height, width), size_px=3, p=p), pictures) for p in (0, 1, 0.3))
    assert (never == middle).all()

    def is_other(found: Tensor) -> Tensor:
        return (found != middle).flatten(1).any(dim=1)

    expected = 0.3 * float(is_other(always).float().mean())
    assert expected > 0.2
    # The expected share is itself one of a sample.
    assert abs(float(is_other(some).float().mean()) - expected) < 4 * (2 * 0.3 * 0.7 / NUM) ** 0.5


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
