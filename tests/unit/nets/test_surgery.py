"""Fully connected layers as convolutions: the same logits where the network was planned, a map where it was not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from conviction.core.errors import ConfigError
from conviction.nets import PRESETS, build_network
from conviction.nets.block import BlocksConfig
from conviction.nets.inspection import inspect_network
from conviction.nets.named import on_meta
from conviction.nets.surgery import map_stride, to_dense_map


def lived_in(network: nn.Module) -> nn.Module:
    """Running statistics that are not those of the beginning."""
    generator = torch.Generator().manual_seed(0)
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return network.eval()


def calibrate(network: nn.Module, images: Tensor) -> None:
    """Statistics that let the signal through: with those of the beginning, untrained networks say the same of all."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
    network.eval()


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
    assert map_stride(dense, shape) == (4, 4)
    found = inspect_network(dense, (3, 34, 30)).layers[-1].receptive_field
    assert (found.size_px, found.stride_px, found.start_px) == ((22, 22), (4, 4), (11, 11))


def test_the_network_stays_as_it_is() -> None:
    network = build_network(PRESETS["digits"].config, (1, 8, 8), 10)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with torch.no_grad():
        for parameter in to_dense_map(network, (1, 8, 8)).parameters():
            parameter.zero_()
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.training


SMALL = ["resnet18", "densenet121", "squeezenet1_1", "googlenet", "mobilenet_v2", "shufflenet_v2_x0_5", "mnasnet0_5"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "side_px"), [*((name, 64) for name in SMALL), ("convnext_tiny", 64), ("alexnet", 224)]
)
def test_models_of_torchvision_slide_too(name: str, side_px: int) -> None:
    """In float64, where the logits of two pictures differ by far more than the rounding."""
    torch.manual_seed(0)
    settings = {"init_weights": False} if name == "googlenet" else {}
    network = models.get_model(name, weights=None, num_classes=7, **settings).double()
    images = torch.rand((2, 3, side_px, side_px), dtype=torch.float64)
    calibrate(network, images)
    dense = to_dense_map(network, (3, side_px, side_px))
    with torch.no_grad():
        logits, maps = network(images), dense(images)
        spread = (logits[0] - logits[1]).abs().max()
        assert maps.shape == (2, 7, 1, 1)
        assert spread > 1e-4
        assert (maps[..., 0, 0] - logits).abs().max() < 1e-5 * spread
        larger = dense(torch.rand((1, 3, side_px + 64, side_px + 96), dtype=torch.float64))
    assert larger.shape[2] > 1
    assert larger.shape[3] > larger.shape[2]


class Written(nn.Module):
    """A network whose forward pass is given, with layers to choose from."""

    def __init__(self, forward: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.linear, self.again, self.wide = nn.Linear(4 * 36, 5), nn.Linear(5, 5), nn.Linear(4, 5)
        self.normalization = nn.LayerNorm(5)
        self.scale = nn.Parameter(torch.rand(5))
        self._forward = forward

    def forward(self, images: Tensor) -> object:
        return self._forward(self, images)


@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: n.again(n.again(n.linear(n.convolution(x).flatten(1)))),
        lambda n, x: n.linear(n.convolution(x).view(x.size(0), -1)).softmax(dim=-1),
        lambda n, x: functional.log_softmax(n.linear(functional.relu(n.convolution(x)).reshape(-1, 144)), dim=1),
        lambda n, x: n.wide(n.convolution(x).mean([2, 3])),
        lambda n, x: n.wide(n.convolution(x).amax((-1, -2), keepdim=True).squeeze()),
        lambda n, x: n.wide(functional.adaptive_avg_pool2d(n.convolution(x), 1).flatten(1)),
        lambda n, x: n.wide(torch.flatten(functional.adaptive_max_pool2d(n.convolution(x), (1, 1)), 1)),
        lambda n, x: torch.cat([n.wide(n.convolution(x).mean((2, 3))), n.linear(n.convolution(x).flatten(1))], 1),
        lambda n, x: n.normalization(n.linear(n.convolution(x).flatten(1)) * 2 + 1),
        lambda n, x: n.linear(functional.adaptive_avg_pool2d(n.convolution(x).repeat(1, 4, 1, 1), 3).flatten(1)),
    ],
    ids=["twice", "view", "functions", "mean", "amax", "average", "maximum", "two-heads", "layer-norm", "to-3x3"],
)
def test_other_ways_to_write_a_classifier(forward: Callable[[Any, Tensor], Tensor]) -> None:
    """Without padding, each position is what the network says of its window."""
    network = Written(forward).double().eval()
    dense = to_dense_map(network, (3, 8, 8))
    images = torch.rand((2, 3, 12, 10), dtype=torch.float64)
    with torch.no_grad():
        maps = dense(images)
        down, right = map_stride(dense, (3, 8, 8))
        for row, column in ((0, 0), (maps.shape[2] - 1, 0), (maps.shape[2] - 1, maps.shape[3] - 1)):
            window = images[:, :, down * row : down * row + 8, right * column : right * column + 8]
            assert torch.allclose(maps[..., row, column], forward(network, window), atol=1e-12)
    assert maps.shape[2:] == (1 + 4 // down, 1 + 2 // right)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda n, x: n.convolution(x), "4×6×6 numbers, none of them the logits of a window"),
        (lambda n, x: [n.linear(n.convolution(x).flatten(1))], "one tensor of logits"),
        (
            lambda n, x: n.linear(n.convolution(x).flatten(1)) * n.scale,
            "its operation mul: it joins values of different",
        ),
        (lambda n, x: n.linear(n.convolution(x).flatten(1)).cumsum(1), "its operation cumsum: it has no form for maps"),
        (
            lambda n, x: n.wide((n.convolution(x) * n.convolution(x).mean((2, 3), keepdim=True)).mean((2, 3))),
            "its operation mul: it joins a map with numbers for the whole picture",
        ),
        (
            lambda n, x: n.wide(functional.adaptive_avg_pool2d(n.convolution(x), (4, 1)).sum((2, 3))),
            "pools 6×6 to 4×1 in windows of several sizes",
        ),
        (lambda n, x: n.wide(n.convolution(x).sum((2, 3))), "wide: what reaches it is no map any more, but 4 numbers"),
        (
            lambda n, x: n.wide(functional.avg_pool2d(n.convolution(x), n.convolution(x).shape[2:]).flatten(1)),
            "avg_pool2d: each of its positions depends on the whole picture",
        ),
        (lambda n, x: n.wide(n.convolution(x).mean((2, 3))) if x.sum() > 0 else None, "torch.fx cannot follow"),
        (lambda n, x: n.linear(n.convolution(x[:, :, 2:]).flatten(1)), "does not take pictures of 3×8×8"),
    ],
)
def test_what_cannot_slide_is_refused(forward: Callable[[Any, Tensor], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        to_dense_map(Written(forward), (3, 8, 8))


def unpadded(*between: nn.Module, features: int = 4 * 36) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), *between, nn.Flatten(), nn.Linear(features, 5))


