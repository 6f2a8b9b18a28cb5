"""Networks with a name: values of the block builder, from the courses in which they are taught."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from conviction.core.errors import ConfigError, UnknownName
from conviction.nets.block import NETWORKS, BlockConfig, BlocksConfig, DenseConfig, PoolingConfig, Stage
from conviction.nets.named import TORCHVISION, is_of_torchvision

_POOL_AT_ONCE: tuple[Stage, ...] = ("convolution", "pooling", "normalization", "activation", "dropout")
_POOL_FIRST: tuple[Stage, ...] = ("convolution", "normalization", "pooling", "activation", "dropout")


@dataclass(frozen=True)
class Preset:
    """A named network: its settings, one line of summary, its source, and the pictures that it was made for."""

    config: BlocksConfig
    summary: str
    reference: str
    input_shape: tuple[int, int, int] = (3, 32, 32)
    num_classes: int = 10


def _convnet(normalization: str) -> BlocksConfig:
    return BlocksConfig.model_validate(
        {
            "blocks": [
                {"filters": filters, "normalization": normalization, "pooling": {}, "order": _POOL_FIRST}
                for filters in (128, 512, 512, 512, 512)
            ]
        }
    )


def _alexnet_cifar10() -> BlocksConfig:
    return BlocksConfig(
        blocks=tuple(BlockConfig(filters=filters, kernel_px=5, pooling=PoolingConfig()) for filters in (32, 64, 64)),
        dense=(DenseConfig(units=1000),),
    )


def _lenet5() -> BlocksConfig:
    return BlocksConfig(
        blocks=(
            BlockConfig(filters=6, kernel_px=5, padding_px=2, pooling=PoolingConfig()),
            BlockConfig(filters=16, kernel_px=5, padding_px=0, pooling=PoolingConfig()),
        ),
        dense=(DenseConfig(units=120), DenseConfig(units=84)),
    )


def _simplecnn() -> BlocksConfig:
    block = BlockConfig(filters=16, kernel_px=5, stride_px=2, padding_px=0)
    return BlocksConfig(blocks=(block, block), dense=(DenseConfig(units=64),))


def _digits() -> BlocksConfig:
    return BlocksConfig(
        blocks=(
            BlockConfig(filters=32, normalization="batch"),
            BlockConfig(filters=64, normalization="batch", pooling=PoolingConfig()),
        ),
        dense=(DenseConfig(units=128, dropout=0.25),),
    )


def _speed_cifar10(*widths: int) -> BlocksConfig:
    blocks: list[dict[str, Any]] = [
        {
            "filters": 24,
            "kernel_px": 2,
            "padding_px": 0,
            "initialization": "whitening",
            "frozen": True,
            "bias_epochs": 3,
            "activation": "gelu",
        }
    ]
    for filters in widths:
        block = {
            "filters": filters,
            "bias": False,
            "initialization": "dirac",
            "normalization": "batch",
            "normalization_scale": False,
            "normalization_epsilon": 1e-12,
            "activation": "gelu",
        }
        blocks += [{**block, "pooling": {}, "order": _POOL_AT_ONCE}, block]
    return BlocksConfig.model_validate(
        {"blocks": blocks, "global_pooling": "max", "classifier_bias": False, "logit_scale": 1 / 9}
    )


PRESETS: dict[str, Preset] = {
    "convnet": Preset(
        _convnet("none"),
        "Five 3×3 convolutions (128, 512, 512, 512, 512), each halved by max-pooling, then a linear layer",
        "lab A1; 7,678,474 parameters on CIFAR-10",
    ),
    "convnet-bn": Preset(
        _convnet("batch"), "convnet with batch normalisation", "lab A4; 7,682,826 parameters on CIFAR-10"
    ),
    "alexnet-cifar10": Preset(
        _alexnet_cifar10(),
        "Three 5×5 convolutions (32, 64, 64), each halved by max-pooling, then 1000 units",
        "lab C4; 1,191,170 parameters on CIFAR-10",
    ),
    "lenet5": Preset(
        _lenet5(),
        "LeNet-5 with ReLU and max-pooling, for 28×28 pictures",
        "Y. LeCun et al., Proc. IEEE 86(11), 1998; 61,706 parameters on MNIST",
        input_shape=(1, 28, 28),
    ),
    "simplecnn": Preset(
        _simplecnn(),
        "Two 5×5 convolutions (16, 16) with stride 2, then 64 units",
        "lab D2; for 50×50 pictures",
        input_shape=(3, 50, 50),
        num_classes=11,
    ),
    "perceptron": Preset(
        BlocksConfig(dense=(DenseConfig(units=300),)),
        "One hidden layer of 300 units",
        "lab D9; for 28×28 pictures",
        input_shape=(1, 28, 28),
    ),
    "digits": Preset(
        _digits(),
        "Two 3×3 convolutions (32, 64) with batch normalisation, then 128 units",
        "",
        input_shape=(1, 8, 8),
    ),
    "speed-cifar10": Preset(
        _speed_cifar10(64, 256, 256),
        "Frozen 2×2 whitening, then three pairs of 3×3 convolutions (64, 256, 256) that begin as identities",
        "K. Jordan, 94% on CIFAR-10 in 3.29 seconds on a single GPU, 2024; 1,972,792 parameters on CIFAR-10",
    ),
    "speed-cifar10-quick": Preset(
        _speed_cifar10(32, 128, 128),
        "speed-cifar10 at half its width (32, 128, 128)",
        "K. Jordan, 2024, at half the width; 498,104 parameters on CIFAR-10",
    ),
}


def network_names() -> list[str]:
    """What a recipe's `network` may be called: the presets, then the families."""
    return [*PRESETS, *NETWORKS.names()]


def expand_preset(value: object) -> object:
    """A preset's name, or a mapping with a `preset` key, written out; keys beside `preset` replace the preset's own.

    A mapping without a `name` describes blocks. `torchvision:NAME` names a model of that family.

    Raises: UnknownName; ConfigError for a model of torchvision without its family.
    """
    if isinstance(value, str):
        is_family = value in NETWORKS.names() or value.startswith(TORCHVISION)
        value = {"name": value} if is_family else {"preset": value}
    if not isinstance(value, Mapping):
        return value
    if isinstance(value.get("name"), str) and value["name"].startswith(TORCHVISION):
        return {**value, "name": "torchvision", "model": value["name"].removeprefix(TORCHVISION)}
    if isinstance(value.get("name"), str) and value["name"] in PRESETS:
        value = {**value, "name": "blocks", "preset": value["name"]}
    if value.get("preset") is None:
        return {"name": "torchvision" if "model" in value else "blocks", **value}
    name = value["preset"]
    if not isinstance(name, str) or name not in PRESETS:
        if is_of_torchvision(str(name)):
            raise ConfigError(f"No network named {name!r}. Did you mean torchvision's, '{TORCHVISION}{name}'?")
        raise UnknownName("network", str(name), network_names())
    return {**PRESETS[name].config.model_dump(mode="json"), **value}
