"""A training step's products, by hand and by torch's own counter."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from conviction.nets import PRESETS, build_network
from conviction.nets.named import on_meta
from conviction.nets.step_cost import training_step_macs


def test_a_linear_layer_by_hand() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    # Forward and the weights' gradient, 12·5 each for a picture; the pictures get none.
    assert training_step_macs(network, (3, 2, 2), 7) == 7 * 2 * 12 * 5


def test_the_second_layer_hands_a_gradient_on() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4))
    assert training_step_macs(network, (3, 2, 2), 7) == 7 * (2 * 12 * 5 + 3 * 5 * 4)


def test_convolutions_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3, stride=2, groups=2))
    first, second = 10 * 10 * 8 * (3 * 9), 4 * 4 * 6 * (4 * 9)
    assert training_step_macs(network, (3, 10, 10), 2) == 2 * (2 * first + 3 * second)


def test_a_transposed_convolution_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 5, 3, stride=2))
    first, second = 6 * 6 * 8 * 3, 6 * 6 * 8 * (5 * 9)
    assert training_step_macs(network, (3, 6, 6), 4) == 4 * (2 * first + 3 * second)


def test_frozen_weights_get_no_gradient_and_hand_none_on() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Flatten(), nn.Linear(8 * 4, 5))
    network[0].requires_grad_(False)
    # The convolution's forward pass; the linear layer's, and its weights' gradient.
    assert training_step_macs(network, (3, 2, 2), 3) == 3 * (2 * 2 * 8 * 3 + 2 * 32 * 5)
    network.requires_grad_(False)
    assert training_step_macs(network, (3, 2, 2), 3) == 3 * (2 * 2 * 8 * 3 + 32 * 5)


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "perceptron"])
def test_torch_counts_the_same(name: str) -> None:
    preset = PRESETS[name]
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    images = torch.zeros(2, *preset.input_shape)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    on_meta_one = on_meta(lambda: build_network(preset.config, preset.input_shape, preset.num_classes))
    assert 2 * training_step_macs(on_meta_one, preset.input_shape, 2) == counter.get_total_flops()


def test_the_network_stays_as_it_was() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Dropout(0.5))
    network[2].eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    training_step_macs(network, (3, 2, 2), 7)
    assert [module.training for module in network] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
