from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conviction.data.standardize import Standardization
from conviction.data.stream import Stream
from conviction.predict import ViewsConfig, autocast, predict, several_views

GREY_LEVELS = np.arange(0, 220, 20, dtype=np.uint8)
ROWS = np.array([9, 0, 3, 3, 10, 7, 1])


def stream(batch_size: int = 3) -> Stream:
    """One pixel a picture, which is its row's number times 20; the label is the row's number."""
    return Stream(GREY_LEVELS.reshape(-1, 1, 1, 1), np.arange(11), ROWS, Standardization((0.0,), (1.0,)), batch_size)


class Twice(nn.Module):
    """Logits (x, 2x), and a note of how it was called."""

    def __init__(self, fails_at: int | None = None) -> None:
        super().__init__()
        self.inner = nn.Dropout(0.5)
        self.fails_at = fails_at
        self.calls: list[tuple[int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.calls.append((len(images), self.training or self.inner.training, torch.is_inference_mode_enabled()))
        if len(self.calls) == self.fails_at:
            raise RuntimeError("planted")
        pixels = self.inner(images).flatten(1)
        return torch.cat([pixels, 2 * pixels], dim=1)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_logits_and_labels_in_the_streams_order(batch_size: int) -> None:
    found = predict(Twice(), stream(batch_size))
    assert found.labels.tolist() == ROWS.tolist()
    np.testing.assert_allclose(found.logits[:, 0].numpy(), ROWS * 20 / 255, rtol=1e-6)
    np.testing.assert_allclose(found.logits[:, 1].numpy(), ROWS * 40 / 255, rtol=1e-6)


def test_every_batch_is_seen_in_evaluation_mode_without_gradients() -> None:
    network = Twice()
    predict(network, stream())
    # A last batch of one would be joined to the one before: 3, then 4.
    assert network.calls == [(3, False, True), (4, False, True)]


@pytest.mark.parametrize("fails_at", [None, 2])
@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back(training: bool, fails_at: int | None) -> None:
    network = Twice(fails_at).train(training)
    if fails_at:
        with pytest.raises(RuntimeError, match="planted"):
            predict(network, stream())
    else:
        predict(network, stream())
    assert (network.training, network.inner.training) == (training, training)


def test_a_frozen_part_stays_in_evaluation_mode() -> None:
    network = Twice().train()
    network.inner.eval()
    predict(network, stream())
    assert (network.training, network.inner.training) == (True, False)


def test_running_statistics_do_not_move() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 2))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network, stream())
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_what_comes_out_can_be_computed_with() -> None:
    found = predict(Twice(), stream())
    assert (found.logits.dtype, found.labels.dtype) == (torch.float32, torch.int64)
    assert not found.logits.requires_grad


def test_precision() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(1, 2))
    exact, rounded = predict(network, stream()), predict(network, stream(), "bfloat16")
    torch.testing.assert_close(rounded.logits, rounded.logits.bfloat16().float(), rtol=0, atol=0)
    torch.testing.assert_close(rounded.logits, exact.logits, rtol=0.02, atol=0.02)
    assert not torch.equal(rounded.logits, exact.logits)
    with autocast(torch.device("cpu"), "float32"):
        assert network(torch.ones(1, 1)).dtype == torch.float32


def test_views_by_hand() -> None:
    """1 2 3 / 4 5 6 / 7 8 9: moved to the lower right, the mirror image of the second row and column comes in."""
    image = torch.arange(1.0, 10).view(1, 1, 3, 3)
    mirrored = [3.0, 2, 1, 6, 5, 4, 9, 8, 7]
    lower_right, upper_left = [5.0, 4, 5, 2, 1, 2, 5, 4, 5], [5.0, 6, 5, 8, 9, 8, 5, 6, 5]
    found = several_views(image, ViewsConfig(shift_px=1))
    assert [(weight, view.flatten().tolist()) for weight, view in found] == [
        (0.5, image.flatten().tolist()),
        (0.25, lower_right),
        (0.25, upper_left),
    ]
    both = several_views(image, ViewsConfig(shift_px=1, mirror=True))
    assert [weight for weight, _ in both] == [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]
    assert [view.flatten().tolist() for _, view in both[:3]] == [image.flatten().tolist(), mirrored, lower_right]


@pytest.mark.parametrize(
    ("views", "num"),
    [
        (ViewsConfig(), 1),
        (ViewsConfig(mirror=True), 2),
        (ViewsConfig(shift_px=2), 3),
        (ViewsConfig(mirror=True, shift_px=1), 6),
    ],
)
def test_views_are_counted_and_weigh_one_together(views: ViewsConfig, num: int) -> None:
    found = several_views(torch.zeros(2, 3, 5, 4), views)
    assert len(found) == views.num_views == num
    assert sum(weight for weight, _ in found) == 1
    assert all(view.shape == (2, 3, 5, 4) for _, view in found)


def test_logits_are_averaged_over_the_views_and_kept_of_one() -> None:
    """A network that reads the first pixel of a row: of 0 1 2 that is 0, and of its mirror image 2."""
    rows = np.array([[0, 1, 2], [5, 7, 9]], np.uint8).reshape(2, 1, 3, 1)
    images = Stream(rows, np.array([0, 1]), np.array([1, 0]), Standardization((0.0,), (1 / 255,)), 1)
    network = FirstPixel()
    found = predict(network, images, views=ViewsConfig(mirror=True))
    assert found.logits.tolist() == [[7.0], [1.0]]
    assert found.one_view_logits is not None
    assert found.one_view_logits.tolist() == [[5.0], [0.0]]
    assert predict(network, images).logits.tolist() == [[5.0], [0.0]]
    assert predict(network, images).one_view_logits is None


class FirstPixel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, :1].round()
