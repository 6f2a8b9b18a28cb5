"""Networks changed after they were built: fully connected layers turned into convolutions.

A fully connected layer on a map of C×H×W numbers is a convolution whose kernel covers the whole map. Written so, the
network no longer asks for one size of picture: on a larger one it slides, and gives a map of class scores.

Source: J. Long, E. Shelhamer, T. Darrell, Fully convolutional networks for semantic segmentation, CVPR 2015.
"""

from __future__ import annotations

import bisect
import copy
from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from conviction.core.errors import ConfigError
from conviction.nets.block import BlockNetwork
from conviction.nets.inspection import as_meta
from conviction.nets.sliding import make_sliding
from conviction.nets.trace import dtype_of

# Of the largest logit, in float32; what two ways of adding the same products up may differ by.
_TOLERANCE = 1e-5


def to_dense_map(network: nn.Module, input_shape: tuple[int, int, int]) -> nn.Module:
    """The network with its fully connected layers as convolutions: logits (B, K, h, w) instead of (B, K).

    `input_shape` (C, H, W) are the pictures that the network was planned for; on those it gives the same logits, at
    h = w = 1, which is confirmed each time. On larger ones each position speaks of a window of that size. A pooling to
    a fixed size, a global one too, becomes a pooling over the window that it covered. The weights are copied, the
    network stays as it is; the result is in evaluation mode.

    Raises: ConfigError that names the operation where the network cannot slide: because every position depends on the
    whole picture (squeeze-and-excitation, attention), or because torch.fx cannot follow it.
    """
    sliding = _followed(network)
    make_sliding(sliding, _planned_shapes(sliding, input_shape))
    sliding.graph.eliminate_dead_code()
    sliding.delete_all_unused_submodules()
    sliding.recompile()
    _confirm(network, sliding, input_shape)
    return sliding.eval()


def map_stride(sliding: nn.Module, input_shape: tuple[int, int, int]) -> tuple[int, int]:
    """How many pixels down and to the right lie between two neighbouring positions of a dense map.

    So many pixels must be added to the planned picture of `input_shape` (C, H, W) until there is a second position.
    """
    on_meta = as_meta(sliding)
    channels, *sides = input_shape

    def has_moved(axis: int, more: int) -> bool:
        size = [sides[0], sides[1]]
        size[axis] += more
        with torch.no_grad():
            maps = on_meta(torch.empty((1, channels, *size), device="meta", dtype=dtype_of(on_meta)))
        return bool(maps.shape[2 + axis] > 1)

    # A network whose map grows has grown when the picture has twice the size, see `_confirm`.
    down, right = (
        bisect.bisect_left(range(side + 1), True, key=partial(has_moved, axis)) for axis, side in enumerate(sides)
    )
    return down, right


def _followed(network: nn.Module) -> fx.GraphModule:
    """A copy of the network as a graph of its operations."""
    copied = copy.deepcopy(network).eval()
    if isinstance(copied, BlockNetwork):
        # The same layers in a row, as its `forward` calls them.
        parts = OrderedDict(copied.named_children())
        copied = nn.Sequential(
            OrderedDict(
                blocks=parts["blocks"], flatten=nn.Flatten(), dense=parts["dense"], classifier=parts["classifier"]
            )
        )
    try:
        return fx.symbolic_trace(copied)
    except Exception as error:  # the user's own code may raise anything
        raise ConfigError(
            f"{type(network).__name__} cannot be turned into a dense map, as torch.fx cannot follow what it computes: "
            f"{error}".rstrip(".")
            + "."
        ) from error


class _Shapes(fx.Interpreter):
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


def _planned_shapes(sliding: fx.GraphModule, input_shape: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """The sizes of all values on the planned pictures, by the names of their operations."""
    shapes = _Shapes(as_meta(sliding))  # type: ignore[arg-type]
    try:
        with torch.no_grad():
            shapes.run(torch.empty((2, *input_shape), device="meta", dtype=dtype_of(sliding)))
    except Exception as error:  # the user's own code may raise anything
        shown = "×".join(map(str, input_shape))
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"The network does not take pictures of {shown}: {reason}.") from error
    return shapes.of


def _confirm(network: nn.Module, sliding: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Raises: ConfigError where the two differ on the planned pictures, or the new one takes no larger ones."""
    weight = next(network.parameters(), torch.empty(0))
    if not weight.is_meta:
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((2, *input_shape), generator=generator).to(weight.device, dtype_of(network))
        former = [(module, module.training) for module in network.modules()]
        try:
            with torch.inference_mode():
                logits, maps = network.eval()(images), sliding(images)
        finally:
            for module, training in former:
                module.training = training
        scale = max(1.0, float(logits.abs().max()))
        if maps.shape != (*logits.shape, 1, 1) or float((maps[..., 0, 0] - logits).abs().max()) > _TOLERANCE * scale:
            raise ConfigError(
                f"{type(network).__name__} gives other logits as a dense map: it computes in a way that is not known."
            )
    channels, height, width = input_shape
    try:
        with torch.no_grad():
            pictures = torch.empty((1, channels, 2 * height, 2 * width), device="meta", dtype=dtype_of(network))
            larger = as_meta(sliding)(pictures)
    except Exception as error:  # the user's own code may raise anything
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(
            f"{type(network).__name__} takes no larger pictures as a dense map either: {reason}."
        ) from error
    if 1 in larger.shape[2:]:
        raise ConfigError(
            f"{type(network).__name__} does not slide: it gives one answer for a picture of any size, as something in "
            "it follows the whole picture."
        )
