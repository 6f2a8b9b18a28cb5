"""Lookahead: slow weights follow the optimiser's fast ones, which start again from them every few steps."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from conviction.core.config import Config


class LookaheadConfig(Config):
    """slow ← d·slow + (1 − d)·fast every so many steps, then fast ← slow; d = decay · (share of the steps done)^power.

    The end of an epoch counts as such a step. Running statistics stay those of the batches.

    Source: M. Zhang et al., Lookahead optimizer: k steps forward, 1 step back, 2019.
    """

    every_steps: int = Field(5, ge=1, description="Steps of the optimiser between two of the slow weights")
    decay: float = Field(0.5, ge=0, lt=1, description="Share of the slow weights that stays")
    decay_power: float = Field(0.0, ge=0, description="The decay grows with the share of steps done, to this power")
    start_epochs: int = Field(0, ge=0, description="Epochs before it begins")


class Lookahead:
    """The slow weights.

    Every epoch that it takes part in begins and ends with the slow weights in the network. So a checkpoint, which is
    written between epochs, holds them already, and resuming needs nothing more. Running statistics are left to the
    batches: averaged like the weights, they would lag behind the weights by more than an epoch.
    """

    def __init__(self, config: LookaheadConfig, network: nn.Module, num_steps: int) -> None:
        self._config = config
        self._network = network
        self._num_steps = num_steps
        self._slow: list[Tensor] | None = None
        self._step = 0
        self._is_ahead = False

    @torch.no_grad()
    def begin_epoch(self, epoch: int) -> None:
        """Take the network's weights for the slow ones, unless this epoch, counted from 1, comes too early."""
        self._slow = [fast.clone() for fast in self._fast()] if epoch > self._config.start_epochs else None

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Once `step` steps of the whole training are done."""
        self._step, self._is_ahead = step, True
        if step % self._config.every_steps == 0:
            self._follow()

    @torch.no_grad()
    def end_epoch(self) -> None:
        """Let the slow weights follow the steps since they last did, and leave them in the network."""
        if self._is_ahead:
            self._follow()
        self._slow = None

    def _follow(self) -> None:
        if self._slow is None:
            return
        stays = self._config.decay * (self._step / self._num_steps) ** self._config.decay_power
        for slow, fast in zip(self._slow, self._fast(), strict=True):
            slow.lerp_(fast, 1 - stays)
            fast.copy_(slow)
        self._is_ahead = False

    def _fast(self) -> list[Tensor]:
        return list(self._network.parameters())
