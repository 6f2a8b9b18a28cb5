"""One flexible builder: blocks of convolutions and what goes with them, dense layers, a classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from conviction.core.config import Config
from conviction.core.errors import ConfigError
from conviction.core.registry import Registry
from conviction.nets.algebra import conv_output, pool_output
from conviction.nets.freezing import freeze
from conviction.nets.initialization import make_dirac, refuse_whitening
from conviction.nets.layer import (
    ACTIVATIONS,
    DENSE_NORMALIZATIONS,
    MAP_NORMALIZATIONS,
    ActivationName,
    DenseNormalizationName,
    NormalizationName,
    PoolingName,
)

Stage = Literal["convolution", "normalization", "activation", "pooling", "dropout"]
STAGES: tuple[Stage, ...] = ("convolution", "normalization", "activation", "pooling", "dropout")
Pixels = Annotated[int, Field(ge=1, le=4096)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Initialization = Literal["default", "dirac", "whitening"]
# Which normalisations have what may be set of them.
_NORMALIZATION_SETTINGS: dict[str, tuple[NormalizationName, ...]] = {
    "normalization_scale": ("batch", "layer"),
    "normalization_momentum": ("batch",),
    "normalization_epsilon": ("batch", "layer"),
}


class NetworkConfig(Config):
    """Base of the network families' settings: what a network begins with, and what of it stays as it is."""

    name: str
    weights: str | None = Field(
        None, description="A file of weights to begin with, .pth or .safetensors; null: weights are drawn"
    )
    weights_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = Field(
        None, description="The SHA-256 that the file must have; a run records it"
    )
    freeze: Annotated[int, Field(ge=1)] | Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="Layers that stay as they are: `all_but_head`, all up to the layer of this name, or a number of "
        "blocks",
    )


class PoolingConfig(Config):
    """A pooling window; `stride_px: null` takes the window's own size."""

    kind: PoolingName = "max"
    size_px: Pixels = 2
    stride_px: Pixels | None = None
    padding_px: int = Field(0, ge=0)
    ceil_mode: bool = Field(False, description="Let a last, partly filled window count")

    @model_validator(mode="after")
    def _padding_fits(self) -> PoolingConfig:
        if 2 * self.padding_px > self.size_px:
            raise ValueError(f"`2·padding_px <= size_px` must hold, but got {self.padding_px=}, {self.size_px=}.")
        return self


class BlockConfig(Config):
    """One block. Stages that are switched off (`none`, null, 0) are left out, whatever `order` says."""

    filters: int = Field(ge=1, le=65536)
    kernel_px: Pixels = 3
    stride_px: Pixels = 1
    padding_px: Annotated[int, Field(ge=0)] | Literal["same"] = Field(
        "same", description="same: the output has the input's size divided by the stride, rounded up"
    )
    bias: bool = True
    initialization: Initialization = Field(
        "default", description="dirac: the first filters pass their channel on; whitening: from training images"
    )
    whitening_epsilon: float = Field(5e-4, gt=0, description="Added to each variance that whitening divides by")
    frozen: bool = Field(False, description="The kernels stay as they were initialised; the bias still trains")
    bias_epochs: int | None = Field(None, ge=1, description="The bias trains in so many epochs; null: in all")
    normalization: NormalizationName = "none"
    normalization_scale: bool = Field(True, description="false: it shifts by a trained bias, and its scale stays 1")
    normalization_momentum: float = Field(
        0.1, gt=0, le=1, description="Share of each batch in batch normalisation's running statistics"
    )
    normalization_epsilon: float = Field(1e-5, gt=0, lt=1, description="Added to each variance that is divided by")
    activation: ActivationName = "relu"
    pooling: PoolingConfig | None = None
    dropout: Probability = 0.0
    order: tuple[Stage, ...] = STAGES

    @field_validator("order")
    @classmethod
    def _each_stage_once(cls, order: tuple[Stage, ...]) -> tuple[Stage, ...]:
        if sorted(order) != sorted(STAGES):
            raise ValueError(f"must name each of {', '.join(STAGES)} once, but got {', '.join(order)}.")
        return order

    @model_validator(mode="after")
    def _same_is_possible(self) -> BlockConfig:
        if self.padding_px == "same" and self.kernel_px % 2 == 0 and self.stride_px > 1:
            raise ValueError(
                f"`padding_px: same` needs an odd kernel or stride 1, but got {self.kernel_px=}, {self.stride_px=}."
            )
        return self

    @model_validator(mode="after")
    def _initialization_fits(self) -> BlockConfig:
        if self.initialization == "dirac" and self.kernel_px % 2 == 0:
            raise ValueError(f"`initialization: dirac` needs an odd kernel, but got kernel_px={self.kernel_px}.")
        if self.initialization == "whitening" and self.filters % 2:
            raise ValueError(
                "`initialization: whitening` needs an even number of filters, each with its negative, but got "
                f"filters={self.filters}."
            )
        if self.bias_epochs is not None and not self.bias:
            raise ValueError(f"`bias_epochs` needs `bias: true`, but got bias_epochs={self.bias_epochs}, bias=False.")
        return self

    @model_validator(mode="after")
    def _normalization_has_such_settings(self) -> BlockConfig:
        for key, kinds in _NORMALIZATION_SETTINGS.items():
            value = getattr(self, key)
            if self.normalization not in kinds and value != type(self).model_fields[key].default:
                shown = " or ".join(f"`{kind}`" for kind in kinds)
                raise ValueError(
                    f"`{key}` is a setting of `normalization`: {shown}, but got {key}={value}, "
                    f"normalization={self.normalization!r}."
                )
        return self


