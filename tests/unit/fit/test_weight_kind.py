from __future__ import annotations

import torch
from torch import nn

from conviction.fit.weight_kind import kinds_of_weights
from conviction.nets import BlocksConfig, build_network


def kinds(network: nn.Module) -> dict[str, str]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return {names[id(parameter)]: kind for parameter, kind in kinds_of_weights(network)}


def test_blocks() -> None:
    settings = {
        "blocks": [{"filters": 4, "normalization": "batch"}, {"filters": 4, "normalization": "layer", "frozen": True}],
        "dense": [{"units": 5, "normalization": "layer"}],
        "classifier_bias": False,
    }
    assert kinds(build_network(BlocksConfig.model_validate(settings), (3, 6, 6), 2)) == {
        "blocks.block1.convolution.weight": "matrix",
        "blocks.block1.convolution.bias": "bias",
        "blocks.block1.normalization.weight": "norm_scale",
        "blocks.block1.normalization.bias": "norm_bias",
        "blocks.block2.convolution.bias": "bias",
        "blocks.block2.normalization.weight": "norm_scale",
        "blocks.block2.normalization.bias": "norm_bias",
        "dense.dense1.linear.weight": "matrix",
        "dense.dense1.linear.bias": "bias",
        "dense.dense1.normalization.weight": "norm_scale",
        "dense.dense1.normalization.bias": "norm_bias",
        "classifier.weight": "classifier",
    }


def test_a_classifier_may_be_a_convolution_and_an_embedding_is_no_matrix() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.position = nn.Parameter(torch.zeros(1, 4, 3))
            self.features = nn.Conv2d(3, 4, 3)
            self.head = nn.Conv2d(4, 2, 1)

    assert kinds(Odd()) == {
        "position": "other",
        "features.weight": "matrix",
        "features.bias": "bias",
        "head.weight": "classifier",
        "head.bias": "bias",
    }


def test_a_shared_weight_stands_once() -> None:
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    assert len(kinds_of_weights(nn.Sequential(first, second))) == 3


def test_no_layers() -> None:
    assert kinds_of_weights(nn.BatchNorm2d(2, affine=False)) == []
