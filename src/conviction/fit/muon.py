"""Muon: steps along momentum whose matrices were made orthogonal; what is no matrix steps by SGD beside it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim import Optimizer

RateAdjustment = Literal["none", "original", "match_rms_adamw"]
# K. Jordan, Muon: An optimizer for hidden layers in neural networks, 2024: the slope at zero as steep as it may be.
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_LEAST_NORM = 1e-7


class Muon(Optimizer):
    """One optimiser for two kinds of groups: `orthogonal: True` for matrices and kernels, False for all else.

    Kernels (filters, C, h, w) are matrices (filters, C·h·w). Decay is decoupled for the first kind and added to the
    gradient for the second, each as torch's Muon and SGD have it.
    """

    def __init__(
        self, groups: list[dict[str, Any]], momentum: float, nesterov: bool, num_steps: int, dtype: torch.dtype
    ) -> None:
        # Names and numbers alone: a checkpoint keeps the groups as JSON, so that a resumed run rounds alike.
        defaults = {
            "orthogonal": True,
            "weight_decay": 0.0,
            "momentum": momentum,
            "nesterov": nesterov,
            "num_steps": num_steps,
            "rate_adjustment": "original",
            "normalize_weights": False,
            "dtype": str(dtype).removeprefix("torch."),
        }
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step on the gradients at hand."""
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._step_one(weight, weight.grad, group)

    def _step_one(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        buffer, momentum = state["momentum_buffer"], group["momentum"]
        if not group["orthogonal"]:
            gradient = gradient.add(weight, alpha=group["weight_decay"])
            buffer.mul_(momentum).add_(gradient)
            weight.add_(gradient.add(buffer, alpha=momentum) if group["nesterov"] else buffer, alpha=-group["lr"])
            return
        # A mean instead of a sum, as torch has it: the scale goes with the orthogonalisation.
        buffer.lerp_(gradient, 1 - momentum)
        matrix = (gradient.lerp(buffer, momentum) if group["nesterov"] else buffer).flatten(1)
        direction = orthogonalized(matrix, group["num_steps"], getattr(torch, group["dtype"]))
        if group["normalize_weights"]:
            weight.mul_(len(weight) ** 0.5 / weight.norm().clamp(min=_LEAST_NORM))
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        rate = group["lr"] * _rate_factor(group["rate_adjustment"], matrix.shape)
        weight.add_(direction.reshape(weight.shape), alpha=-rate)


def orthogonalized(
    matrix: Float[Tensor, "N M"], num_steps: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, "N M"]:
    """The matrix with its singular values moved to between about 0.7 and 1.2: nearly U·Vᵀ of its decomposition.

    Newton–Schulz iterations of the fifth degree, computed in `dtype`: `X ← aX + (bA + cA²)X` with `A = X·Xᵀ`.
    Source: K. Jordan, Muon: An optimizer for hidden layers in neural networks, 2024.
    """
    a, b, c = _COEFFICIENTS
    is_tall = matrix.shape[0] > matrix.shape[1]
    # The products are of the shorter side's square.
    x = (matrix.mT if is_tall else matrix).to(dtype, copy=True)
    x /= x.norm().clamp(min=_LEAST_NORM)
    for _ in range(num_steps):
        gram = x @ x.mT
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if is_tall else x).to(matrix.dtype)


def _rate_factor(adjustment: RateAdjustment, shape: torch.Size) -> float:
    rows, columns = shape
    if adjustment == "original":
        return math.sqrt(max(1.0, rows / columns))
    if adjustment == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return 1.0
