"""What several processes compute is what one computes, but for rounding."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

import share_driver
from conviction.core.errors import ConfigError
from conviction.data.stream import Place, Share
from conviction.fit.distributed import own_batches
from conviction.fit.shared_layers import CurrentPlace, SharedDropout, check_shareable, share_layers
from conviction.nets.dropout import BitDropout
from conviction.nets.freezing import freeze
from small_training import stream

FLOAT32 = [name for name, scenario in share_driver.SCENARIOS.items() if "precision" not in scenario]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int, int], Any]:
    """What came of each scenario, by name, number of processes and rank."""
    folder = tmp_path_factory.mktemp("shares")
    driver = Path(share_driver.__file__)
    done = subprocess.run(
        [sys.executable, str(driver), "1,2,3", str(folder)], capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    found = {}
    for path in folder.iterdir():
        name, num_processes, rank = path.stem.split("-")
        found[name, int(num_processes), int(rank)] = torch.load(path)
    return found


def largest_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    assert list(first) == list(second)
    return max(float((first[name].double() - second[name].double()).abs().max()) for name in first)


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("name", FLOAT32)
def test_gradients_are_those_of_one_process(outcomes: Any, name: str, num_processes: int) -> None:
    alone, shared = outcomes[name, 1, 0], outcomes[name, num_processes, 0]
    assert max(float(gradient.abs().max()) for gradient in alone["gradients"].values()) > 0.05
    assert largest_difference(alone["gradients"], shared["gradients"]) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
def test_nothing_but_rounding_differs(outcomes: Any, num_processes: int) -> None:
    """In float64 even where rounding would turn a maximum over; the loss is computed in float32."""
    alone, shared = outcomes["double", 1, 0], outcomes["double", num_processes, 0]
    assert largest_difference(alone["gradients"], shared["gradients"]) < 1e-7


@pytest.mark.slow
@pytest.mark.parametrize("num_processes", [2, 3])
@pytest.mark.parametrize("name", FLOAT32)
def test_two_epochs_end_with_the_same_weights_statistics_and_figures(
    outcomes: Any, name: str, num_processes: int
) -> None:
    """Among them: a last batch of 2 images for 3 processes, and one of 50 where batches have 49."""
    alone, shared = outcomes[name, 1, 0], outcomes[name, num_processes, 0]
    # Names too: running statistics are among them, and no `module.` stands before them.
    assert largest_difference(alone["weights"], shared["weights"]) < 3e-6
    for first, second in zip(alone["records"], shared["records"], strict=True):
        for split in ("train", "validation", "train_fixed"):
            if first[split] is None:
                assert second[split] is None
                continue
            assert second[split]["count"] == first[split]["count"]
            assert second[split]["accuracy"] == first[split]["accuracy"]
            assert second[split]["loss"] == pytest.approx(first[split]["loss"], abs=2e-6)


@pytest.mark.slow
def test_bfloat16_agrees_as_far_as_it_is_exact(outcomes: Any) -> None:
    alone, shared = outcomes["bfloat16", 1, 0], outcomes["bfloat16", 2, 0]
    largest = max(float(gradient.abs().max()) for gradient in alone["gradients"].values())
    # Of 8 bits of a significand, a few are lost on the way through three layers.
    assert largest_difference(alone["gradients"], shared["gradients"]) < largest / 2**5


@pytest.mark.slow
@pytest.mark.parametrize("name", list(share_driver.SCENARIOS))
def test_all_processes_end_with_the_same_bits(outcomes: Any, name: str) -> None:
    first = outcomes[name, 3, 0]
    for rank in (1, 2):
        other = outcomes[name, 3, rank]
        assert largest_difference(first["weights"], other["weights"]) == 0
        assert other["records"] == first["records"]


@settings(deadline=None)
@given(num_images=st.integers(0, 300), num_processes=st.integers(1, 20))
def test_shares_are_consecutive_and_even(num_images: int, num_processes: int) -> None:
    parts = [Share(rank, num_processes).of(num_images) for rank in range(num_processes)]
    assert [number for part in parts for number in range(num_images)[part]] == list(range(num_images))
    sizes = [part.stop - part.start for part in parts]
    assert max(sizes) - min(sizes) <= 1


# Batches of predictions have four images or more.
@settings(deadline=None)
@given(num_rows=st.integers(1, 60), batch_size=st.integers(4, 20), num_processes=st.integers(1, 6))
def test_predicted_batches_are_those_of_one_process(num_rows: int, batch_size: int, num_processes: int) -> None:
    whole = stream(np.arange(num_rows), batch_size)
    parts = [own_batches(whole, Share(rank, num_processes)) for rank in range(num_processes)]
    sizes = [len(batch.labels) for part in parts if len(part) for batch in part.in_order()]
    assert sizes == [len(batch.labels) for batch in whole.in_order()]
    assert np.concatenate([part.rows for part in parts]).tolist() == list(range(num_rows))


@pytest.mark.parametrize("kind", [nn.Dropout, BitDropout])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_dropout_draws_what_one_process_draws_for_the_whole_batch(
    layout: torch.memory_format, kind: type[nn.Dropout]
) -> None:
    values = torch.rand(7, 3, 5, 4).to(memory_format=layout)
    torch.manual_seed(0)
    expected = kind(0.4)(values)
    following = torch.rand(1)
    for share in (Share(rank, 3) for rank in range(3)):
        place = CurrentPlace()
        place.now = Place(share.of(7), 7)
        torch.manual_seed(0)
        assert torch.equal(SharedDropout(kind(0.4), place)(values[share.of(7)]), expected[share.of(7)])
        assert torch.equal(torch.rand(1), following)


@pytest.mark.parametrize("kind", [nn.Dropout, BitDropout])
@pytest.mark.parametrize("values", [torch.rand(8, 5, 16)[:, 0], torch.rand(8, 16, 6, 6)[:, :, 1:5, 1:5]])
def test_dropout_of_values_that_lie_apart_draws_what_one_process_draws(values: Tensor, kind: type[nn.Dropout]) -> None:
    torch.manual_seed(0)
    expected = kind(0.4)(values)
    for share in (Share(rank, 5) for rank in range(5)):
        place = CurrentPlace()
        place.now = Place(share.of(8), 8)
        torch.manual_seed(0)
        assert torch.equal(SharedDropout(kind(0.4), place)(values[share.of(8)]), expected[share.of(8)])


@pytest.mark.parametrize("kind", [nn.Dropout, BitDropout])
def test_dropout_of_no_images_draws_as_much(kind: type[nn.Dropout]) -> None:
    values, place = torch.rand(7, 3), CurrentPlace()
    place.now = Place(slice(0, 0), 7)
    following = []
    for dropout, seen in ((kind(0.4), values), (SharedDropout(kind(0.4), place), values[:0])):
        torch.manual_seed(0)
        assert dropout(seen).shape == seen.shape
        following.append(torch.rand(1))
    assert torch.equal(*following)


@pytest.mark.parametrize("kind", ["row", "batch"])
def test_stochastic_depth_draws_what_torchvision_draws_for_the_whole_batch(kind: str) -> None:
    values = torch.rand(7, 3, 5, 4)
    torch.manual_seed(0)
    expected = StochasticDepth(0.4, kind)(values)
    following = torch.rand(1)
    for share in (Share(rank, 3) for rank in range(3)):
        place = CurrentPlace()
        place.now = Place(share.of(7), 7)
        network = nn.Sequential(StochasticDepth(0.4, kind))
        share_layers(network, place)
        torch.manual_seed(0)
        assert torch.equal(network(values[share.of(7)]), expected[share.of(7)])
        assert torch.equal(torch.rand(1), following)


def test_frozen_layers_stay_as_they_are() -> None:
    """Also those that lie beside trained ones in the network itself, as in torchvision's ResNet."""
    layers = OrderedDict(conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4), drop=nn.Dropout(0.5), pool=nn.Flatten())
    network = nn.Sequential(OrderedDict(**layers, head=nn.Linear(4 * 36, 3), late=nn.Dropout(0.5)))
    freeze(network, "drop")
    share_layers(network, CurrentPlace())
    assert network.norm is layers["norm"]
    assert network.drop is layers["drop"]
    assert isinstance(network.late, SharedDropout)
    network.train()
    assert not network.norm.training


