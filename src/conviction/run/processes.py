"""How many processes share a training: what was asked for, and what this machine and the recipe allow."""

from __future__ import annotations

import torch
from torch import distributed, nn

from conviction.core.device import num_cores
from conviction.core.errors import ConfigError, InstallationError
from conviction.fit.shared_layers import check_shareable
from conviction.run.prepared import Machine, Prepared
from conviction.run.recipe import Recipe

# The only text that means a number is `auto`.
NumProcesses = int | str


def choose_num_processes(wanted: NumProcesses, machine: Machine, recipe: Recipe) -> int:
    """`auto` is one for each GPU, and one where there is none.

    Raises: ConfigError where it is no number of processes, there are fewer GPUs, or the recipe needs a single one;
    InstallationError.
    """
    is_on_gpus = machine.device.type == "cuda"
    is_compiled = recipe.fit.compile not in ("auto", "none")
    if wanted == "auto":
        needs_one = recipe.fit.fixed_views is not None or is_compiled
        return torch.cuda.device_count() if is_on_gpus and not needs_one else 1
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1:
        raise ConfigError(f"`processes >= 1` must hold, or be 'auto' for one on each GPU, but got {wanted!r}.")
    if is_on_gpus and wanted > torch.cuda.device_count():
        raise ConfigError(
            f"Each process computes on a GPU of its own, and torch finds {torch.cuda.device_count()}, but got "
            f"processes={wanted}. Ask for fewer, or compute on the processor: fit.device=cpu."
        )
    if wanted > 1 and recipe.fit.fixed_views is not None:
        raise ConfigError(
            f"fit.fixed_views keeps what a single process computes, but got processes={wanted}. Ask for 1, or train "
            "with fit.fixed_views=null."
        )
    if wanted > 1 and is_compiled:
        raise ConfigError(
            f"Several processes cannot compile the training step, but got processes={wanted} and "
            f"fit.compile={recipe.fit.compile}. Ask for 1, or set fit.compile=none."
        )
    if wanted > 1 and not distributed.is_available():
        raise InstallationError("This build of torch cannot train on several processes. Install another, or ask for 1.")
    return wanted


def check_processes(prepared: Prepared, network: nn.Module) -> None:
    """Each process needs an image of every whole batch, and layers that can share. Raises: ConfigError."""
    num_processes, num_train = prepared.machine.num_processes, len(prepared.splits.train)
    batch_size = prepared.recipe.fit.batch_size
    if num_processes > min(batch_size, num_train):
        raise ConfigError(
            f"Each process takes a part of every batch, so `processes <= fit.batch_size` must hold, but got "
            f"processes={num_processes}, fit.batch_size={batch_size} and {num_train:,} training pictures."
        )
    if num_processes > 1:
        check_shareable(network)


def describe_processes(machine: Machine) -> str | None:
    """What a person should know of this number of processes; None where there is nothing."""
    if machine.device.type == "cpu" and machine.num_processes > num_cores():
        return f"{machine.num_processes} processes share {num_cores()} processor cores and wait for one another."
    return None


def describe_another_number(before: int, now: int) -> str:
    """What going on with another number of processes means."""
    shown = "1 process" if before == 1 else f"{before} processes"
    return (
        f"Trained on {shown} before, on {now} from here: sums are rounded otherwise, so the weights will not be those "
        "of an uninterrupted run to the last bit."
    )
