"""Biases that train in the first epochs alone, as a network's attribute `bias_epochs` says."""

from __future__ import annotations

from torch import nn

from conviction.nets.freezing import is_frozen


def bias_epochs_of(network: nn.Module) -> dict[str, int]:
    """The biases that train in the first epochs alone, by their names, and how many epochs these are."""
    found: dict[str, int] = getattr(network, "bias_epochs", {})
    return found


def set_trained(network: nn.Module, epoch: int) -> None:
    """Let those biases train that train in this epoch, counted from 1, and freeze those whose epochs are over."""
    for name, num_epochs in bias_epochs_of(network).items():
        # What `network.freeze` froze stays so.
        if not is_frozen(network.get_submodule(name.rpartition(".")[0])):
            network.get_parameter(name).requires_grad_(epoch <= num_epochs)
