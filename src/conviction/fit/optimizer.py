"""The optimisers of torch.optim that make sense for training a classifier in mini-batches.

Left out: LBFGS and Rprop (full batches), SparseAdam (sparse gradients), ASGD (its averaged weights are not those that
torch leaves in the network). Muon is our own, as torch's takes matrices alone and needs a second optimiser beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn
from torch.optim import Optimizer

from conviction.core.config import Config
from conviction.core.device import PrecisionName
from conviction.core.registry import Registry
from conviction.fit.lookahead import LookaheadConfig
from conviction.fit.muon import Muon, RateAdjustment
from conviction.fit.plain_optimizer import plain_construction, step
from conviction.fit.weight_kind import WeightKind, kinds_of_weights

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
Epsilon = Annotated[float, Field(gt=0)]


class OptimizerConfig(Config):
    """Settings that every optimiser shares."""

    name: str
    learning_rate: Rate = 0.001
    weight_decay: float = Field(0.0, ge=0)
    decay_biases_and_norms: bool = Field(
        True, description="false: weight decay spares biases and the weights of normalisations"
    )
    bias_rate: Rate = Field(1.0, description="Times the rate for biases of layers, whose decay is divided by it")
    norm_bias_rate: Rate = Field(
        1.0, description="Times the rate for biases of normalisations, whose decay is divided by it"
    )
    lookahead: LookaheadConfig | None = Field(None, description="Slow weights that follow, from which it starts again")

    def settings_for(self, kind: WeightKind) -> dict[str, Any]:
        """The rate and decay of such weights; where the rate is multiplied, a step still decays them as others."""
        return self._scaled(kind, self.learning_rate, self.weight_decay)

    def _scaled(self, kind: WeightKind, rate: float, decay: float) -> dict[str, Any]:
        factor = {"bias": self.bias_rate, "norm_bias": self.norm_bias_rate}.get(kind, 1.0)
        if kind in ("bias", "norm_scale", "norm_bias") and not self.decay_biases_and_norms:
            decay = 0.0
        return {"lr": rate * factor, "weight_decay": decay / factor}


class SgdConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Rate = 0.1
    momentum: Decay = 0.9
    nesterov: bool = False

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> SgdConfig:
        if self.nesterov and self.momentum == 0:
            raise ValueError("`momentum > 0` must hold where nesterov is true, but got momentum=0.0.")
        return self


class _BetasConfig(OptimizerConfig):
    beta1: Beta = 0.9
    beta2: Beta = 0.999
    epsilon: Epsilon = 1e-8


class AdamConfig(_BetasConfig):
    """Adam; its weight decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    amsgrad: bool = False


class AdamWConfig(_BetasConfig):
    """Adam with decoupled weight decay."""

    name: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    amsgrad: bool = False


class NAdamConfig(_BetasConfig):
    """Adam with Nesterov momentum."""

    name: Literal["nadam"] = "nadam"
    decoupled_weight_decay: bool = False


class RAdamConfig(_BetasConfig):
    """Adam with a rectified variance at the start."""

    name: Literal["radam"] = "radam"
    decoupled_weight_decay: bool = False


class AdamaxConfig(_BetasConfig):
    """Adam with the infinity norm."""

    name: Literal["adamax"] = "adamax"
    learning_rate: Rate = 0.002


class RmspropConfig(OptimizerConfig):
    """Gradients divided by a moving root mean square."""

    name: Literal["rmsprop"] = "rmsprop"
    alpha: Beta = 0.99
    epsilon: Epsilon = 1e-8
    momentum: Decay = 0.0
    centered: bool = False


class AdagradConfig(OptimizerConfig):
    """Gradients divided by the root of the sum of all their squares."""

    name: Literal["adagrad"] = "adagrad"
    learning_rate: Rate = 0.01
    epsilon: Epsilon = 1e-10


class AdadeltaConfig(OptimizerConfig):
    """Adagrad with a window, and steps in the units of the weights."""

    name: Literal["adadelta"] = "adadelta"
    learning_rate: Rate = 1.0
    rho: Beta = 0.9
    epsilon: Epsilon = 1e-6


