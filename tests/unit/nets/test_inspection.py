"""Counts of weights and computations: by hand, as published, and against three other tools."""

from __future__ import annotations

import copy
import dataclasses
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
import torchinfo
import torchlens
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import models

from conviction import inspect
from conviction.core.errors import ConfigError, UnknownName
from conviction.nets import PRESETS, build_network
from conviction.nets.block import BlocksConfig, num_parameters
from conviction.nets.inspection import as_meta, inspect_network
from conviction.nets.named import build_from_file, build_torchvision, on_meta
from conviction.predict import autocast

TORCHVISION_MODELS = models.list_models(module=models)
assert len(TORCHVISION_MODELS) + len(PRESETS) >= 60
PUBLISHED = {"resnet50": 25_557_032, "vgg11_bn": 132_868_840, "alexnet": 61_100_840}


def torchs_macs(network: nn.Module, shape: tuple[int, int, int]) -> int:
    """Half of what torch's own counter says: it counts a multiplication and an addition as two."""
    counter = FlopCounterMode(display=False)
    network.eval()
    with counter, torch.no_grad():
        network(torch.empty((1, *shape), device="meta"))
    flops = counter.get_total_flops()
    assert flops % 2 == 0
    return flops // 2


def evaluated(formula: str) -> int:
    """The numbers behind the equals sign of a formula, worked out."""
    numbers = formula.split("=")[-1].replace("·", "*")
    assert re.fullmatch(r"[\d\s()+*/]+", numbers), numbers
    # Digits and signs alone.
    return round(eval(numbers))


def torchinfos_counts(network: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Parameters and mult-adds of torchinfo on the meta device, mended by hand where it counts what is no product.

    It multiplies all parameters of a convolution, the biases too, with the positions of the output: one bias is one
    addition and no product. It counts a normalisation's parameters once for each picture: they are one product for each
    number, which is an operation element by element. A linear layer over the channels of each position, as ConvNeXt's,
    it counts once: there are as many products for each position.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = torch.empty((1, *shape), device="meta")
        summary = torchinfo.summary(as_meta(network).eval(), input_data=images, verbose=0, device="meta", mode="eval")
    macs = summary.total_mult_adds
    for layer in summary.summary_list:
        module = layer.module
        if layer.is_recursive or not layer.is_leaf_layer:
            continue
        if isinstance(module, nn.Conv2d):
            macs -= (module.bias is not None) * module.out_channels * math.prod(layer.output_size[2:])
        elif isinstance(module, nn.Linear):
            macs -= (module.bias is not None) * module.out_features
            macs += (math.prod(layer.output_size[1:-1]) - 1) * module.weight.numel()
        else:
            macs -= sum(parameter.numel() for parameter in module.parameters())
    return summary.total_params, macs


# Attention multiplies with weights of layers that it does not call, and maps with each other: torchinfo sees neither.
WITH_ATTENTION = ("vit", "swin", "maxvit")


@pytest.mark.slow
@pytest.mark.parametrize("name", TORCHVISION_MODELS)
def test_torchvisions_models_against_torch_and_torchinfo(name: str) -> None:
    network, side_px = build_torchvision(name)
    assert all(parameter.is_meta for parameter in network.parameters())
    # The sizes of the pictures do not change what is compared, and small ones are quick.
    side_px = side_px if name.startswith((*WITH_ATTENTION, "inception")) else 64
    found = inspect_network(network, (3, side_px, side_px), name, batch_size=2)
    assert found.notes == ()
    assert found.parameters == num_parameters(network) == PUBLISHED.get(name, num_parameters(network))
    assert found.macs == torchs_macs(network, (3, side_px, side_px))
    parameters, macs = torchinfos_counts(network, (3, side_px, side_px))
    assert found.parameters == parameters
    assert found.macs > macs if name.startswith(WITH_ATTENTION) else found.macs == macs
    for layer in found.layers:
        if layer.formula:
            assert layer.note or evaluated(layer.formula) == layer.parameters, layer


def test_a_vision_transformer_by_hand() -> None:
    """torchinfo tells 172,996,608 here, torch itself what is worked out below."""
    tokens, width, hidden = 14 * 14 + 1, 768, 3072
    patches = 14 * 14 * (16 * 16 * 3) * width
    # Queries, keys and values; their products with each other and with the values; what joins the heads; two layers.
    block = tokens * width * 3 * width + 2 * tokens**2 * width + tokens * width**2 + 2 * tokens * width * hidden
    found = inspect_network(build_torchvision("vit_b_16")[0], (3, 224, 224), batch_size=1)
    assert found.macs == patches + 12 * block + width * 1000 == 17_563_828_224


@pytest.mark.parametrize("name", PRESETS)
def test_presets_against_torch_and_torchinfo(name: str) -> None:
    preset = PRESETS[name]
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    found = inspect_network(network, preset.input_shape, name)
    assert found.parameters == num_parameters(network)
    assert found.macs == torchs_macs(as_meta(network), preset.input_shape)
    assert (found.parameters, found.macs) == torchinfos_counts(network, preset.input_shape)
    assert all(evaluated(layer.formula) == layer.parameters for layer in found.layers if layer.formula)


def torchlens_counts(network: nn.Module, shape: tuple[int, int, int]) -> tuple[int, int]:
    """Parameters and multiply-accumulates of TorchLens, whose convention is ours."""
    seen = torchlens.trace(network.eval(), torch.rand(1, *shape))
    return sum(layer.num_params for layer in seen.layers), sum(int(layer.macs_forward or 0) for layer in seen.layers)


# It runs its networks on numbers, so that the smaller ones of each family are asked.
TORCHLENS_MODELS = [
    *("alexnet", "densenet121", "densenet169", "convnext_tiny", "efficientnet_b0", "efficientnet_b1", "googlenet"),
    *("mnasnet0_5", "mnasnet0_75", "mnasnet1_0", "mnasnet1_3", "mobilenet_v2", "mobilenet_v3_small"),
    *("mobilenet_v3_large", "regnet_x_400mf", "regnet_x_800mf", "regnet_y_400mf", "regnet_y_800mf", "resnet18"),
    *("resnet34", "resnet50", "resnext50_32x4d", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5"),
    *("shufflenet_v2_x2_0", "squeezenet1_0", "squeezenet1_1", "vit_b_32", "wide_resnet50_2"),
]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*PRESETS, *TORCHLENS_MODELS])
def test_torchlens_agrees(name: str) -> None:
    if name in PRESETS:
        preset = PRESETS[name]
        network = build_network(preset.config, preset.input_shape, preset.num_classes)
        shape = preset.input_shape
    else:
        settings = {"init_weights": False} if name == "googlenet" else {}
        network = models.get_model(name, weights=None, **settings)
        shape = (3, 224, 224) if name == "vit_b_32" else (3, 64, 64)
    found = inspect_network(network, shape, name, batch_size=1)
    # GoogLeNet's two auxiliary heads train and do not predict, so that TorchLens does not meet them.
    unseen = sum(layer.parameters for layer in found.layers if layer.note == "not used when predicting")
    assert unseen == (6_379_984 if name == "googlenet" else 0)
    assert (found.parameters - unseen, found.macs) == torchlens_counts(network, shape)


