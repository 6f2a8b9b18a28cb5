"""Layers that look beyond the images of one process: batch normalisation, and dropout's draws."""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.nn import functional

from conviction.core.errors import ConfigError
from conviction.data.stream import Place
from conviction.nets.dropout import BitDropout, dropped_by_bits, is_dense
from conviction.nets.freezing import is_frozen


class CurrentPlace:
    """Which images of a batch are this process's in the step that goes on; the trainer says so, layers ask."""

    now: Place


# Only these very layers are shared: what is derived from them may compute something else.
_SHARED_NORMS, _SHARED_DROPOUTS = (nn.BatchNorm1d, nn.BatchNorm2d), (nn.Dropout, BitDropout)
_NORMS = nn.modules.batchnorm._BatchNorm
_DROPOUTS = (nn.modules.dropout._DropoutNd, nn.RReLU)


def check_shareable(network: nn.Module) -> None:
    """Whether several processes can compute what one would. Raises: ConfigError."""
    for name, layer in network.named_modules():
        if is_frozen(layer):
            continue
        is_dropout = isinstance(layer, _DROPOUTS) and type(layer) not in _SHARED_DROPOUTS
        # Drawn inside torch's own function.
        is_attention = isinstance(layer, nn.MultiheadAttention) and layer.dropout > 0
        if is_dropout or is_attention or any(map(_is_stochastic_depth, type(layer).__mro__[1:])):
            raise _cannot_share("the draws", name, layer)
        if isinstance(layer, _NORMS) and not _is_shared_norm(layer):
            raise _cannot_share("the mean and variance", name, layer)


def _cannot_share(what: str, name: str, layer: nn.Module) -> ConfigError:
    kind, known = type(layer), (*_SHARED_NORMS, nn.Dropout)
    shown = kind.__name__
    if kind in _SHARED_NORMS:
        shown += " without a scale or without running statistics"
    elif derived := [base.__name__ for base in known if isinstance(layer, base)]:
        shown += f", derived from {derived[0]}"
    return ConfigError(f"Several processes cannot share {what} of {name} ({shown}). Train on one process.")


def share_layers(network: nn.Module, place: CurrentPlace) -> None:
    """Replace each layer that needs the whole batch; names, weights and buffers stay."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            # Frozen ones compute as in evaluation, where each image is by itself.
            if is_frozen(layer):
                continue
            if _is_shared_norm(layer):
                setattr(parent, name, SharedBatchNorm(layer, place))
            elif isinstance(layer, nn.Dropout) and type(layer) in _SHARED_DROPOUTS:
                setattr(parent, name, SharedDropout(layer, place))
            elif _is_stochastic_depth(type(layer)) and layer.mode == "row":
                setattr(parent, name, SharedStochasticDepth(layer, place))


def _is_shared_norm(layer: nn.Module) -> TypeGuard[nn.BatchNorm1d | nn.BatchNorm2d]:
    # One without scale and shift, or without running statistics, is no part of any network that a recipe names.
    return type(layer) in _SHARED_NORMS and bool(layer.affine and layer.track_running_stats)


def _is_stochastic_depth(kind: type) -> bool:
    # By its name: to import it would load torch's compiler, for seconds, in trainings that have no such layer.
    return f"{kind.__module__}.{kind.__name__}" == "torchvision.ops.stochastic_depth.StochasticDepth"


class SharedDropout(nn.Module):
    """Dropout that draws for the whole batch, and takes its own images' part of it.

    On the CPU these are the draws of a single process; a GPU's own dropout draws otherwise.
    """

    def __init__(self, dropout: nn.Dropout, place: CurrentPlace) -> None:
        super().__init__()
        self.p = dropout.p
        self._by_bits = isinstance(dropout, BitDropout)
        self.training = dropout.training
        self._place = place

    def forward(self, values: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The values, or in training those that are kept, enlarged by as much as is dropped."""
        if not self.training or self.p == 0:
            return values
        place = self._place.now
        if self._by_bits and values.device.type == "cpu" and self.p < 1 and _is_dense(values):
            return dropped_by_bits(values, self.p, place.num_images, place.part)
        # As torch draws it, in the values' own memory layout, of which the batch is the outermost part; of values that
        # lie apart, in what torch makes of their layout.
        outermost = sum(size * stride for size, stride in zip(values.shape[1:], values.stride()[1:], strict=True))
        whole = torch.empty_strided(
            (place.num_images, *values.shape[1:]), (outermost, *values.stride()[1:]), device="meta"
        )
        noise = values.new_empty_strided(whole.shape, torch.empty_like(whole).stride())
        return values * noise.bernoulli_(1 - self.p).div_(1 - self.p)[place.part]


def _is_dense(values: Tensor) -> bool:
    """Whether the whole batch's numbers lie side by side, however few images of it these are."""
    return is_dense(torch.empty_strided((2, *values.shape[1:]), values.stride(), device="meta"))