class AdafactorConfig(OptimizerConfig):
    """Adam with the second moments of a matrix kept as row and column sums; steps relative to the weights' size."""

    name: Literal["adafactor"] = "adafactor"
    learning_rate: Rate = 0.01
    beta2_decay: float = Field(-0.8, ge=-1, lt=0)
    epsilon: Epsilon = Field(1e-3, description="The least size of a weight that a step is relative to")
    clip_threshold: float = Field(1.0, ge=1, description="Most root mean square of a step")


class MuonConfig(OptimizerConfig):
    """Kernels and matrices by orthogonal momentum; the classifier, biases and normalisations by SGD (Nesterov)."""

    name: Literal["muon"] = "muon"
    learning_rate: Rate = 0.02
    momentum: Decay = 0.95
    nesterov: bool = True
    num_steps: int = Field(5, ge=1, le=20, description="Newton–Schulz iterations of each step")
    rate_adjustment: RateAdjustment = Field(
        "original", description="Times √max(1, rows / columns); match_rms_adamw: times 0.2·√max(rows, columns)"
    )
    normalize_weights: bool = Field(
        False, description="Before each step, bring each layer's kernels to the norm √filters"
    )
    precision: PrecisionName = Field("auto", description="In which the iterations compute; auto: as the training")
    rest_learning_rate: Rate = Field(0.1, description="Rate of what is no matrix, and of the classifier")
    rest_weight_decay: float = Field(0.0, ge=0, description="Its weight decay, added to the gradient")
    rest_momentum: Decay = Field(0.9, description="Its momentum")

    def settings_for(self, kind: WeightKind) -> dict[str, Any]:
        """Orthogonal steps for matrices, SGD's for all else."""
        if kind == "matrix":
            return {
                **self._scaled(kind, self.learning_rate, self.weight_decay),
                "rate_adjustment": self.rate_adjustment,
                "normalize_weights": self.normalize_weights,
            }
        rest = self._scaled(kind, self.rest_learning_rate, self.rest_weight_decay)
        is_nesterov = self.rest_momentum > 0
        return {**rest, "momentum": self.rest_momentum, "nesterov": is_nesterov, "orthogonal": False}


OPTIMIZERS: Registry[Callable[[Any, list[dict[str, Any]]], Optimizer]] = Registry("optimizer")


def build_optimizer(
    config: OptimizerConfig, network: nn.Module, precision: Literal["float32", "bfloat16"] = "float32"
) -> Optimizer:
    """The optimiser over the network's trainable weights, in a group for each set of rates and decays.

    The first group is that of the kernels, or where none train, of the first weights; its rate is shown. `precision` is
    that of the training, in which Muon iterates unless its own settings say otherwise.
    """
    if isinstance(config, MuonConfig) and config.precision == "auto":
        config = config.model_copy(update={"precision": precision})
    weights = kinds_of_weights(network)
    shown: WeightKind = "matrix" if not weights or "matrix" in (kind for _, kind in weights) else weights[0][1]
    groups: list[dict[str, Any]] = [{"params": [], **config.settings_for(shown)}]
    for parameter, kind in weights:
        settings = config.settings_for(kind)
        group = next((group for group in groups if {**group, "params": None} == {"params": None, **settings}), None)
        if group is None:
            group = {"params": [], **settings}
            groups.append(group)
        group["params"].append(parameter)
    with plain_construction():
        return OPTIMIZERS[config.name].build(config, groups)


def _betas(config: _BetasConfig) -> dict[str, Any]:
    return {**_shared(config), "betas": (config.beta1, config.beta2), "eps": config.epsilon}


def _shared(config: OptimizerConfig) -> dict[str, Any]:
    return {"lr": config.learning_rate, "weight_decay": config.weight_decay}


