"""ReLU behind max-pooling is ReLU before it: the same bits, forward and back."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conviction.nets import PRESETS, build_network
from conviction.nets.freezing import freeze
from conviction.nets.pooled_relu import PooledReLU, with_pooled_relu


def outcome(network: nn.Module, images: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """What comes out, and the gradient of a weighted sum of it with regard to what went in."""
    images = images.clone().requires_grad_()
    # Not to be overwritten where it is a leaf.
    found = network(images * 1)
    return found.detach(), torch.autograd.grad((found * weight[: found.numel()].view_as(found)).sum(), images)[0]


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    side=st.integers(3, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 3),
    padded=st.booleans(),
    ceil_mode=st.booleans(),
    levels=st.sampled_from([1, 2, 5, 10**6]),
    inplace=st.booleans(),
)
def test_the_same_numbers_and_gradients(
    seed: int, side: int, kernel: int, stride: int, padded: bool, ceil_mode: bool, levels: int, inplace: bool
) -> None:
    """Few levels make windows with equal numbers, with zeros, and without a positive number."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(-levels, levels + 1, (2, 3, side, side), generator=generator).float()
    weight = torch.randn(2 * 3 * 11 * 11, generator=generator)
    pooling = nn.MaxPool2d(kernel, stride, padding=kernel // 2 if padded else 0, ceil_mode=ceil_mode)
    plain = nn.Sequential(nn.ReLU(inplace), pooling)
    moved = with_pooled_relu(copy.deepcopy(plain))
    assert isinstance(moved[1], PooledReLU)
    for layout in (torch.contiguous_format, torch.channels_last):
        found, expected = (outcome(one, images.contiguous(memory_format=layout), weight) for one in (moved, plain))
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[1], expected[1])


def test_what_is_no_number_stays_so() -> None:
    images = torch.tensor([[[[float("nan"), 1.0], [-1.0, -float("inf")]]]])
    assert with_pooled_relu(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))(images).isnan().all()
    assert with_pooled_relu(nn.Sequential(nn.ReLU(), nn.MaxPool2d(1)))(images[..., 1:, :]).tolist() == [[[[0.0, 0.0]]]]


class OwnReLU(nn.ReLU):
    """Another one than torch's, for all that is known of it."""


class Backwards(nn.Sequential):
    """Runs its layers from the last to the first."""

    def forward(self, input: Tensor) -> Tensor:
        for layer in reversed(list(self)):
            input = layer(input)
        return input


@pytest.mark.parametrize(
    "network",
    [
        nn.Sequential(nn.GELU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.ReLU(), nn.AvgPool2d(2)),
        nn.Sequential(nn.MaxPool2d(2), nn.ReLU()),
        nn.Sequential(nn.ReLU(), nn.Dropout(0.5), nn.MaxPool2d(2)),
        nn.Sequential(nn.ReLU(), nn.MaxPool2d(2, return_indices=True)),
        nn.Sequential(OwnReLU(), nn.MaxPool2d(2)),
        Backwards(nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Sequential(nn.ReLU()), nn.MaxPool2d(2)),
    ],
)
def test_others_stay_where_they_are(network: nn.Module) -> None:
    before = list(network.modules())
    assert list(with_pooled_relu(network).modules()) == before


def test_frozen_and_watched_ones_stay_where_they_are() -> None:
    frozen = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(1, 1, 1))
    freeze(frozen, "2")
    watched = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    watched[0].register_forward_hook(lambda layer, given, found: None)
    for network in (frozen, watched):
        before = list(network.modules())
        assert list(with_pooled_relu(network).modules()) == before


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_network_has_the_same_weights_logits_and_gradients(name: str) -> None:
    preset = PRESETS[name]
    torch.manual_seed(0)
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    moved = with_pooled_relu(copy.deepcopy(network))
    assert [key for key, _ in moved.named_modules()] == [key for key, _ in network.named_modules()]
    images = torch.randn(2, *preset.input_shape)
    for one in (network, moved):
        torch.manual_seed(1)
        one(images).square().sum().backward()
    ours, plain = dict(moved.named_parameters()), dict(network.named_parameters())
    assert list(ours) == list(plain)
    for key, weight in plain.items():
        if weight.requires_grad:
            assert weight.grad is not None
            assert torch.equal(weight.grad, ours[key].grad)


def test_lab_c_has_all_of_its_relus_moved() -> None:
    preset = PRESETS["alexnet-cifar10"]
    network = with_pooled_relu(build_network(preset.config, preset.input_shape, preset.num_classes))
    assert sum(isinstance(layer, PooledReLU) for layer in network.modules()) == 3
