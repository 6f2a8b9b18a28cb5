from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.v2 import functional

from conviction.core.errors import ConfigError
from conviction.data.stream import Batch, in_memory_format
from conviction.fit.progressive import SizeStep, check_sizes, shrunk, size_in_epoch
from small_training import network_of, trainer

STEPS = (SizeStep(epochs=2, size_px=4), SizeStep(epochs=1, size_px=5))


def test_sizes_by_epoch() -> None:
    assert [size_in_epoch(STEPS, epoch) for epoch in range(1, 6)] == [4, 4, 5, None, None]
    assert size_in_epoch((), 1) is None


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("channels", [1, 3])
def test_shrunk_as_torchvision_resizes(channels: int, memory_format: torch.memory_format) -> None:
    images = torch.randn(3, channels, 12, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(3)
    found = shrunk(Batch(in_memory_format(images, memory_format), labels, labels), 6)
    torch.testing.assert_close(found.images, functional.resize(images, 6, antialias=True))
    assert found.images.is_contiguous(memory_format=memory_format)
    # By the strides torch decides; one channel lies in memory alike in both formats.
    assert (found.images.stride(1) == 1) == (memory_format == torch.channels_last)
    assert found.labels is labels


def test_by_hand() -> None:
    """Four pixels become two: the weights 3, 3, 1 (of 7) of a triangle that reaches two pixels to each side."""
    images = torch.tensor([0.0, 0, 70, 140]).repeat(4, 1)[None, None]
    found = shrunk(Batch(images, torch.tensor([0]), torch.tensor([0])), 2)
    torch.testing.assert_close(found.images[0, 0], torch.tensor([10.0, 90]).repeat(2, 1))


def test_whole_pictures_are_left_alone() -> None:
    batch = Batch(torch.zeros(1, 1, 4, 4), torch.tensor([0]), torch.tensor([0]))
    assert shrunk(batch, None) is batch


class Watching(nn.Module):
    """A network that takes any size, and notes what it has seen in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.seen: Counter[tuple[bool, int]] = Counter()

    def forward(self, images: Tensor) -> Tensor:
        self.seen[self.training, images.shape[2]] += 1
        logits: Tensor = self.layer(images.mean(dim=(2, 3)))
        return logits


def test_training_sees_small_pictures_and_validation_whole_ones() -> None:
    found = trainer()
    network = Watching()
    found.network, found.progressive_sizes = network, STEPS
    for epoch in range(1, 5):
        network.seen.clear()
        found.train_epoch(epoch, lambda done, steps: None)
        sizes = {size for training, size in network.seen if training}
        assert sizes == {size_in_epoch(STEPS, epoch) or 6}
        assert {size for training, size in network.seen if not training} == {6}


def test_networks_that_do_not_take_them_are_refused() -> None:
    dense = network_of({"blocks": [{"filters": 4}]})
    with pytest.raises(ConfigError, match=r"fit\.progressive_sizes\.1\.size_px: the network does not take .* 5×5"):
        check_sizes(dense, (3, 6, 6), (SizeStep(epochs=1, size_px=6), SizeStep(epochs=1, size_px=5)))
    pooled = network_of({"blocks": [{"filters": 4, "normalization": "batch"}], "global_pooling": "average"}).train()
    before = {name: value.clone() for name, value in pooled.state_dict().items()}
    check_sizes(pooled, (3, 6, 6), STEPS)
    assert pooled.training
    assert all(torch.equal(value, before[name]) for name, value in pooled.state_dict().items())
    with pytest.raises(ConfigError, match=r"`fit\.progressive_sizes\.0\.size_px <= 6`.* but got 7"):
        check_sizes(pooled, (3, 6, 8), (SizeStep(epochs=1, size_px=7),))
