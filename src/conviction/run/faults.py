"""What torch says when a machine or a setting is too small, in words that name the setting."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from conviction.core.errors import ConfigError, ConvictionError, OutOfMemory
from conviction.run.recipe import Recipe


@contextmanager
def training_faults(recipe: Recipe) -> Iterator[None]:
    """Turn what torch raises where the machine or the settings are too small into a ConvictionError.

    Raises: OutOfMemory, ConfigError.
    """
    try:
        yield
    except ConvictionError:
        raise
    except ValueError as error:
        # torch's words: batch normalisation has no deviation of a single value.
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            "`fit.batch_size >= 2` must hold where batch normalisation sees one value a channel and picture, but got "
            f"fit.batch_size={recipe.fit.batch_size}."
        ) from error
    except (RuntimeError, MemoryError) as error:
        fault = memory_fault(error, recipe)
        if fault is None:
            raise
        raise fault from error


def memory_fault(error: BaseException, recipe: Recipe) -> OutOfMemory | None:
    """What to say where the machine's memory is used up; None where `error` is something else."""
    text = str(error)
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in text for sign in ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc")
    )
    if not is_memory:
        return None
    half = math.ceil(recipe.fit.batch_size / 2)
    return OutOfMemory(
        f"The memory is used up. Lower fit.batch_size (now {recipe.fit.batch_size}; try --set fit.batch_size={half}), "
        "data.image_size_px, or the network's filters."
    )
