"""A network cut in two behind its frozen layers: what they make of a picture never changes.

The cut goes where a single tensor passes from the frozen layers to the rest. Layers without weights that come next, a
global pooling for example, go to the frozen side where that makes the tensor smaller.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from conviction.core.errors import ConfigError
from conviction.nets.bias_epochs import bias_epochs_of
from conviction.nets.dispatch import compiler_left_out
from conviction.nets.freezing import is_frozen
from conviction.nets.graph import Shapes, in_a_row
from conviction.nets.layer import ACTIVATIONS
from conviction.nets.misfit import first_line

# Of the largest logit: what the same operations in the same order may differ by.
_TOLERANCE = 1e-5
_NUM_TRIED = 2
# Layers without weights that compute the same in training and in evaluation.
_STEADY = (
    *(type(build()) for build in ACTIVATIONS.values()),
    *(nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.Identity, nn.Flatten),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
# Of torchvision, which is not imported for this.
_PERMUTATION = "Permute"
_RANDOM = ("dropout", "rand", "bernoulli", "multinomial", "normal_", "stochastic")


@dataclass(frozen=True)
class Cut:
    """The frozen layers and the rest, which share their weights with the network; `shape` of what passes between.

    What passes between is told by its shape for one picture; the rest takes it in any other shape too, as maps (B, F,
    H, W) of one position for example.
    """

    frozen: nn.Module
    rest: nn.Module
    shape: tuple[int, ...]


def cut_behind_frozen(network: nn.Module, input_shape: tuple[int, int, int]) -> Cut:
    """The frozen layers of a network for images of `input_shape` (C, H, W), and the rest.

    One after the other they give the network's logits, which is confirmed each time.

    Raises: ConfigError with the reason where there is no place to cut.
    """
    with compiler_left_out():
        whole = _graph_of(network)
        nodes = list(whole.graph.nodes)
        weight = next(network.parameters())
        generator = torch.Generator().manual_seed(0)
        images = torch.rand((_NUM_TRIED, *input_shape), generator=generator).to(weight.device, weight.dtype)
        was_training = [(module, module.training) for module in network.modules()]
        network.eval()
        try:
            with torch.inference_mode():
                shapes = Shapes(whole)
                shapes.run(images)
                place = _place(nodes, whole, shapes.of)
                frozen, rest = _halves(whole, nodes, place, shapes.of[nodes[place].name][1:])
                _confirm(network, frozen, rest, images)
        finally:
            for module, training in was_training:
                module.training = training
    # The layers keep their names, and what the network says of them is said of the rest.
    own = dict(rest.named_parameters())
    vars(rest)["bias_epochs"] = {name: count for name, count in bias_epochs_of(network).items() if name in own}
    return Cut(frozen, rest, shapes.of[nodes[place].name][1:])


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """A module without parts decides for itself by its mode, stochastic depth for example."""
        return super().is_leaf_module(m, module_qualified_name) or next(m.children(), None) is None


def _graph_of(network: nn.Module) -> fx.GraphModule:
    """Raises: ConfigError."""
    root = in_a_row(network)
    was_training = [(module, module.training) for module in network.modules()]
    texts = []
    try:
        for mode in (True, False):
            root.train(mode)
            graph = _Tracer().trace(root)
            texts.append(str(graph))
    except Exception as error:  # a network's own code may raise anything
        raise ConfigError(f"torch.fx cannot follow what it computes: {first_line(error)}") from error
    finally:
        for module, training in was_training:
            module.training = training
    # What a graph holds of a mode, it holds for good.
    if texts[0] != texts[1]:
        raise ConfigError("it computes otherwise in training than in evaluation, outside of its layers")
    return fx.GraphModule(root, graph)


def _place(nodes: Sequence[fx.Node], whole: fx.GraphModule, shapes: dict[str, tuple[int, ...]]) -> int:
    """The number of the operation whose result passes the cut. Raises: ConfigError."""
    order = {node: number for number, node in enumerate(nodes)}
    last_use = [max((order[user] for user in node.users), default=-1) for node in nodes]
    steady: set[fx.Node] = set()
    best, best_rank = None, (0, 0)
    num_weighted = 0
    for number, node in enumerate(nodes):
        if not _is_steady(node, whole, steady):
            continue
        steady.add(node)
        num_weighted += _has_weights(node, whole)
        shape = shapes.get(node.name, ())
        passes_alone = all(last_use[former] <= number for former in range(number)) and last_use[number] > number
        if num_weighted and passes_alone and shape[:1] == (_NUM_TRIED,):
            # As many frozen layers as possible; then the smallest tensor; then the later one.
            rank = (num_weighted, -torch.Size(shape).numel())
            if best is None or rank >= best_rank:
                best, best_rank = number, rank
    if best is None:
        raise ConfigError("no single tensor passes from its frozen layers to the others")
    return best


def _is_steady(node: fx.Node, whole: fx.GraphModule, steady: set[fx.Node]) -> bool:
    """Whether an operation gives the same for a picture whenever it is asked."""
    if node.op in ("placeholder", "output"):
        return node.op == "placeholder"
    if not all(former in steady for former in node.all_input_nodes):
        return False
    if node.op == "get_attr":
        value = _attribute(whole, str(node.target))
        return not (isinstance(value, Tensor) and value.requires_grad)
    if node.op == "call_module":
        module = whole.get_submodule(str(node.target))
        return is_frozen(module) or isinstance(module, _STEADY) or type(module).__name__ == _PERMUTATION
    return not any(word in str(getattr(node.target, "__name__", node.target)) for word in _RANDOM)


def _attribute(whole: nn.Module, name: str) -> object:
    place: object = whole
    for part in name.split("."):
        place = getattr(place, part)
    return place


def _has_weights(node: fx.Node, whole: fx.GraphModule) -> bool:
    return node.op == "call_module" and any(True for _ in whole.get_submodule(str(node.target)).parameters())


def _halves(
    whole: fx.GraphModule, nodes: Sequence[fx.Node], place: int, shape: tuple[int, ...]
) -> tuple[fx.GraphModule, fx.GraphModule]:
    first, second = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in nodes[: place + 1]:
        copies[node] = first.node_copy(node, copies.__getitem__)
    first.output(copies[nodes[place]])
    copies = {nodes[place]: second.call_method("reshape", (second.placeholder("activations"), -1, *shape))}
    for node in itertools.islice(nodes, place + 1, None):
        copies[node] = second.node_copy(node, copies.__getitem__)
    return fx.GraphModule(whole, first), fx.GraphModule(whole, second)


def _confirm(network: nn.Module, frozen: nn.Module, rest: nn.Module, images: Tensor) -> None:
    """Raises: ConfigError where the halves compute something else than the whole."""
    expected, found = network(images), rest.eval()(frozen.eval()(images))
    scale = max(1.0, float(expected.abs().max()))
    if found.shape != expected.shape or not float((found - expected).abs().max()) <= _TOLERANCE * scale:
        raise ConfigError("cut in two, it computes something else")
