"""The kinds of layers that a recipe may name: activations, normalisations, poolings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

from torch import nn

ActivationName = Literal["none", "relu", "leaky_relu", "elu", "gelu", "silu", "mish", "tanh", "sigmoid"]
NormalizationName = Literal["none", "batch", "layer", "local_response"]
DenseNormalizationName = Literal["none", "batch", "layer"]
PoolingName = Literal["max", "average"]

ACTIVATIONS: dict[ActivationName, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
    "mish": lambda: nn.Mish(inplace=True),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
}

# `layer` over a map is group normalisation with one group; `local_response` is that of Krizhevsky et al., 2012.
MAP_NORMALIZATIONS: dict[NormalizationName, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm2d,
    "layer": lambda num_channels: nn.GroupNorm(1, num_channels),
    "local_response": lambda num_channels: nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75, k=2.0),
}

DENSE_NORMALIZATIONS: dict[DenseNormalizationName, Callable[[int], nn.Module]] = {
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
}

assert {"none", *ACTIVATIONS} == set(get_args(ActivationName))
assert {"none", *MAP_NORMALIZATIONS} == set(get_args(NormalizationName))
assert {"none", *DENSE_NORMALIZATIONS} == set(get_args(DenseNormalizationName))
