"""The policies' operations, spaces and pairs against torchvision's own; what is drawn, how often."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torchvision.transforms import v2

from conviction.augment import AUGMENTATIONS, build_augmentations, policy
from conviction.augment.operation import NOTHING, Resampling, Space, applied
from conviction.data.stream import Draw
from pictures import smooth_pictures

NUM, NUM_DRAWN = 24, 20_000
THEIRS = {
    "identity": "Identity",
    "shear_x": "ShearX",
    "shear_y": "ShearY",
    "translate_x": "TranslateX",
    "translate_y": "TranslateY",
    "rotate": "Rotate",
    "brightness": "Brightness",
    "saturation": "Color",
    "contrast": "Contrast",
    "sharpness": "Sharpness",
    "posterize": "Posterize",
    "solarize": "Solarize",
    "autocontrast": "AutoContrast",
    "equalize": "Equalize",
    "invert": "Invert",
}
SPACES: list[tuple[Space, Any, int]] = [
    (policy.AUTOAUGMENT_SPACE, v2.AutoAugment._AUGMENTATION_SPACE, 10),
    (policy.RANDAUGMENT_SPACE, v2.RandAugment._AUGMENTATION_SPACE, 31),
    (policy.TRIVIALAUGMENT_SPACE, v2.TrivialAugmentWide._AUGMENTATION_SPACE, 31),
    (policy.AUGMIX_SPACES[True], v2.AugMix._AUGMENTATION_SPACE, 10),
    (policy.AUGMIX_SPACES[False], v2.AugMix._PARTIAL_AUGMENTATION_SPACE, 10),
]


@pytest.mark.parametrize(("ours", "theirs", "num_bins"), SPACES)
def test_spaces_are_torchvisions(ours: Space, theirs: Any, num_bins: int) -> None:
    assert {THEIRS[name] for name in ours.names} == set(theirs)
    for name, row, is_signed in zip(ours.names, ours.magnitudes(num_bins, (33, 40)), ours.signed(), strict=True):
        magnitudes, expected_signed = theirs[THEIRS[name]]
        expected = magnitudes(num_bins, 33, 40)
        assert torch.allclose(row, torch.zeros(num_bins) if expected is None else expected.float())
        assert bool(is_signed) == expected_signed


def test_pairs_of_autoaugment_are_torchvisions() -> None:
    theirs = v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)._policies
    ours = [tuple((THEIRS[name], p, magnitude) for name, p, magnitude in pair) for pair in policy.CIFAR10_PAIRS]
    assert ours == [tuple((name, p, magnitude or 0) for name, p, magnitude in pair) for pair in theirs]


def drawn_magnitudes(name: str) -> Tensor:
    """Every magnitude of the widest space, both ways where there are two."""
    space = policy.TRIVIALAUGMENT_SPACE if name != "invert" else policy.AUTOAUGMENT_SPACE
    number = space.names.index(name)
    row = space.magnitudes(NUM // 2, (33, 40))[number]
    return torch.cat([row, -row if bool(space.signed()[number]) else row])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("name", THEIRS)
def test_operations_are_torchvisions_image_by_image(name: str, interpolation: Any) -> None:
    images, magnitudes = smooth_pictures(), drawn_magnitudes(name)
    # torchvision posterises floats to other levels than grey levels, so that the latter are compared.
    given = images if name == "posterize" else images.float() / 255
    resampling = Resampling("black", interpolation)
    found = applied(images.float() / 255, torch.zeros(NUM, dtype=torch.int64), magnitudes, (name,), resampling)
    for image, magnitude, changed in zip(given, magnitudes.tolist(), found, strict=True):
        expected = v2.AutoAugment()._apply_image_or_video_transform(
            image, THEIRS[name], magnitude, v2.InterpolationMode(interpolation), {}
        )
        numbers = expected.float() / 255 if name == "posterize" else expected
        off = (numbers - changed).abs()
        if interpolation == "nearest" and name in ("shear_x", "shear_y", "rotate"):
            # Half-way between two pixels, rounding decides which is nearer.
            assert (off > 1e-4).float().mean() < 0.02
        else:
            assert off.max() < 1e-4


def test_each_image_gets_its_own_operation_and_the_others_none() -> None:
    images = smooth_pictures().float() / 255
    names = ("invert", "translate_x", "equalize", "shear_y", "identity")
    operations = torch.arange(NUM) % 6 - 1
    magnitudes = torch.linspace(-5, 5, NUM)
    resampling = Resampling("edge", "bilinear")
    together = applied(images, operations, magnitudes, names, resampling)
    for at in range(NUM):
        one = slice(at, at + 1)
        alone = applied(images[one], operations[one], magnitudes[one], names, resampling)
        assert torch.allclose(alone[0], together[at], atol=1e-6)
        if operations[at] in (NOTHING, 4):
            assert torch.equal(together[at], images[at])


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """Each operation and magnitude that a policy draws; the images stay as they are."""
    calls: list[tuple[Tensor, Tensor]] = []

    def record(images: Tensor, operation_B: Tensor, magnitude_B: Tensor, *rest: Any) -> Tensor:
        calls.append((operation_B, magnitude_B))
        return images

    monkeypatch.setattr(policy, "applied", record)
    return calls


def drawn(name: str, **settings: Any) -> Tensor:
    config: Any = AUGMENTATIONS[name].config(**settings)
    augment = build_augmentations([config], (1, 32, 32), 2)
    images = torch.full((NUM_DRAWN, 1, 2, 2), 0.5)
    return augment(images, torch.zeros(NUM_DRAWN, dtype=torch.int64), Draw(Generator().manual_seed(0)))[0]


def test_randaugment_draws_all_operations_alike_at_one_magnitude(recorded: list[tuple[Tensor, Tensor]]) -> None:
    drawn("randaugment", num_ops=3, magnitude=10, num_magnitude_bins=21)
    names = policy.RANDAUGMENT_SPACE.names
    # The first call of each comes from building it.
    assert len(recorded) == 6
    for operations, magnitudes in recorded[3:]:
        assert stats.chisquare(torch.bincount(operations, minlength=14)).pvalue > 1e-3
        turned = magnitudes[operations == names.index("rotate")]
        assert torch.allclose(turned.abs(), torch.tensor(15.0))
        assert stats.binomtest(int((turned > 0).sum()), len(turned), 0.5).pvalue > 1e-3
        assert (magnitudes[operations == names.index("posterize")] == 6).all()
    first, second = recorded[3][0], recorded[4][0]
    pairs = torch.bincount(first * 14 + second, minlength=196).view(14, 14)
    assert stats.chi2_contingency(pairs).pvalue > 1e-3


def test_trivialaugment_draws_operations_and_magnitudes_alike(recorded: list[tuple[Tensor, Tensor]]) -> None:
    drawn("trivialaugment")
    operations, magnitudes = recorded[-1]
    assert stats.chisquare(torch.bincount(operations, minlength=14)).pvalue > 1e-3
    solarized = magnitudes[operations == policy.TRIVIALAUGMENT_SPACE.names.index("solarize")]
    counts = torch.bincount((solarized * 30).round().long(), minlength=31)
    assert len(counts) == 31
    assert stats.chisquare(counts).pvalue > 1e-3


def test_autoaugment_draws_each_pair_alike_and_its_operations_by_their_probabilities(
    recorded: list[tuple[Tensor, Tensor]],
) -> None:
    drawn("autoaugment_cifar10")
    names = policy.AUTOAUGMENT_SPACE.names
    for place, (operations, _) in enumerate(recorded[-2:]):
        expected = torch.zeros(len(names) + 1, dtype=torch.float64)
        for pair in policy.CIFAR10_PAIRS:
            name, p, _ = pair[place]
            expected[names.index(name) + 1] += p / 25
            expected[0] += (1 - p) / 25
        counts = torch.bincount(operations + 1, minlength=len(names) + 1)
        possible = expected > 0
        assert not counts[~possible].any()
        expected = expected[possible] / expected.sum() * NUM_DRAWN
        assert stats.chisquare(counts[possible], expected).pvalue > 1e-3
    # Shearing by 8 of 9 comes with shifting by 9 of 9 alone, in 7 of 10 cases.
    (first, slopes), (second, pixels) = recorded[-2:]
    sheared = (first == names.index("shear_y")) & torch.isclose(slopes.abs(), torch.tensor(0.3 * 8 / 9))
    shifted = second[sheared] == names.index("translate_y")
    assert stats.binomtest(int(shifted.sum()), int(sheared.sum()), 0.7).pvalue > 1e-3
    assert torch.allclose(pixels[sheared][shifted].abs(), torch.tensor(150 / 331 * 2))


def test_augmix_weights_and_depths(recorded: list[tuple[Tensor, Tensor]]) -> None:
    augment = policy.AugMix(policy.AugMixConfig())
    own, weights = augment.weights(NUM_DRAWN, Generator().manual_seed(0))
    assert torch.allclose(own + weights.sum(dim=0), torch.ones(NUM_DRAWN))
    # Dirichlet(1, 1) is uniform, and of three parts of the rest each follows Beta(1, 2).
    assert stats.kstest(own, "uniform").pvalue > 1e-3
    assert stats.kstest(weights[0] / (1 - own), stats.beta(1, 2).cdf).pvalue > 1e-3
    recorded.clear()
    images = drawn("augmix", severity=2)
    # The mean of an image and of itself, three times.
    assert torch.allclose(images, torch.tensor(0.5))
    assert len(recorded) == 18
    for chain in range(3):
        counts = [int((operations != NOTHING).sum()) for operations, _ in recorded[9 + 3 * chain :][:3]]
        assert counts[0] == NUM_DRAWN
        assert stats.binomtest(counts[1], NUM_DRAWN, 2 / 3).pvalue > 1e-3
        assert stats.binomtest(counts[2], NUM_DRAWN, 1 / 3).pvalue > 1e-3
    operations, magnitudes = recorded[9]
    turned = magnitudes[operations == policy.AUGMIX_SPACES[True].names.index("rotate")].abs()
    # The two weakest of ten: nothing, and a ninth of 30 degrees.
    assert sorted(set(turned.tolist())) == pytest.approx([0, 30 / 9])


def test_augmix_mixes_the_chains_by_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every chain ends in black, the image's own weight is left of it."""
    monkeypatch.setattr(policy, "applied", lambda images, *rest: torch.zeros_like(images))
    augment = policy.AugMix(policy.AugMixConfig(mixture_width=2, chain_depth=1))
    found = augment.recolour(torch.ones((50, 1, 3, 3)), Generator().manual_seed(7))
    own, _ = augment.weights(50, Generator().manual_seed(7))
    assert torch.allclose(found, own[:, None, None, None].expand_as(found))


@pytest.mark.parametrize("alpha", [1e-3, 1.0, 100.0])
def test_shares_sum_to_one_for_every_alpha(alpha: float) -> None:
    shares = policy.dirichlet(1000, 3, alpha, Generator().manual_seed(0))
    assert torch.allclose(shares.sum(dim=0), torch.ones(1000))


@pytest.mark.parametrize("name", ["autoaugment_cifar10", "randaugment", "trivialaugment", "augmix"])
def test_a_policy_is_for_a_share_of_the_images(name: str) -> None:
    config: Any = AUGMENTATIONS[name].config(p=0.3)
    augment = build_augmentations([config], (3, 33, 40), 2)
    images = smooth_pictures()[:1].expand(2000, -1, -1, -1)
    found = augment(images, torch.zeros(2000, dtype=torch.int64), Draw(Generator().manual_seed(0)))[0]
    changed = int((found != images).flatten(1).any(dim=1).sum())
    # Some of those that are chosen draw what changes nothing.
    assert changed > 0.1 * 2000
    assert stats.binomtest(changed, 2000, 0.3, alternative="greater").pvalue > 1e-3
