"""What training minimises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor, nn

from conviction.core.config import Config
from conviction.core.registry import Registry

# Of logits, and of labels or of shares of classes.
Loss = Callable[[Float[Tensor, "B K"], Int64[Tensor, " B"] | Float[Tensor, "B K"]], Float[Tensor, ""]]


class LossConfig(Config):
    """Base of the losses' settings."""

    name: str


class CrossEntropyConfig(LossConfig):
    """Cross-entropy in nats against (1 − s)·label + s / K."""

    name: Literal["cross_entropy"] = "cross_entropy"
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="s: the share spread evenly over all K classes")


LOSSES: Registry[Callable[[LossConfig], Loss]] = Registry("loss")


def build_loss(config: LossConfig) -> Loss:
    """The mean loss over a batch."""
    return LOSSES[config.name].build(config)


@LOSSES.register(
    "cross_entropy",
    CrossEntropyConfig,
    "Cross-entropy, with label smoothing where wanted",
    reference="C. Szegedy et al., Rethinking the Inception architecture, 2015, section 7 (label smoothing)",
)
def _cross_entropy(config: LossConfig) -> Loss:
    assert isinstance(config, CrossEntropyConfig)
    return nn.CrossEntropyLoss(label_smoothing=config.label_smoothing)
