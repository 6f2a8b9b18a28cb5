"""Smaller pictures in the first epochs: a step on 24 pixels takes about half as long as one on 32."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional

from conviction.core.config import Config
from conviction.core.errors import ConfigError
from conviction.data.stream import Batch, in_memory_format


class SizeStep(Config):
    """So many epochs with pictures of this size; they are seen whole."""

    epochs: int = Field(ge=1, le=100_000)
    size_px: int = Field(ge=1, le=65536, description="The shorter side")


def size_in_epoch(steps: Sequence[SizeStep], epoch: int) -> int | None:
    """The shorter side in pixels in an epoch (the first is 1); None where pictures have their own size."""
    last = 0
    for step in steps:
        last += step.epochs
        if epoch <= last:
            return step.size_px
    return None


def shrunk(batch: Batch, size_px: int | None) -> Batch:
    """The batch with pictures whose shorter side is `size_px`, bilinearly interpolated with anti-aliasing."""
    if size_px is None:
        return batch
    images = functional.interpolate(
        batch.images, _scaled(batch.images.shape[2:], size_px), mode="bilinear", antialias=True
    )
    # Interpolating does not keep the memory format of every picture.
    memory_format = torch.channels_last if batch.images.stride(1) == 1 else torch.contiguous_format
    return replace(batch, images=in_memory_format(images, memory_format))


def check_sizes(network: nn.Module, input_shape: tuple[int, int, int], steps: Sequence[SizeStep]) -> None:
    """Whether the network takes pictures of all sizes. Raises: ConfigError where it does not."""
    for number, step in enumerate(steps):
        shorter = min(input_shape[1:])
        where = f"fit.progressive_sizes.{number}.size_px"
        if step.size_px > shorter:
            raise ConfigError(f"`{where} <= {shorter}`, the pictures' shorter side, must hold, but got {step.size_px}.")
        size = _scaled(input_shape[1:], step.size_px)
        parameter = next(network.parameters())
        was_training = network.training
        try:
            with torch.inference_mode():
                network.eval()(torch.zeros((1, input_shape[0], *size), device=parameter.device))
        except RuntimeError as error:
            raise ConfigError(
                f"{where}: the network does not take pictures of {size[0]}×{size[1]}. One whose last maps are pooled "
                "as a whole does (network.global_pooling), if they are large enough."
            ) from error
        finally:
            network.train(was_training)


def _scaled(sides: Sequence[int], size_px: int) -> tuple[int, int]:
    height, width = (max(1, round(side * size_px / min(sides))) for side in sides)
    return height, width
