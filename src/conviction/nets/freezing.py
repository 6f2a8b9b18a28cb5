"""Layers that stay as they are: no gradients, no state of an optimiser, and always in evaluation mode."""

from __future__ import annotations

from types import MethodType
from typing import Any

from torch import nn

from conviction.core.errors import ConfigError, UnknownName

ALL_BUT_HEAD = "all_but_head"


def head_of(network: nn.Module) -> str:
    """The name of the layer that gives the logits: the last fully connected one, or else the last convolution.

    Raises: ConfigError where the network has neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        found: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        if found:
            return found[-1]
    raise ConfigError(f"{type(network).__name__} has no head: neither a fully connected layer nor a convolution.")


def freeze(network: nn.Module, last: str | int) -> None:
    """Freeze all layers up to the one named `last`, that one too; `all_but_head`, or a number of blocks.

    Frozen layers compute as in evaluation, whatever mode the network is put into: normalisations with their running
    statistics, which stay the same, and dropout not at all.

    Raises: UnknownName; ConfigError where nothing would be left to train.
    """
    name = _name_of(network, last)
    for part in _parts_up_to(network, name):
        for module in part.modules():
            # Containers put their parts into a mode one by one, so that each part must refuse for itself.
            vars(module)["train"] = MethodType(_stay, module)
            module.training = False
        part.requires_grad_(False)
    # What a container of both frozen and other layers has of its own comes before them: a class token, for example.
    containers = [network, *(network.get_submodule(name[:at]) for at, letter in enumerate(name) if letter == ".")]
    for container in containers:
        for parameter in container.parameters(recurse=False):
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(
            f"network.freeze: behind {name} the network has no weights, so that nothing would be left to train. Freeze "
            f"up to an earlier layer, or {ALL_BUT_HEAD}."
        )


def is_frozen(module: nn.Module) -> bool:
    """Whether the module lies within the frozen layers."""
    return "train" in vars(module)


def _stay(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def _name_of(network: nn.Module, last: str | int) -> str:
    """Raises: ConfigError."""
    names: list[str] = [name for name, _ in network.named_modules() if name]
    if isinstance(last, int):
        blocks = [name for name in names if name.startswith("blocks.block") and name.count(".") == 1]
        if not blocks:
            raise ConfigError(
                f"network.freeze: {last} is a number of blocks, and this network has none. Give the name of the last "
                f"layer to freeze, or {ALL_BUT_HEAD}."
            )
        if last > len(blocks):
            raise ConfigError(f"`network.freeze <= {len(blocks)}`, the number of blocks, must hold, but got {last}.")
        return blocks[last - 1]
    if last == ALL_BUT_HEAD:
        return _body_of(network)
    if last not in names:
        raise UnknownName("layer", last, [ALL_BUT_HEAD, *names], always=[ALL_BUT_HEAD])
    return last


def _body_of(network: nn.Module) -> str:
    """The outermost module that holds the last weights before the head, but not the head.

    Dropout right before the head has no weights and stays with it.
    """
    head = head_of(network)
    names: list[str] = list(dict(network.named_modules()))
    before = names[: names.index(head)]
    weighted = [name for name in before if any(True for _ in network.get_submodule(name).parameters(recurse=False))]
    # The network itself may have weights of its own, a class token for example.
    if not (weighted := [name for name in weighted if name and not head.startswith(f"{name}.")]):
        raise ConfigError(f"network.freeze: the network has no weights before its head, {head}.")
    name = weighted[-1]
    parents = [name[:at] for at, letter in enumerate(name) if letter == "."]
    return next((parent for parent in parents if not head.startswith(f"{parent}.")), name)


def _parts_up_to(network: nn.Module, last: str) -> list[nn.Module]:
    """The modules that are frozen as wholes, in the order in which the network has them."""
    parts: list[nn.Module] = []
    place: Any = network
    for step in last.split("."):
        for name, child in place.named_children():
            if name == step:
                break
            parts.append(child)
        place = place.get_submodule(step)
    return [*parts, place]