class SharedStochasticDepth(nn.Module):
    """Stochastic depth that draws for the whole batch, and takes its own images' part of it.

    G. Huang et al., Deep networks with stochastic depth, 2016. On the CPU these are the draws of a single process.
    """

    def __init__(self, layer: nn.Module, place: CurrentPlace) -> None:
        super().__init__()
        self.p = float(layer.p)  # type: ignore[arg-type]
        self.training = layer.training
        self._place = place

    def forward(self, values: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The values, or in training those of the images that are kept, enlarged by as much as is dropped."""
        if not self.training or self.p == 0:
            return values
        place, survival = self._place.now, 1 - self.p
        noise = values.new_empty((place.num_images, *(1 for _ in values.shape[1:]))).bernoulli_(survival)
        return values * (noise.div_(survival) if survival > 0 else noise)[place.part]


class SharedBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation by the mean and variance over the images of all processes.

    torch's own `SyncBatchNorm` refuses tensors on the CPU.
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, norm: nn.BatchNorm1d | nn.BatchNorm2d, place: CurrentPlace) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        assert norm.affine
        assert norm.track_running_stats
        self.weight, self.bias = norm.weight, norm.bias
        for name, buffer in norm.named_buffers():
            setattr(self, name, buffer)
        self.train(norm.training)
        self._place = place

    def _check_input_dim(self, input: Tensor) -> None:
        """Of any number of dimensions."""

    def forward(self, values: Float[Tensor, "B C ..."]) -> Float[Tensor, "B C ..."]:
        """Each channel with mean 0 and variance 1 over the batch, then scaled and shifted."""
        if not self.training:
            return super().forward(values)
        count = self._place.now.num_images * values.shape[2:].numel()
        if count == 1:
            # torch's words, which the run turns into a message that names the setting.
            raise ValueError("Expected more than 1 value per channel when training")
        normalized: Tensor
        normalized, mean_C, var_C = _Normalize.apply(values, self.weight, self.bias, self.eps, count)
        self.num_batches_tracked.add_(1)
        rate = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        with torch.no_grad():
            self.running_mean.lerp_(mean_C, rate)
            self.running_var.lerp_(var_C * (count / (count - 1)), rate)
        return normalized


class _Normalize(torch.autograd.Function):
    """Normalised values, and the mean and the variance that they rest on, of `count` values a channel.

    With n values of a channel in all processes, x̂ the normalised ones and g the gradient of the output,
    dx = weight / deviation · (g − Σg / n − x̂ · Σ(g·x̂) / n), the sums over all processes.
    S. Ioffe and C. Szegedy, Batch normalization, 2015, section 3.
    """

    @staticmethod
    def forward(
        context: Any, values: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float, count: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        mean_C, var_C = _moments_over_all(values)
        context.save_for_backward(values, weight_C, mean_C, var_C)
        context.mark_non_differentiable(mean_C, var_C)
        context.eps, context.count = eps, count
        # As in evaluation: by moments that are given.
        normalized = functional.batch_norm(values, mean_C, var_C, weight_C, bias_C, False, 0.0, eps)
        return normalized, mean_C, var_C

    @staticmethod
    def backward(context: Any, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor, None, None]:
        values, weight_C, mean_C, var_C = context.saved_tensors
        fixed, eps = (mean_C, var_C, None, None, False), context.eps
        if len(values):
            # The first term of dx, Σ(g·x̂) and Σg.
            grad_values, slope_C, shift_C = torch.ops.aten.native_batch_norm_backward(
                grad, values, weight_C, *fixed, eps, [True, True, True]
            )
        else:
            grad_values, slope_C, shift_C = grad, torch.zeros_like(weight_C), torch.zeros_like(weight_C)
        sums_2C = torch.stack([slope_C, shift_C])
        distributed.all_reduce(sums_2C)
        channels = (1, -1, *(1 for _ in values.shape[2:]))
        scale_C = (var_C + eps).rsqrt()
        slope, shift = ((sums_2C / context.count) * scale_C * weight_C).view(2, *channels)
        change = torch.addcmul(shift, values - mean_C.view(channels), slope * scale_C.view(channels))
        return (grad_values - change).to(values.dtype), slope_C, shift_C, None, None


def _moments_over_all(values: Tensor) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
    """Mean and variance of each channel, over all processes.

    T. Chan et al., Updating formulae and a pairwise algorithm for computing sample variances, 1979.
    """
    num_channels = values.shape[1]
    own = torch.zeros(3, num_channels, dtype=torch.float64, device=values.device)
    exact = torch.promote_types(values.dtype, torch.float32)
    if len(values):
        zeros = torch.zeros(num_channels, dtype=exact, device=values.device)
        # Given float32 to change, though by nothing, torch computes in it where the values are bfloat16.
        mean_C, var_C = torch.batch_norm_update_stats(values, zeros, zeros.clone(), 0.0)
        own[0], own[1], own[2] = values.numel() // num_channels, mean_C, var_C
    of_all = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    distributed.all_gather(of_all, own)
    count_PC, mean_PC, var_PC = torch.stack(of_all, dim=1)
    count_C = count_PC.sum(dim=0)
    mean_C = (count_PC * mean_PC).sum(dim=0) / count_C
    var_C = (count_PC * (var_PC + (mean_PC - mean_C) ** 2)).sum(dim=0) / count_C
    return mean_C.to(exact), var_C.to(exact)