blocks = st.fixed_dictionaries(
    {
        "filters": st.integers(1, 12),
        "kernel_px": st.integers(1, 5),
        "stride_px": st.integers(1, 2),
        "padding_px": st.integers(0, 2),
        "bias": st.booleans(),
        "normalization": st.sampled_from(["none", "batch", "layer", "local_response"]),
        "activation": st.sampled_from(["none", "relu", "gelu", "tanh"]),
        "pooling": st.none() | st.fixed_dictionaries({"size_px": st.integers(1, 3), "ceil_mode": st.booleans()}),
    }
)
described = st.fixed_dictionaries(
    {
        "blocks": st.lists(blocks, max_size=4),
        "global_pooling": st.sampled_from(["none", "average", "max"]),
        "dense": st.lists(st.fixed_dictionaries({"units": st.integers(1, 20)}), max_size=2),
    }
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(described, st.sampled_from([1, 3]), st.integers(4, 20), st.integers(4, 20), st.integers(2, 12))
def test_random_networks_against_torch_and_torchinfo(
    settings: dict[str, Any], channels: int, height: int, width: int, classes: int
) -> None:
    shape = (channels, height, width)
    try:
        network = on_meta(lambda: build_network(BlocksConfig.model_validate(settings), shape, classes))
    except ConfigError:
        assume(False)
    found = inspect_network(network, shape, batch_size=2)
    assert found.parameters == num_parameters(network)
    assert found.macs == torchs_macs(network, shape)
    assert (found.parameters, found.macs) == torchinfos_counts(network, shape)
    assert found.layers[-1].output == (classes,)
    assert all(evaluated(layer.formula) == layer.parameters for layer in found.layers if layer.formula)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(described, st.sampled_from([1, 3]), st.integers(4, 20), st.integers(4, 20), st.integers(2, 12))
def test_torchlens_agrees_on_random_networks(
    settings: dict[str, Any], channels: int, height: int, width: int, classes: int
) -> None:
    shape = (channels, height, width)
    try:
        network = build_network(BlocksConfig.model_validate(settings), shape, classes)
    except ConfigError:
        assume(False)
    found = inspect_network(network, shape, batch_size=1)
    assert (found.parameters, found.macs) == torchlens_counts(network, shape)


def test_lab_c4_by_hand() -> None:
    preset = PRESETS["alexnet-cifar10"]
    found = inspect_network(build_network(preset.config, (3, 32, 32), 10), (3, 32, 32))
    weighty = [layer for layer in found.layers if layer.parameters]
    assert [layer.parameters for layer in weighty] == [2_432, 51_264, 102_464, 1_025_000, 10_010]
    # 32·32 positions of 5·5·3 products for 32 filters, and so on.
    assert [layer.macs for layer in weighty] == [
        32 * 32 * 75 * 32,
        16 * 16 * 800 * 64,
        8 * 8 * 1600 * 64,
        1024 * 1000,
        1000 * 10,
    ]
    assert weighty[0].formula == "(k·k·C_in + 1)·C_out = (5·5·3 + 1)·32"
    assert weighty[3].formula == "(n_in + 1)·n_out = (1024 + 1)·1000"
    # A fully connected layer from 3·32·32 numbers to 32·32·32 has (3072 + 1)·32768 weights.
    assert [layer.dense_parameters for layer in weighty[:2]] == [3073 * 32768, (32 * 16 * 16 + 1) * 64 * 16 * 16]
    assert weighty[3].dense_parameters is None
    # Four bytes for each of 32·32·32 numbers.
    assert weighty[0].activation_bytes == 131_072


def test_attention_counts_both_products() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, images: Tensor) -> Tensor:
            tokens = images.flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0]

    found = inspect_network(Attention(), (8, 5, 5))
    [layer] = [layer for layer in found.layers if layer.parameters]
    # 25 tokens of 8: queries, keys, values and the output are 8·8 products each; scores and their sums 25·25·8 each.
    assert layer.macs == found.macs == 4 * 25 * 8 * 8 + 2 * 25 * 25 * 8
    assert layer.parameters == 4 * 8 * 8 + 4 * 8