class DenseConfig(Config):
    """One fully connected layer, then normalisation, activation and dropout."""

    units: int = Field(ge=1, le=1_000_000)
    normalization: DenseNormalizationName = "none"
    activation: ActivationName = "relu"
    dropout: Probability = 0.0


class BlocksConfig(NetworkConfig):
    """Convolution blocks, an optional global pooling, dense layers, and a linear classifier."""

    name: Literal["blocks"] = "blocks"
    preset: str | None = Field(None, description="The preset that these settings began from")
    blocks: tuple[BlockConfig, ...] = ()
    global_pooling: Literal["none", "average", "max"] = "none"
    dense: tuple[DenseConfig, ...] = ()
    classifier_bias: bool = True
    logit_scale: float = Field(1.0, gt=0, description="The logits are multiplied by it")

    @model_validator(mode="after")
    def _whitening_sees_images(self) -> BlocksConfig:
        for number, block in enumerate(self.blocks):
            if block.initialization == "whitening" and (number or block.order[0] != "convolution"):
                raise ValueError(
                    "`initialization: whitening` is made from images, so that nothing may come before it: it needs "
                    f"the first block, its convolution first, but stands in blocks.{number}."
                )
        return self


class Scale(nn.Module):
    """Multiplication by one fixed number."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, values: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
        """Each value times the factor."""
        return values * self.factor

    def extra_repr(self) -> str:
        """The factor, as torch shows a layer."""
        return f"{self.factor:g}"


class BlockNetwork(nn.Module):
    """Logits from images: `blocks`, flattening, `dense`, `classifier`, and `scale` where the logits are scaled.

    `bias_epochs` says of biases, by their names, in how many epochs they train; `whitening_epsilon` is None unless the
    first convolution's kernels are to be made from images.
    """

    def __init__(self, blocks: nn.Sequential, dense: nn.Sequential, classifier: nn.Linear) -> None:
        super().__init__()
        self.blocks = blocks
        self.dense = dense
        self.classifier = classifier
        self.scale: Scale | None = None
        self.bias_epochs: dict[str, int] = {}
        self.whitening_epsilon: float | None = None

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K"]:
        """Logits, before any softmax."""
        logits: Tensor = self.classifier(self.dense(self.blocks(images).flatten(1)))
        return logits if self.scale is None else self.scale(logits)


NETWORKS: Registry[Callable[[NetworkConfig, tuple[int, int, int], int], nn.Module]] = Registry("network")


def build_network(config: NetworkConfig, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The network for images of `input_shape` (C, H, W), its weights drawn from torch's default generator.

    What the settings freeze is frozen; `weights` are not read: see `load_starting_weights`.

    Raises: ConfigError where the images are too small, or there is no such layer to freeze; it names the layer.
    """
    network = NETWORKS[config.name].build(config, input_shape, num_classes)
    if config.freeze is not None:
        freeze(network, config.freeze)
    return network


