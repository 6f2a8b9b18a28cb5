"""The publication as a program of its own is that of the recipe `speed-cifar10-sgd`, but for what is said to differ."""

from __future__ import annotations

import published_recipe
import pytest
import torch

from conviction.nets import PRESETS, build_network
from conviction.predict import ViewsConfig, averaged_logits


def pictures(count: int = 64) -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(count, 3, 32, 32)


def test_it_is_the_same_network() -> None:
    preset = PRESETS["speed-cifar10"]
    ours = build_network(preset.config, preset.input_shape, preset.num_classes)
    theirs = published_recipe.build(pictures())

    def weights(network: torch.nn.Module) -> list[torch.Tensor]:
        """Without the scales of normalisations, which stay at 1."""
        kept = network.state_dict().items()
        return [value for name, value in kept if value.dim() > 1 or not name.endswith(("weight", "tracked"))]

    assert [weight.shape for weight in weights(theirs)] == [weight.shape for weight in weights(ours)]
    for own, other in zip(weights(ours), weights(theirs), strict=True):
        own.copy_(other)
    for network in (ours, theirs):
        # Running statistics other than those of a new network.
        network.train()(pictures())
    torch.testing.assert_close(ours(pictures(8)), theirs(pictures(8)))
    assert sum(weight.requires_grad for weight in theirs.parameters()) == len(weights(theirs)) - 1 - 2 * 6


def test_views_are_weighed_alike() -> None:
    torch.manual_seed(1)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10)).eval()
    ours, one_view = averaged_logits(network, pictures(), ViewsConfig(mirror=True, shift_px=1))
    torch.testing.assert_close(published_recipe.averaged(network, pictures(), True), ours)
    torch.testing.assert_close(published_recipe.averaged(network, pictures(), False), one_view)


def test_two_epochs_show_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published_recipe, "BATCH", 30)
    monkeypatch.setattr(published_recipe, "SHIFT_PX", 0)
    images, labels = pictures(), torch.arange(64)
    mirrored = torch.rand(64) < 0.5
    for epoch in (0, 1):
        found = published_recipe.batches(images, labels, epoch, mirrored)
        assert [len(rows) for _, rows in found] == [30, 30]
        for batch, rows in found:
            for picture, row in zip(batch, rows, strict=True):
                expected = images[row].flip(-1) if bool(mirrored[row]) ^ (epoch == 1) else images[row]
                assert torch.equal(picture, expected)


def test_pictures_are_shifted_by_two_pixels_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(16)
    padded = torch.nn.functional.pad(images, (2,) * 4, mode="reflect")
    monkeypatch.setattr(published_recipe, "BATCH", 16)
    ((batch, rows),) = published_recipe.batches(images, torch.arange(16), 0, torch.zeros(16, dtype=torch.bool))
    for picture, row in zip(batch, rows, strict=True):
        places = [padded[row, :, y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
        assert sum(torch.equal(picture, place) for place in places) == 1


def test_the_rate_rises_and_falls() -> None:
    assert [published_recipe.rate_at(step, 100) for step in (0, 23, 100)] == pytest.approx([0.2, 1.0, 0.07])


def test_it_trains() -> None:
    torch.manual_seed(0)
    labels = torch.arange(2048) % 10
    images = pictures(2048) * 0.1 + labels[:, None, None, None] / 10
    off = torch.autocast("cpu", torch.bfloat16, enabled=False)
    network, seconds = published_recipe.train(images, labels, 1, off, False)
    assert seconds > 0
    assert torch.isfinite(network.eval()(images[:4])).all()