class Applied(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, maps: Tensor) -> Tensor:
        return self.function(maps)


@pytest.mark.parametrize(
    "network",
    [
        unpadded(nn.InstanceNorm2d(4)),
        unpadded(nn.GroupNorm(1, 4)),
        unpadded(nn.BatchNorm2d(4, track_running_stats=False)),
        unpadded(nn.Softmax(3)),
        unpadded(Applied(lambda maps: maps.flip(3))),
        unpadded(Applied(lambda maps: maps.roll(1, 3))),
        unpadded(Applied(lambda maps: maps.transpose(2, 3))),
        unpadded(Applied(lambda maps: maps / (maps.shape[2] * 1.0))),
        unpadded(Applied(lambda maps: maps * torch.ones_like(maps[:, :1]).cumsum(3))),
        nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2), nn.Flatten(), nn.Linear(4 * 64, 5)),
    ],
    ids=["instance", "group", "batch", "softmax", "flip", "roll", "transposed", "size", "coordinates", "enlarged"],
)
def test_what_says_something_else_of_a_window_is_refused(network: nn.Module) -> None:
    with pytest.raises(ConfigError, match="cannot be turned into a dense map"):
        to_dense_map(network.eval(), (3, 8, 8))


@pytest.mark.parametrize(
    ("name", "stride", "size"),
    [("resnet18", 32, (4, 3)), ("squeezenet1_1", 16, (7, 5)), ("shufflenet_v2_x0_5", 32, (4, 3))],
)
def test_strides_of_networks_that_round_at_the_edge(name: str, stride: int, size: tuple[int, int]) -> None:
    dense = to_dense_map(on_meta(lambda: models.get_model(name, weights=None)), (3, 224, 224))
    assert map_stride(dense, (3, 224, 224)) == (stride, stride)
    assert dense(torch.empty((1, 3, 320, 288), device="meta")).shape[2:] == size


@pytest.mark.parametrize("side_px", [28, 30, 32])
def test_strides_where_poolings_leave_pixels_over(side_px: int) -> None:
    described = {"blocks": [{"filters": 4, "pooling": {}}] * 3}
    network = build_network(BlocksConfig.model_validate(described), (3, side_px, side_px), 5)
    assert map_stride(to_dense_map(network, (3, side_px, side_px)), (3, side_px, side_px)) == (8, 8)


def test_pixels_rearranged() -> None:
    network = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 8, 3), nn.Flatten(), nn.Linear(8 * 4, 5))
    assert map_stride(to_dense_map(network, (3, 8, 8)), (3, 8, 8)) == (2, 2)


@pytest.mark.parametrize(("name", "place"), [("efficientnet_b0", "features.1.0.block.1"), ("vit_b_32", "heads.head")])
def test_models_that_look_at_the_whole_picture_are_refused(name: str, place: str) -> None:
    network = on_meta(lambda: models.get_model(name, weights=None))
    with pytest.raises(ConfigError, match=place):
        to_dense_map(network, (3, 224, 224))