@NETWORKS.register("blocks", BlocksConfig, "Blocks of convolutions, dense layers, a classifier; all sizes free")
def _build_blocks(config: NetworkConfig, input_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    assert isinstance(config, BlocksConfig)
    shape = input_shape
    blocks: OrderedDict[str, nn.Module] = OrderedDict()
    for number, block in enumerate(config.blocks, start=1):
        blocks[f"block{number}"], shape = _build_block(block, shape, f"network.blocks.{number - 1}")
    if config.global_pooling == "average":
        blocks["global_pooling"], shape = nn.AdaptiveAvgPool2d(1), (shape[0], 1, 1)
    elif config.global_pooling == "max":
        blocks["global_pooling"], shape = nn.AdaptiveMaxPool2d(1), (shape[0], 1, 1)
    num_features = shape[0] * shape[1] * shape[2]
    dense: OrderedDict[str, nn.Module] = OrderedDict()
    for number, layer in enumerate(config.dense, start=1):
        dense[f"dense{number}"] = _build_dense(layer, num_features)
        num_features = layer.units
    classifier = nn.Linear(num_features, num_classes, bias=config.classifier_bias)
    network = BlockNetwork(nn.Sequential(blocks), nn.Sequential(dense), classifier)
    if config.logit_scale != 1:
        network.scale = Scale(config.logit_scale)
    for number, block in enumerate(config.blocks, start=1):
        if block.bias_epochs is not None:
            network.bias_epochs[f"blocks.block{number}.convolution.bias"] = block.bias_epochs
        if block.initialization == "whitening":
            network.whitening_epsilon = block.whitening_epsilon
    return network


def _build_block(
    config: BlockConfig, shape: tuple[int, int, int], path: str
) -> tuple[nn.Sequential, tuple[int, int, int]]:
    """The block for maps of `shape` (C, H, W), and the shape of what comes out of it."""
    stages: OrderedDict[str, nn.Module] = OrderedDict()
    for stage in config.order:
        channels, height, width = shape
        if stage == "convolution":
            if config.initialization == "whitening":
                refuse_whitening(config.filters, shape, config.kernel_px, path)
            stages.update(_convolution(config, channels))
            sides = [_convolved(config, side, path, shape) for side in (height, width)]
            shape = (config.filters, sides[0], sides[1])
        elif stage == "normalization" and config.normalization != "none":
            if config.normalization == "layer" and channels * height * width == 1:
                raise _too_small(path, "a layer normalisation of one number", shape)
            stages[stage] = _normalization(config, channels)
        elif stage == "activation" and config.activation != "none":
            stages[stage] = _activation(config.activation, may_overwrite=bool(stages.keys() - {"dropout"}))
        elif stage == "pooling" and config.pooling:
            stages[stage] = _pooling(config.pooling)
            sides = [_pooled(config.pooling, side, path, shape) for side in (height, width)]
            shape = (channels, sides[0], sides[1])
        elif stage == "dropout" and config.dropout:
            stages[stage] = nn.Dropout(config.dropout)
    return nn.Sequential(stages), shape


def _normalization(config: BlockConfig, num_channels: int) -> nn.Module:
    assert config.normalization != "none"
    layer = MAP_NORMALIZATIONS[config.normalization](num_channels)
    if isinstance(layer, nn.BatchNorm2d):
        layer.momentum = config.normalization_momentum
    if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm):
        layer.eps = config.normalization_epsilon
        layer.weight.requires_grad_(config.normalization_scale)
    return layer