def test_weights_used_twice_are_counted_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, images: Tensor) -> Tensor:
            return self.convolution(self.convolution(images))

    found = inspect_network(Twice(), (3, 8, 8))
    assert found.parameters == 3 * 3 * 9 + 3
    assert [layer.name for layer in found.layers] == ["convolution", "convolution:2"]
    assert found.layers[1].note == "weights shared with an earlier layer"
    assert found.macs == 2 * 64 * 27 * 3


def test_frozen_and_unused_weights_are_told_apart() -> None:
    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Conv2d(3, 2, 1), nn.Linear(4, 4)
            self.scale = nn.Parameter(torch.ones(2, 1, 1))
            self.used.weight.requires_grad_(False)

        def forward(self, images: Tensor) -> Tensor:
            return self.used(images) * self.scale

    network = Network()
    found = inspect_network(network, (3, 4, 4))
    assert (found.parameters, found.trainable_parameters) == (6 + 2 + 20 + 2, 2 + 20 + 2)
    assert {layer.name: layer.note for layer in found.layers}["unused"] == "not used when predicting"
    assert network.training
    assert not network.used.weight.is_meta
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_memory_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.Tanh(), nn.Flatten(), nn.Linear(2 * 4 * 4, 3))
    memory = inspect_network(network, (1, 4, 4), batch_size=10).memory
    assert memory is not None
    weights = 2 + 96 + 3
    assert (memory.weights_bytes, memory.gradients_bytes, memory.optimizer_bytes) == (4 * weights,) * 3
    # Predicting: the pictures (16 numbers) are held throughout, and a layer's input beside its output (32 each).
    assert memory.inference_peak_bytes == 10 * 4 * (16 + 32 + 32)
    # Training keeps the pictures and what tanh gave; its backward pass adds gradients of one or two maps.
    assert 10 * 4 * (16 + 32 + 32) <= memory.saved_bytes <= 10 * 4 * (16 + 4 * 32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["alexnet-cifar10", "convnet-bn", "lenet5"])
