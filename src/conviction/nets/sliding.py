"""A network's graph rewritten so that its classifier slides: what is flattened stays a map, and each layer fits it."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from conviction.core.errors import ConfigError

Layout = tuple[int, int, int]
_FLATTEN = ("flatten", "view", "reshape", "squeeze")
_ARITHMETIC = ("add", "mul", "sub", "truediv", "iadd", "imul", "add_", "mul_")
# What goes number by number, and so is the same on vectors and on maps.
_NUMBERWISE = (
    *("relu", "relu_", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "sigmoid", "tanh", "softplus"),
    *("hardswish", "hardsigmoid", "hardtanh", "dropout", "contiguous", "clone", "float", "detach"),
)
_NUMBERWISE_LAYERS = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh),
    *(nn.Softplus, nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LogSigmoid, nn.Dropout, nn.Identity),
)


_ADAPTIVE = ("adaptive_avg_pool2d", "adaptive_max_pool2d")
_DISPATCHED = {"adaptive_max_pool2d": functional.adaptive_max_pool2d}
_SOFTMAX = {"softmax": nn.Softmax, "log_softmax": nn.LogSoftmax}


class ChannelLayerNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each position."""

    def forward(self, maps: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """As the layer normalisation of a fully connected layer, at every position."""
        return super().forward(maps.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def make_sliding(network: fx.GraphModule, planned: dict[str, tuple[int, ...]]) -> None:
    """Rewrite a graph in place; `planned` has the sizes of its values on the planned pictures, by operation.

    Raises: ConfigError that names the first operation that has no form on maps.
    """
    rewriting = _Rewriting(network, planned)
    for node in list(network.graph.nodes):
        rewriting.visit(node)


class _Rewriting:
    """The walk over a graph. `_flat` has the values that were vectors, and the map (C, h, w) each was laid from."""

    def __init__(self, network: fx.GraphModule, planned: dict[str, tuple[int, ...]]) -> None:
        self._network = network
        self._planned = planned
        self._flat: dict[fx.Node, Layout] = {}
        # The values that depend on the pictures.
        self._of_picture: set[fx.Node] = set()

    def visit(self, node: fx.Node) -> None:
        """Leave an operation as it is, replace it, or refuse it."""
        depends = [source for source in node.all_input_nodes if source in self._of_picture]
        if node.op == "output":
            self._finish(node)
        elif depends or node.op == "placeholder":
            self._of_picture.add(node)
            sources = [source for source in depends if source.name in self._planned]
            if node.name not in self._planned or not sources:
                # Several tensors, their sizes, or one part of several.
                return
            if any(source in self._flat for source in sources):
                self._on_vector(node, sources)
            else:
                self._on_map(node, sources)

    def _on_map(self, node: fx.Node, sources: list[fx.Node]) -> None:
        layer, name = self._layer(node), _name(node)
        shape, result = self._planned[sources[0].name], self._planned[node.name]
        if isinstance(layer, nn.Linear) and len(shape) == 2:
            raise self._refusal(
                node, f"what reaches it is no map any more, but {shape[1]} numbers for the whole picture"
            )
        if len(shape) != 4:
            return
        channels, size = shape[1], shape[2:]
        is_vector = len(result) == 2 and result[0] == shape[0]
        if is_vector and result[1] == math.prod(shape[1:]) and (isinstance(layer, nn.Flatten) or name in _FLATTEN):
            self._replace(node, nn.Identity(), sources[0], (channels, *size))
        elif name in ("mean", "amax") and _goes_over_sides(node):
            pooling = _pooling(name == "amax", size, (1, 1))
            self._replace(node, pooling, sources[0], (channels, 1, 1) if is_vector else None)
        elif isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) or name in _ADAPTIVE:
            self._fix_pooling(node, sources[0], size, result[2:])
        elif name in _ARITHMETIC and len({self._planned[source.name][2:] for source in sources}) > 1:
            raise self._refusal(
                node, "it joins a map with numbers for the whole picture, which no window has by itself"
            )

    def _fix_pooling(self, node: fx.Node, source: fx.Node, size: tuple[int, ...], output: tuple[int, ...]) -> None:
        """A pooling to a fixed size takes the windows that it takes on the planned size."""
        if any(side % wanted for side, wanted in zip(size, output, strict=True)):
            raise self._refusal(
                node, f"it pools {size[0]}×{size[1]} to {output[0]}×{output[1]} in windows of several sizes"
            )
        window = (size[0] // output[0], size[1] // output[1])
        # Where one position is left, the window may move pixel by pixel; else its neighbours lie side by side.
        stride = tuple(1 if wanted == 1 else side for wanted, side in zip(output, window, strict=True))
        is_max = isinstance(self._layer(node), nn.AdaptiveMaxPool2d) or "max" in _name(node)
        self._replace(node, _pooling(is_max, window, stride), source)

    def _on_vector(self, node: fx.Node, sources: list[fx.Node]) -> None:
        """Give an operation on vectors the form that it has on the maps that come there now."""
        layer, name = self._layer(node), _name(node)
        layouts = [self._flat.get(source) for source in sources]
        layout = layouts[0]
        is_joined = name == "cat" and all(one and one[1:] == (1, 1) for one in layouts)
        others = [source for source in node.all_input_nodes if source not in sources and source.name in self._planned]
        if layout is None or others or (len(set(layouts)) > 1 and not is_joined):
            raise self._refusal(node, "it joins values of different kinds")
        changed = _on_maps(layer, layout) if layer is not None else None
        if isinstance(layer, nn.Linear):
            self._replace(node, _as_convolution(layer, layout), sources[0], (layer.out_features, 1, 1))
        elif changed is not None:
            self._replace(node, changed, sources[0], layout)
        elif name in _FLATTEN:
            self._replace(node, nn.Identity(), sources[0], layout)
        elif name in _SOFTMAX and layout[1:] == (1, 1):
            self._replace(node, _SOFTMAX[name](dim=1), sources[0], layout)
        elif isinstance(layer, _NUMBERWISE_LAYERS) or name in _NUMBERWISE or name in _ARITHMETIC:
            self._flat[node] = layout
        elif is_joined:
            self._flat[node] = (sum(self._flat[source][0] for source in sources), 1, 1)
        else:
            raise self._refusal(node, "it has no form for maps")

    def _finish(self, node: fx.Node) -> None:
        if not isinstance(node.args[0], fx.Node):
            raise ConfigError("Only networks that give one tensor of logits can be turned into a dense map.")
        layout = self._flat.get(node.args[0])
        if layout is None or layout[1:] != (1, 1):
            shape = "×".join(map(str, self._planned.get(node.args[0].name, ())[1:]))
            raise ConfigError(
                f"The network gives {shape or 'no'} numbers, none of them the logits of a window: it cannot be turned "
                "into a dense map."
            )

    def _layer(self, node: fx.Node) -> nn.Module | None:
        return self._network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def _replace(self, node: fx.Node, layer: nn.Module, source: fx.Node, layout: Layout | None = None) -> None:
        """Let a layer take the place of an operation; `layout` where its result was a vector."""
        path = str(node.target) if node.op == "call_module" else node.name
        # A layer that is called twice is replaced at each place by itself.
        calls = [other for other in self._network.graph.nodes if other.op == "call_module" and other.target == path]
        if calls != [node]:
            path = node.name
            while hasattr(self._network, path):
                path += "_"
        self._network.set_submodule(path, layer.eval())
        with self._network.graph.inserting_before(node):
            new = self._network.graph.call_module(path, (source,))
        node.replace_all_uses_with(new)
        self._network.graph.erase_node(node)
        self._planned[new.name] = self._planned[node.name]
        self._of_picture.add(new)
        if layout is not None:
            self._flat[new] = layout

    def _refusal(self, node: fx.Node, reason: str) -> ConfigError:
        place = str(node.target)
        if node.op != "call_module":
            inside = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
            place = f"{inside[-1]} ({_name(node)})" if inside and inside[-1] else f"its operation {_name(node)}"
        return ConfigError(f"The network cannot be turned into a dense map because of {place}: {reason}.")


def _name(node: fx.Node) -> str:
    """The name of a function or method; of a layer none."""
    if node.op == "call_function":
        # Some of torch's functions choose between two others, and bear another name.
        known = next((name for name, function in _DISPATCHED.items() if function is node.target), None)
        return known or str(getattr(node.target, "__name__", node.target))
    return str(node.target) if node.op == "call_method" else ""


def _goes_over_sides(node: fx.Node) -> bool:
    over = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return isinstance(over, list | tuple) and {int(index) % 4 for index in over} == {2, 3}


def _pooling(is_max: bool, window: tuple[int, ...], stride: tuple[int, ...]) -> nn.Module:
    if window == (1, 1):
        return nn.Identity()
    down, right = window
    kind = nn.MaxPool2d if is_max else nn.AvgPool2d
    return kind((down, right), (stride[0], stride[1]))


def _as_convolution(linear: nn.Linear, layout: Layout) -> nn.Conv2d:
    channels, height, width = layout
    assert linear.in_features == channels * height * width
    convolution = nn.Conv2d(
        channels,
        linear.out_features,
        (height, width),
        bias=linear.bias is not None,
        device=linear.weight.device,
        dtype=linear.weight.dtype,
    )
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.reshape(convolution.weight.shape))
        if convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution


def _on_maps(layer: nn.Module, layout: Layout) -> nn.Module | None:
    """A layer without weights of its own for each number, for maps; None where it has no other form there."""
    if isinstance(layer, nn.Flatten):
        return nn.Identity()
    if layout[1:] != (1, 1):
        return None
    if isinstance(layer, nn.Softmax | nn.LogSoftmax):
        return type(layer)(dim=1)
    new: nn.Module
    if isinstance(layer, nn.BatchNorm1d):
        new = nn.BatchNorm2d(
            layer.num_features,
            layer.eps,
            affine=layer.affine,
            track_running_stats=layer.track_running_stats,
        )
    elif isinstance(layer, nn.LayerNorm):
        new = ChannelLayerNorm(layer.normalized_shape, layer.eps, layer.elementwise_affine, layer.bias is not None)
    else:
        return None
    kept = next(layer.parameters(), next(layer.buffers(), torch.empty(0)))
    new.to(kept.device, kept.dtype).load_state_dict(layer.state_dict())
    return new