def _activation(name: ActivationName, may_overwrite: bool) -> nn.Module:
    """In place only behind a layer of the same block.

    A block's input is not the block's to overwrite: it may be the images, or what another activation's gradient needs.
    """
    activation = ACTIVATIONS[name]()
    if hasattr(activation, "inplace"):
        activation.inplace = may_overwrite  # type: ignore[assignment]
    return activation


def _convolution(config: BlockConfig, in_channels: int) -> dict[str, nn.Module]:
    padding = _padding_px(config)
    convolution = nn.Conv2d(
        in_channels, config.filters, config.kernel_px, stride=config.stride_px, padding=padding or 0, bias=config.bias
    )
    if config.initialization == "dirac":
        make_dirac(convolution)
    convolution.weight.requires_grad_(not config.frozen)
    if padding is not None:
        return {"convolution": convolution}
    # As torch's own `padding="same"` does it, which warns at every even kernel.
    before_px = (config.kernel_px - 1) // 2
    after_px = config.kernel_px - 1 - before_px
    return {"padding": nn.ZeroPad2d((before_px, after_px, before_px, after_px)), "convolution": convolution}


def _padding_px(config: BlockConfig) -> int | None:
    """The padding on each side; None where an even kernel needs one more pixel on one side."""
    if config.padding_px != "same":
        return config.padding_px
    return config.kernel_px // 2 if config.kernel_px % 2 else None


def _convolved(config: BlockConfig, side_px: int, path: str, shape: tuple[int, int, int]) -> int:
    padding = _padding_px(config)
    if padding is None:
        return side_px
    try:
        return conv_output(side_px, config.kernel_px, config.stride_px, padding)
    except ConfigError:
        raise _too_small(path, f"a convolution of {config.kernel_px}×{config.kernel_px}", shape) from None


def _pooling(config: PoolingConfig) -> nn.Module:
    kind = nn.MaxPool2d if config.kind == "max" else nn.AvgPool2d
    return kind(
        config.size_px, config.stride_px or config.size_px, padding=config.padding_px, ceil_mode=config.ceil_mode
    )


def _pooled(config: PoolingConfig, side_px: int, path: str, shape: tuple[int, int, int]) -> int:
    stride_px = config.stride_px or config.size_px
    try:
        return pool_output(side_px, config.size_px, stride_px, config.padding_px, config.ceil_mode)
    except ConfigError:
        raise _too_small(path, f"a pooling of {config.size_px}×{config.size_px}", shape) from None


def _too_small(path: str, layer: str, shape: tuple[int, int, int]) -> ConfigError:
    return ConfigError(
        f"{path}: {layer} does not fit the {shape[1]}×{shape[2]} map that reaches it. Use larger pictures "
        "(data.image_size_px), fewer blocks, more padding, or less pooling."
    )


def _build_dense(config: DenseConfig, num_features: int) -> nn.Sequential:
    stages: OrderedDict[str, nn.Module] = OrderedDict(linear=nn.Linear(num_features, config.units))
    if config.normalization != "none":
        stages["normalization"] = DENSE_NORMALIZATIONS[config.normalization](config.units)
    if config.activation != "none":
        stages["activation"] = ACTIVATIONS[config.activation]()
    if config.dropout:
        stages["dropout"] = nn.Dropout(config.dropout)
    return nn.Sequential(stages)


def num_parameters(network: nn.Module) -> int:
    """All weights and biases, frozen ones too."""
    return sum(parameter.numel() for parameter in network.parameters())


def first_layer_filters(network: nn.Module, input_shape: tuple[int, int, int]) -> Float[Tensor, "F C h w"] | None:
    """The weights that look at the pixels: the first convolution's, or a first dense layer's laid out as images.

    None where the first layer is neither.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            return module.weight.detach().clone().float().cpu()
        if isinstance(module, nn.Linear):
            channels, height, width = input_shape
            if module.in_features != channels * height * width:
                return None
            return module.weight.detach().clone().float().cpu().reshape(-1, channels, height, width)
    return None