def test_memory_against_torchs_profiler(name: str, precision: Literal["float32", "bfloat16"]) -> None:
    """What is allocated and not yet freed, at its fullest, in a real step; the estimate is within a quarter."""
    preset, batch_size = PRESETS[name], 16
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    memory = inspect_network(network, preset.input_shape, batch_size=batch_size, precision=precision).memory
    images = torch.rand((batch_size, *preset.input_shape))

    def step() -> None:
        with autocast(images.device, precision):
            logits = network(images)
        logits.float().sum().backward()

    step()
    network.zero_grad()
    kinds = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds, profile_memory=True, acc_events=True) as profile:
        step()
    held = peak = 0
    for event in sorted(profile.profiler.kineto_results.events(), key=lambda event: event.start_ns()):
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    assert memory is not None
    expected = memory.saved_bytes + memory.gradients_bytes - images.nbytes
    assert 0.75 * peak <= expected <= 1.25 * peak


def test_bfloat16_halves_the_maps_and_leaves_the_weights() -> None:
    whole, half = (inspect("convnet-bn", precision=kind, batch_size=64).memory for kind in ("float32", "bfloat16"))
    assert whole is not None
    assert half is not None
    assert half.weights_bytes == whole.weights_bytes
    assert half.gradients_bytes == whole.gradients_bytes
    assert 0.45 < half.saved_bytes / whole.saved_bytes < 0.65


def test_networks_in_other_precisions_are_inspected() -> None:
    whole = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))
    for network, num_bytes in ((copy.deepcopy(whole).double(), 8), (copy.deepcopy(whole).half(), 2)):
        memory = inspect_network(network, (3, 8, 8)).memory
        assert memory is not None
        assert memory.weights_bytes == num_bytes * (4 * 28 + 145 * 2)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 3, 3), r"0\.convolution.*does not go through|does not go through 0.*smallest square input .* 7×7"),
        ((1, 32, 32), r"0 expects 3 channels, but gets 1 from input 1×32×32"),
    ],
)
def test_pictures_that_do_not_fit_name_the_layer(shape: tuple[int, int, int], message: str) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 5), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1))
    with pytest.raises(ConfigError, match=message):
        inspect_network(network, shape)


def test_a_larger_picture_stops_at_the_first_fully_connected_layer() -> None:
    preset = PRESETS["alexnet-cifar10"]
    with pytest.raises(ConfigError) as caught:
        inspect_network(build_network(preset.config, (3, 32, 32), 10), (3, 64, 64))
    assert "Input 3×64×64 does not go through dense.dense1.linear" in caught.value.message
    assert "planned for, 1,024, and now gets 4,096, the 64×8×8 map of blocks.block3.pooling" in caught.value.message


def test_every_fully_connected_layer_that_fails_is_named() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.maps = nn.Conv2d(3, 2, 3)
            self.first, self.behind, self.other = nn.Linear(2 * 36, 5), nn.Linear(5, 4), nn.Linear(3 * 64, 4)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.behind(self.first(self.maps(images).flatten(1))) + self.other(images.flatten(1))
            return found

    with pytest.raises(ConfigError) as caught:
        inspect_network(TwoHeads(), (3, 10, 10))
    assert "go through first" in caught.value.message
    assert "planned for, 72, and now gets 128, the 2×8×8 map of maps" in caught.value.message
    assert "So it is with other (planned for 192, gets 300)." in caught.value.message
    assert "behind" not in caught.value.message


def test_a_second_input_is_asked_for_by_name() -> None:
    class Two(nn.Module):
        def forward(self, images: Tensor, mask: Tensor) -> Tensor:
            return images * mask

    with pytest.raises(ConfigError, match=r"needs 1 more input beside the pictures \(mask\)"):
        inspect_network(Two(), (3, 8, 8))


def test_layers_name_what_they_compute_with() -> None:
    """A shortcut leads past two convolutions; a strided one has a convolution of its own."""
    found = inspect_network(build_torchvision("resnet18")[0], (3, 64, 64))
    inputs = {layer.name: layer.inputs for layer in found.layers}
    assert inputs["conv1"] == ("input",)
    assert inputs["layer1.0.add"] == ("maxpool", "layer1.0.bn2")
    assert inputs["layer2.0.downsample.0"] == inputs["layer2.0.conv1"] == ("layer1.1.relu:2",)
    assert inputs["layer2.0.add"] == ("layer2.0.bn2", "layer2.0.downsample.1")
    assert inputs["fc"] == ("avgpool",)
    assert found.layers[0].as_json()["inputs"] == ["input"]


