"""A network as a graph of its operations."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import Tensor, fx, nn

from conviction.nets.block import BlockNetwork


def in_a_row(network: nn.Module) -> nn.Module:
    """A network of blocks as its layers in a row, which is what its `forward` calls; any other as it is."""
    if not isinstance(network, BlockNetwork):
        return network
    layers = OrderedDict[str, nn.Module](
        blocks=network.blocks, flatten=nn.Flatten(), dense=network.dense, classifier=network.classifier
    )
    if network.scale is not None:
        layers["scale"] = network.scale
    return nn.Sequential(layers)


class Shapes(fx.Interpreter):
    """Runs a graph and writes down what sizes its values have."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.of: dict[str, tuple[int, ...]] = {}

    def run_node(self, n: fx.Node) -> Any:
        """One operation."""
        result = super().run_node(n)
        if isinstance(result, Tensor):
            self.of[n.name] = tuple(result.shape)
        return result
