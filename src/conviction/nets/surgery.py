"""Networks changed after they were built: fully connected layers turned into convolutions.

A fully connected layer on a map of C×H×W numbers is a convolution whose kernel covers the whole map. Written so, the
network no longer asks for one size of picture: on a larger one it slides, and gives a map of class scores.

Source: J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conviction.core.errors import ConfigError
from conviction.nets.block import BlockNetwork
from conviction.nets.inspection import as_meta
from conviction.nets.trace import trace


class DenseMapNetwork(nn.Module):
    """Logits for every place of a picture that is at least as large as the network was planned for."""

    def __init__(self, blocks: nn.Module, head: nn.Sequential) -> None:
        super().__init__()
        self.blocks = blocks
        self.head = head

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K h w"]:
        """One position for each place of the planned window."""
        logits: Tensor = self.head(self.blocks(images))
        return logits


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """As the layer normalisation of a fully connected layer, at every position."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def to_dense_map(network: nn.Module, input_shape: tuple[int, int, int]) -> DenseMapNetwork:
    """The network with its fully connected layers as convolutions; the same logits on pictures of `input_shape`.

    `input_shape` (C, H, W) are the pictures that the network was planned for. A global pooling becomes a pooling over
    the window that it covered there. The weights are copied, and the network stays as it is.

    Raises: ConfigError where the network is not one of ours.
    """
    if not isinstance(network, BlockNetwork):
        raise ConfigError(
            "Only networks of blocks, dense layers and a classifier can be turned into a dense map, but got "
            f"{type(network).__name__}."
        )
    shape = _map_before_dense(network, input_shape)
    blocks = _without_global_pooling(copy.deepcopy(network.blocks), shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    linears = 0
    window = (1, 1) if _global_pooling(network.blocks) is not None else shape[1:]
    channels = shape[0]
    for name, module in [*network.dense.named_modules(), ("classifier", network.classifier)]:
        if isinstance(module, nn.Sequential):
            continue
        key = name.replace(".", "_")
        if isinstance(module, nn.Linear):
            layers[key] = _as_convolution(module, channels if linears == 0 else module.in_features, window)
            window, linears = (1, 1), linears + 1
        else:
            layers[key] = _on_maps(module)
    return DenseMapNetwork(blocks, nn.Sequential(layers)).train(network.training)


def _map_before_dense(network: BlockNetwork, input_shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """The shape (C, H, W) of the map that is flattened, before a global pooling if there is one."""
    maps = [step.output for step in trace(as_meta(network), input_shape).steps if _is_of_blocks(step.path)]
    if _global_pooling(network.blocks) is not None:
        maps = maps[:-1]
    shape = maps[-1][1:] if maps and maps[-1] is not None else input_shape
    return shape[0], shape[1], shape[2]


def _is_of_blocks(path: str) -> bool:
    return path.startswith("blocks.")


def _global_pooling(blocks: nn.Module) -> nn.Module | None:
    return dict(blocks.named_children()).get("global_pooling")


def _without_global_pooling(blocks: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    pooling = _global_pooling(blocks)
    if isinstance(pooling, nn.AdaptiveAvgPool2d):
        blocks.global_pooling = nn.AvgPool2d(shape[1:], stride=1)
    elif isinstance(pooling, nn.AdaptiveMaxPool2d):
        blocks.global_pooling = nn.MaxPool2d(shape[1:], stride=1)
    return blocks


def _as_convolution(linear: nn.Linear, channels: int, window: tuple[int, ...]) -> nn.Conv2d:
    height, width = window
    assert linear.in_features == channels * height * width
    # A bias always, as the builder's linear layers have one.
    convolution = nn.Conv2d(channels, linear.out_features, (height, width), bias=linear.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.reshape(convolution.weight.shape))
        if convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution


def _on_maps(module: nn.Module) -> nn.Module:
    """A layer behind a fully connected one, for the maps that come there now."""
    if isinstance(module, nn.BatchNorm1d):
        normalization: nn.Module = nn.BatchNorm2d(module.num_features, module.eps, module.momentum)
        normalization.load_state_dict(module.state_dict())
        return normalization
    if isinstance(module, nn.LayerNorm):
        layer = ChannelLayerNorm(module.normalized_shape, module.eps)
        layer.load_state_dict(module.state_dict())
        return layer
    return copy.deepcopy(module)