def test_what_depends_on_values_ends_the_trace_and_says_so() -> None:
    class Deciding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.first(images)
            return self.second(maps) if maps.sum() > 0 else maps

    found = inspect_network(Deciding(), (3, 8, 8))
    assert [(layer.name, layer.receptive_field.status) for layer in found.layers if layer.parameters] == [
        ("first", "EXACT"),
        ("second", "UNKNOWN"),
    ]
    assert found.parameters == 3 * 4 * 9 + 4 + 4 * 4 * 9 + 4
    assert "decides by the values" in found.notes[0]
    assert found.memory is None
    assert found.as_json()["is_complete"] is False


class Forward(nn.Module):
    """A convolution, and what is made of its map."""

    def __init__(self, forward: Callable[[Any, Tensor], object]) -> None:
        super().__init__()
        self.maps, self.numbers = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 2)
        self.direction = nn.Parameter(torch.rand(4 * 36))
        self._forward = forward

    def forward(self, images: Tensor) -> object:
        return self._forward(self, images)


@pytest.mark.parametrize(
    "forward",
    [
        lambda n, x: n.maps(x[x > 0].reshape(1, 3, 8, 8)),
        lambda n, x: n.maps(x) * len((x > 0).nonzero()),
        lambda n, x: n.numbers(n.maps(x).flatten(1)) + len(torch.unique(x)),
        lambda n, x: n.maps(x) * float(x.detach().numpy().mean()),
        lambda n, x: n.maps(x) * x.mean().item(),
        lambda n, x: n.maps(x) if x.mean() > 0 else x,
    ],
    ids=["mask", "nonzero", "unique", "numpy", "item", "if"],
)
def test_every_way_to_depend_on_values_gives_a_partial_answer(forward: Callable[[Any, Tensor], Tensor]) -> None:
    found = inspect_network(Forward(forward), (3, 8, 8))
    assert not found.is_complete
    assert "decides by the values of a picture" in found.notes[0]
    assert found.parameters == 4 * 28 + 145 * 2 + 144


@dataclasses.dataclass
class Output:
    logits: Tensor


@pytest.mark.parametrize(
    ("forward", "note"),
    [
        (lambda n, x: {"logits": n.maps(x), "name": "mine"}, None),
        (lambda n, x: (n.maps(x), 3), None),
        (lambda n, x: Output(n.maps(x)), None),
        (lambda n, x: n.maps(x).argmax(1), None),
        (lambda n, x: [n.maps(x), None][1], None),
        (lambda n, x: n.maps(x).relu_().add_(1).mul_(2), "modified by an inplace operation"),
        (lambda n, x: n.maps(x).reshape(4, 6, 6), "shape '.4, 6, 6.' is invalid"),
        (lambda n, x: n.maps(x) * (n.maps(x).mean().item() if n.training else 1), "item"),
    ],
    ids=["dict", "tuple", "dataclass", "classes", "none", "in place", "one picture", "decides in training"],
)
def test_memory_that_cannot_be_told_is_left_out_with_a_note(
    forward: Callable[[Any, Tensor], object], note: str | None
) -> None:
    found = inspect_network(Forward(forward), (3, 8, 8))
    assert found.is_complete
    assert found.layers[1].receptive_field.status == "EXACT"
    if note is None:
        assert found.notes == ()
        assert found.memory is not None
    else:
        assert found.memory is None
        assert re.search(f"memory is not told: a training step of 128 pictures fails with: .*{note}", found.notes[0])


def test_constants_with_numbers_come_along() -> None:
    """Tensors that a network keeps or makes on the processor, where its pictures are on the meta device."""

    class Kept(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean = torch.tensor([0.5, 0.4, 0.3]).reshape(3, 1, 1)
            self.several = [torch.ones(3, 8, 8)]
            self.maps = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            ramp = torch.linspace(0, 1, 8).expand(8, 8)
            found: Tensor = self.maps((images - self.mean) * self.several[0] + ramp)
            return found

    network = Kept()
    found = inspect_network(network, (3, 8, 8))
    assert found.layers[-1].receptive_field.size_px == (3, 3)
    assert found.memory is not None
    assert not network.mean.is_meta


def test_formulas_stand_for_all_of_a_layers_weights() -> None:
    class Scaled(nn.Conv2d):
        def __init__(self) -> None:
            super().__init__(3, 4, 3)
            self.scale = nn.Parameter(torch.ones(()))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        old = nn.utils.weight_norm(nn.Conv2d(3, 4, 3))
    layers = [Scaled(), old, nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3))]
    for layer, count in zip(layers, (113, 116, 116), strict=True):
        (record,) = inspect_network(nn.Sequential(layer), (3, 8, 8)).layers
        assert record.parameters == count
        assert record.macs == 4 * 27 * 36
        assert sum(eval(part.replace("·", "*")) for part in record.formula.split(" + ")) == count


