"""What a weight is in its network: the optimiser may treat kernels, biases and normalisations differently."""

from __future__ import annotations

from typing import Literal

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

WeightKind = Literal["matrix", "classifier", "other", "bias", "norm_scale", "norm_bias"]
_NORMALIZATIONS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm, nn.InstanceNorm2d, nn.RMSNorm)


def kinds_of_weights(network: nn.Module) -> list[tuple[nn.Parameter, WeightKind]]:
    """The trainable weights in the network's order, each once.

    `matrix` are the kernels of convolutions and the matrices of linear layers; the last layer's is `classifier`
    instead. `bias` are all vectors beside those of normalisations, `other` whatever else there is, as embeddings.
    """
    owners = {parameter: module for module in network.modules() for parameter in module.parameters(recurse=False)}
    layers = [module for module in network.modules() if isinstance(module, nn.Linear | _ConvNd)]
    last = layers[-1] if layers else None
    found: list[tuple[nn.Parameter, WeightKind]] = []
    for name, parameter in network.named_parameters():
        if not parameter.requires_grad:
            continue
        owner = owners[parameter]
        if isinstance(owner, _NORMALIZATIONS):
            found.append((parameter, "norm_bias" if name.rpartition(".")[2] == "bias" else "norm_scale"))
        elif parameter.ndim <= 1:
            found.append((parameter, "bias"))
        elif isinstance(owner, nn.Linear | _ConvNd):
            found.append((parameter, "classifier" if owner is last else "matrix"))
        else:
            found.append((parameter, "other"))
    return found