@OPTIMIZERS.register("sgd", SgdConfig, "Stochastic gradient descent with momentum, Nesterov's where wanted")
def _sgd(config: SgdConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.SGD(groups, **_shared(config), momentum=config.momentum, nesterov=config.nesterov, fused=True)


@OPTIMIZERS.register("adam", AdamConfig, "Adam", reference="D. Kingma, J. Ba, Adam, 2014")
def _adam(config: AdamConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adam(groups, **_betas(config), amsgrad=config.amsgrad, fused=True)


@OPTIMIZERS.register(
    "adamw",
    AdamWConfig,
    "Adam with decoupled weight decay",
    reference="I. Loshchilov, F. Hutter, Decoupled weight decay regularization, 2017",
)
def _adamw(config: AdamWConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.AdamW(groups, **_betas(config), amsgrad=config.amsgrad, fused=True)


@OPTIMIZERS.register(
    "nadam",
    NAdamConfig,
    "Adam with Nesterov momentum",
    reference="T. Dozat, Incorporating Nesterov momentum into Adam, 2016",
)
def _nadam(config: NAdamConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.NAdam(groups, **_betas(config), decoupled_weight_decay=config.decoupled_weight_decay)


@OPTIMIZERS.register(
    "radam",
    RAdamConfig,
    "Adam with a rectified variance at the start",
    reference="L. Liu et al., On the variance of the adaptive learning rate and beyond, 2019",
)
def _radam(config: RAdamConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.RAdam(groups, **_betas(config), decoupled_weight_decay=config.decoupled_weight_decay)


@OPTIMIZERS.register("adamax", AdamaxConfig, "Adam with the infinity norm", reference="D. Kingma, J. Ba, Adam, 2014")
def _adamax(config: AdamaxConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adamax(groups, **_betas(config))


@OPTIMIZERS.register(
    "rmsprop",
    RmspropConfig,
    "Gradients divided by a moving root mean square",
    reference="T. Tieleman, G. Hinton, Neural networks for machine learning, lecture 6.5, 2012",
)
def _rmsprop(config: RmspropConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.RMSprop(
        groups,
        **_shared(config),
        alpha=config.alpha,
        eps=config.epsilon,
        momentum=config.momentum,
        centered=config.centered,
    )


@OPTIMIZERS.register(
    "adagrad",
    AdagradConfig,
    "Gradients divided by the root of the sum of their squares",
    reference="J. Duchi et al., Adaptive subgradient methods, 2011",
)
def _adagrad(config: AdagradConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adagrad(groups, **_shared(config), eps=config.epsilon)


@OPTIMIZERS.register(
    "adadelta",
    AdadeltaConfig,
    "Adagrad with a window, and steps in the units of the weights",
    reference="M. Zeiler, ADADELTA, 2012",
)
def _adadelta(config: AdadeltaConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adadelta(groups, **_shared(config), rho=config.rho, eps=config.epsilon)


@OPTIMIZERS.register(
    "adafactor",
    AdafactorConfig,
    "Adam with factored second moments, which need little memory",
    reference="N. Shazeer, M. Stern, Adafactor, 2018",
)
def _adafactor(config: AdafactorConfig, groups: list[dict[str, Any]]) -> Optimizer:
    return torch.optim.Adafactor(
        groups,
        **_shared(config),
        beta2_decay=config.beta2_decay,
        eps=(None, config.epsilon),
        d=config.clip_threshold,
    )


@OPTIMIZERS.register(
    "muon",
    MuonConfig,
    "Kernels and matrices by orthogonal momentum, all else by SGD",
    reference="K. Jordan, Muon: An optimizer for hidden layers in neural networks, 2024",
)
def _muon(config: MuonConfig, groups: list[dict[str, Any]]) -> Optimizer:
    dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
    return Muon(groups, config.momentum, config.nesterov, config.num_steps, dtype)


def numbers_remembered(config: OptimizerConfig) -> float:
    """How many numbers an optimiser keeps for each that it trains: 1 for SGD with momentum, 2 for Adam.

    Found by letting it take one step on a layer; Adafactor keeps rows and columns, so that for it this is about right.
    """
    layer = nn.Linear(64, 64, bias=False)
    optimizer = build_optimizer(config, layer)
    layer.weight.grad = torch.ones_like(layer.weight)
    step(optimizer)
    tensors = [value for value in optimizer.state[layer.weight].values() if isinstance(value, torch.Tensor)]
    # A counter of steps is one number, however large the layer.
    return sum(tensor.numel() for tensor in tensors if tensor.numel() > 1) / layer.weight.numel()
