"""The family of torchvision's classification models, with as many classes as the data have."""

from __future__ import annotations

import warnings
from typing import Any, Literal

from pydantic import field_validator
from torch import nn

from conviction.core.errors import ConfigError
from conviction.nets.block import NETWORKS, NetworkConfig
from conviction.nets.named import as_registered, torchvision_settings

_CHANNELS = 3


class TorchvisionConfig(NetworkConfig):
    """A classification model of torchvision."""

    name: Literal["torchvision"] = "torchvision"
    model: str

    @field_validator("model")
    @classmethod
    def _is_known(cls, model: str) -> str:
        return as_registered(model)


@NETWORKS.register(
    "torchvision",
    TorchvisionConfig,
    "A classification model of torchvision, with a head for the data's classes; `torchvision:NAME` for short",
    reference="https://pytorch.org/vision/stable/models.html#classification",
)
def _build_torchvision(config: NetworkConfig, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    assert isinstance(config, TorchvisionConfig)
    if input_shape[0] != _CHANNELS:
        raise ConfigError(
            f"network.model: {config.model} takes pictures of {_CHANNELS} channels, but these have {input_shape[0]}. "
            "Set data.color=rgb."
        )
    from conviction.nets.dispatch import compiler_left_out

    with compiler_left_out(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision import models

        network: nn.Module = models.get_model(
            config.model, weights=None, num_classes=num_classes, **_settings(config, input_shape)
        )
    _refuse_pictures_that_do_not_fit(network, input_shape)
    return network


def _settings(config: TorchvisionConfig, input_shape: tuple[int, int, int]) -> dict[str, Any]:
    settings = torchvision_settings(config.model)
    if config.model in ("googlenet", "inception_v3"):
        # The published weights of both expect pictures on [-1, 1], and the model itself brings them there.
        settings |= {"aux_logits": False, "transform_input": config.weights is not None}
    return settings


def _refuse_pictures_that_do_not_fit(network: nn.Module, input_shape: tuple[int, int, int]) -> None:
    """Raises: ConfigError that names the layer."""
    from conviction.nets.dispatch import compiler_left_out
    from conviction.nets.inspection import as_meta
    from conviction.nets.misfit import misfit
    from conviction.nets.trace import trace

    with compiler_left_out():
        on_meta = as_meta(network)
        found = trace(on_meta, input_shape)
        if found.fault is not None:
            layer = next((path for path in reversed(found.fault_path) if path), "") or "the network itself"
            raise misfit(on_meta, found, input_shape, layer) from found.fault