def test_layers_that_cannot_share_are_refused() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Dropout2d(0.5), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ConfigError, match=r"cannot share the draws of 1 \(Dropout2d\)\. Train on one process"):
        check_shareable(network)
    freeze(network, "1")
    check_shareable(network)


class OwnNorm(nn.BatchNorm2d):
    """Another one than torch's, for all that is known of it."""


class OwnDropout(nn.Dropout):
    """As above."""


class OwnDepth(StochasticDepth):
    """As above."""


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        (OwnNorm(4), "the mean and variance of 1 (OwnNorm, derived from BatchNorm2d)"),
        (nn.BatchNorm3d(4), "the mean and variance of 1 (BatchNorm3d)"),
        (
            nn.BatchNorm2d(4, affine=False),
            "the mean and variance of 1 (BatchNorm2d without a scale or without running statistics)",
        ),
        (
            nn.BatchNorm1d(4, track_running_stats=False),
            "the mean and variance of 1 (BatchNorm1d without a scale or without running statistics)",
        ),
        (OwnDropout(0.5), "the draws of 1 (OwnDropout, derived from Dropout)"),
        (nn.AlphaDropout(0.5), "the draws of 1 (AlphaDropout)"),
        (nn.RReLU(), "the draws of 1 (RReLU)"),
        (OwnDepth(0.5, "row"), "the draws of 1 (OwnDepth)"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "the draws of 1 (MultiheadAttention)"),
    ],
)
def test_what_is_derived_from_a_shared_layer_is_refused_and_not_silently_unshared(layer: nn.Module, says: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 1), layer, nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(ConfigError) as caught:
        check_shareable(network)
    assert caught.value.message == f"Several processes cannot share {says}. Train on one process."
    share_layers(network, CurrentPlace())
    assert network[1] is layer
    freeze(network, "1")
    check_shareable(network)


def test_each_layer_that_is_let_through_is_shared() -> None:
    check_shareable(nn.Sequential(nn.MultiheadAttention(4, 2)))
    layers = (nn.BatchNorm1d(4), nn.BatchNorm2d(4), nn.Dropout(0.5), BitDropout(0.5), StochasticDepth(0.5, "row"))
    network = nn.Sequential(nn.Flatten(), *layers)
    check_shareable(network)
    share_layers(network, CurrentPlace())
    assert all(type(layer).__name__.startswith("Shared") for layer in network[1:])