def test_products_with_vectors_count() -> None:
    assert (
        inspect_network(Forward(lambda n, x: n.maps(x).flatten(1) @ n.direction), (3, 8, 8)).macs == 4 * 27 * 36 + 144
    )
    assert inspect_network(Forward(lambda n, x: n.maps(x).flatten().dot(n.direction)), (3, 8, 8)).macs == 3888 + 144

    class Bilinear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = nn.Bilinear(3, 4, 10)

        def forward(self, images: Tensor) -> Tensor:
            found: Tensor = self.pair(images.mean((2, 3)), images[:, 0, 0, :4])
            return found

    assert inspect_network(Bilinear(), (3, 8, 8)).macs == 3 * 4 * 10


def test_weights_used_by_hand_are_used() -> None:
    found = inspect_network(Forward(lambda n, x: n.maps(x).flatten(1) * n.numbers.weight.sum()), (3, 8, 8))
    assert {layer.name: layer.note for layer in found.layers}["numbers"] == ""


# Some versions of torch warn of what their own compiler imports.
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is deprecated:DeprecationWarning")
def test_compiled_and_unfinished_networks() -> None:
    compiled = torch.compile(nn.Sequential(nn.Conv2d(3, 4, 3)))
    assert inspect_network(compiled, (3, 8, 8)).parameters == 112
    assert inspect_network(nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d()), (3, 8, 8)).parameters == 112 + 8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8))
    with pytest.raises(ConfigError, match=r"compiled by torch\.jit"):
        inspect_network(scripted, (3, 8, 8))


@pytest.mark.parametrize(
    "arguments",
    [
        {"input_shape": (3, -1, 32)},
        {"num_classes": 0},
        {"num_classes": -3},
        {"batch_size": 0},
    ],
)
def test_senseless_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"`{next(iter(arguments))}.*got {re.escape(repr(*arguments.values()))}"):
        inspect("convnet", **arguments)


MY_NETWORK = """
from torch import nn


def build(num_classes=7):
    return nn.Sequential(nn.Flatten(), nn.Linear(12, num_classes))


def text():
    return "no network"


def broken():
    raise ValueError("not today")
"""


def test_networks_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mynet.py").write_text(MY_NETWORK)
    file = tmp_path / "mynet.py"
    assert num_parameters(build_from_file(f"{file}:build")) == 13 * 7
    assert num_parameters(build_from_file(f"{file}:build", 3)) == 13 * 3
    for name, message in (("text", "must return a torch.nn.Module, but returned str"), ("broken", "not today")):
        with pytest.raises(ConfigError, match=message):
            build_from_file(f"{file}:{name}")
    with pytest.raises(UnknownName, match="Did you mean 'build'"):
        build_from_file(f"{file}:biuld")
    (tmp_path / "leaving.py").write_text("def build():\n    raise SystemExit(3)\n\ndef empty():\n    assert False\n")
    with pytest.raises(ConfigError, match=r"build cannot be called: SystemExit: 3\.$"):
        build_from_file(f"{tmp_path}/leaving.py:build")
    with pytest.raises(ConfigError, match=r"empty cannot be called: AssertionError\.$"):
        build_from_file(f"{tmp_path}/leaving.py:empty")
    with pytest.raises(ConfigError, match=r"No module 'torchvison'\. Did you mean torchvision:NAME"):
        build_from_file("torchvison:resnet50")
    with pytest.raises(ConfigError, match="No file"):
        build_from_file(f"{tmp_path}/other.py:build")
    (tmp_path / "typo.py").write_text("def build(:\n")
    with pytest.raises(ConfigError, match="cannot be imported: SyntaxError"):
        build_from_file(f"{tmp_path}/typo.py:build")


def test_an_unknown_model_of_torchvision_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'resnet50'"):
        build_torchvision("resnet5O")
