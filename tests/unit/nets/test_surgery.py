"""Fully connected layers as convolutions: the same logits where the network was planned, a map where it was not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conviction.core.errors import ConfigError
from conviction.nets import PRESETS, build_network
from conviction.nets.block import BlocksConfig
from conviction.nets.inspection import inspect_network
from conviction.nets.surgery import to_dense_map


def lived_in(network: nn.Module) -> nn.Module:
    """Running statistics that are not those of the beginning."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("name", PRESETS)
def test_presets_give_the_same_logits_where_they_were_planned(name: str) -> None:
    preset = PRESETS[name]
    network = lived_in(build_network(preset.config, preset.input_shape, preset.num_classes))
    dense = to_dense_map(network, preset.input_shape)
    images = torch.rand((3, *preset.input_shape))
    with torch.no_grad():
        logits = network(images)
        assert torch.allclose(dense(images)[:, :, 0, 0], logits, atol=1e-5)
    assert sum(p.numel() for p in dense.parameters()) == sum(p.numel() for p in network.parameters())


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["none", "average", "max"]),
    st.lists(
        st.fixed_dictionaries(
            {"units": st.integers(1, 9), "normalization": st.sampled_from(["none", "batch", "layer"])}
        ),
        max_size=3,
    ),
    st.integers(1, 3),
    st.integers(8, 14),
    st.integers(8, 14),
)
def test_random_networks_too(
    pooling: str, dense: list[dict[str, Any]], num_blocks: int, height: int, width: int
) -> None:
    described = {
        "blocks": [{"filters": 4, "pooling": {}, "normalization": "batch"}] * num_blocks,
        "global_pooling": pooling,
        "dense": dense,
    }
    network = lived_in(build_network(BlocksConfig.model_validate(described), (2, height, width), 5))
    images = torch.rand((2, 2, height, width))
    with torch.no_grad():
        assert torch.allclose(to_dense_map(network, (2, height, width))(images)[:, :, 0, 0], network(images), atol=1e-5)


def test_a_larger_picture_gives_a_map_of_what_each_window_gives() -> None:
    """Without padding, each position is exactly what the network says of the window cut out there."""
    described = {
        "blocks": [{"filters": 4, "kernel_px": 3, "padding_px": 0, "pooling": {}}] * 2,
        "dense": [{"units": 6}],
    }
    shape = (3, 22, 22)
    network = lived_in(build_network(BlocksConfig.model_validate(described), shape, 5))
    dense = to_dense_map(network, shape)
    images = torch.rand((1, 3, 34, 30))
    with torch.no_grad():
        maps = dense(images)
        assert maps.shape == (1, 5, 4, 3)
        for row in range(4):
            for column in range(3):
                window = images[:, :, 4 * row : 4 * row + 22, 4 * column : 4 * column + 22]
                assert torch.allclose(maps[:, :, row, column], network(window), atol=1e-5)
    found = inspect_network(dense, (3, 34, 30)).layers[-1].receptive_field
    assert (found.size_px, found.stride_px, found.start_px) == ((22, 22), (4, 4), (11, 11))


def test_the_network_stays_as_it_is() -> None:
    network = build_network(PRESETS["digits"].config, (1, 8, 8), 10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        to_dense_map(network, (1, 8, 8)).head[0].weight.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training


def test_other_networks_are_refused() -> None:
    with pytest.raises(ConfigError, match="Only networks of blocks"):
        to_dense_map(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), (3, 2, 2))
