"""Parameters of known networks. Convolution: (k·k·C_in + 1)·C_out; dense: (C_in + 1)·C_out; normalisation: 2·C."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from conviction.nets import BlocksConfig, build_network, expand_preset
from conviction.nets.block import num_parameters

CIFAR10 = (3, 32, 32)
MNIST = (1, 28, 28)

CONVNET = [
    ("convolution", (3 * 3 * 3 + 1) * 128, 3_584),
    ("convolution", (3 * 3 * 128 + 1) * 512, 590_336),
    ("convolution", (3 * 3 * 512 + 1) * 512, 2_359_808),
    ("convolution", (3 * 3 * 512 + 1) * 512, 2_359_808),
    ("convolution", (3 * 3 * 512 + 1) * 512, 2_359_808),
    ("dense", (512 * 1 * 1 + 1) * 10, 5_130),
]
NORMALIZATIONS = [("normalization", 2 * 128, 256), *[("normalization", 2 * 512, 1_024)] * 4]
COUNTS = {
    "convnet": (CIFAR10, 10, 7_678_474, CONVNET),
    "convnet-bn": (
        CIFAR10,
        10,
        7_682_826,
        [layer for pair in zip(CONVNET, NORMALIZATIONS, strict=False) for layer in pair] + CONVNET[-1:],
    ),
    "alexnet-cifar10": (
        CIFAR10,
        10,
        1_191_170,
        [
            ("convolution", (5 * 5 * 3 + 1) * 32, 2_432),
            ("convolution", (5 * 5 * 32 + 1) * 64, 51_264),
            ("convolution", (5 * 5 * 64 + 1) * 64, 102_464),
            ("dense", (64 * 4 * 4 + 1) * 1000, 1_025_000),
            ("dense", (1000 + 1) * 10, 10_010),
        ],
    ),
    "lenet5": (
        MNIST,
        10,
        61_706,
        [
            ("convolution", (5 * 5 * 1 + 1) * 6, 156),
            ("convolution", (5 * 5 * 6 + 1) * 16, 2_416),
            ("dense", (16 * 5 * 5 + 1) * 120, 48_120),
            ("dense", (120 + 1) * 84, 10_164),
            ("dense", (84 + 1) * 10, 850),
        ],
    ),
    "perceptron": (
        MNIST,
        10,
        238_510,
        [("dense", (28 * 28 + 1) * 300, 235_500), ("dense", (300 + 1) * 10, 3_010)],
    ),
    # 50 → ⌊(50 - 5) / 2⌋ + 1 = 23 → ⌊(23 - 5) / 2⌋ + 1 = 10
    "simplecnn": (
        (3, 50, 50),
        11,
        110_811,
        [
            ("convolution", (5 * 5 * 3 + 1) * 16, 1_216),
            ("convolution", (5 * 5 * 16 + 1) * 16, 6_416),
            ("dense", (16 * 10 * 10 + 1) * 64, 102_464),
            ("dense", (64 + 1) * 11, 715),
        ],
    ),
    # Six convolutions without biases; half of each normalisation's numbers are scales that stay 1.
    "speed-cifar10": (
        CIFAR10,
        10,
        1_972_792,
        [
            ("convolution", (2 * 2 * 3 + 1) * 24, 312),
            ("convolution", 3 * 3 * 24 * 64, 13_824),
            ("normalization", 2 * 64, 128),
            ("convolution", 3 * 3 * 64 * 64, 36_864),
            ("normalization", 2 * 64, 128),
            ("convolution", 3 * 3 * 64 * 256, 147_456),
            ("normalization", 2 * 256, 512),
            *[("convolution", 3 * 3 * 256 * 256, 589_824), ("normalization", 2 * 256, 512)] * 3,
            ("dense", 256 * 10, 2_560),
        ],
    ),
    "speed-cifar10-quick": (
        CIFAR10,
        10,
        498_104,
        [
            ("convolution", (2 * 2 * 3 + 1) * 24, 312),
            ("convolution", 3 * 3 * 24 * 32, 6_912),
            ("normalization", 2 * 32, 64),
            ("convolution", 3 * 3 * 32 * 32, 9_216),
            ("normalization", 2 * 32, 64),
            ("convolution", 3 * 3 * 32 * 128, 36_864),
            ("normalization", 2 * 128, 256),
            *[("convolution", 3 * 3 * 128 * 128, 147_456), ("normalization", 2 * 128, 256)] * 3,
            ("dense", 128 * 10, 1_280),
        ],
    ),
    "digits": (
        (1, 8, 8),
        10,
        151_498,
        [
            ("convolution", (3 * 3 * 1 + 1) * 32, 320),
            ("normalization", 2 * 32, 64),
            ("convolution", (3 * 3 * 32 + 1) * 64, 18_496),
            ("normalization", 2 * 64, 128),
            ("dense", (64 * 4 * 4 + 1) * 128, 131_200),
            ("dense", (128 + 1) * 10, 1_290),
        ],
    ),
}
KINDS = {nn.Conv2d: "convolution", nn.Linear: "dense", nn.BatchNorm2d: "normalization"}


def preset(name: str) -> nn.Module:
    shape, num_classes, _, _ = COUNTS[name]
    return build_network(BlocksConfig.model_validate(expand_preset(name)), shape, num_classes)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_by_layer_and_in_all(name: str) -> None:
    _, _, total, layers = COUNTS[name]
    assert all(by_formula == published for _, by_formula, published in layers)
    network = preset(name)
    found = [
        (KINDS[type(module)], sum(parameter.numel() for parameter in module.parameters(recurse=False)))
        for module in network.modules()
        if list(module.parameters(recurse=False))
    ]
    assert found == [(kind, count) for kind, _, count in layers]
    assert num_parameters(network) == sum(count for _, _, count in layers) == total


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("convnet", ["Conv2d", "MaxPool2d", "ReLU"]),
        ("convnet-bn", ["Conv2d", "BatchNorm2d", "MaxPool2d", "ReLU"]),
        ("alexnet-cifar10", ["Conv2d", "ReLU", "MaxPool2d"]),
        ("lenet5", ["Conv2d", "ReLU", "MaxPool2d"]),
        ("simplecnn", ["Conv2d", "ReLU"]),
    ],
)
def test_order_of_layers_in_each_block(name: str, layers: list[str]) -> None:
    for block in preset(name).blocks:
        assert [type(layer).__name__ for layer in block] == layers


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("convnet", [(128, 16, 16), (512, 8, 8), (512, 4, 4), (512, 2, 2), (512, 1, 1)]),
        ("alexnet-cifar10", [(32, 16, 16), (64, 8, 8), (64, 4, 4)]),
        ("lenet5", [(6, 14, 14), (16, 5, 5)]),
        ("simplecnn", [(16, 23, 23), (16, 10, 10)]),
        # The 2×2 convolution has no padding, and 31, 15 and 7 are halved and rounded down.
        (
            "speed-cifar10",
            [(24, 31, 31), (64, 15, 15), (64, 15, 15), (256, 7, 7), (256, 7, 7), (256, 3, 3), (256, 3, 3), (256, 1, 1)],
        ),
        ("digits", [(32, 8, 8), (64, 4, 4)]),
    ],
)
def test_feature_maps(name: str, expected: list[tuple[int, int, int]]) -> None:
    maps = torch.zeros(1, *COUNTS[name][0])
    found = []
    for block in preset(name).blocks:
        maps = block(maps)
        found.append(tuple(maps.shape[1:]))
    assert found == expected
