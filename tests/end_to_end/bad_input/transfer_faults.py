"""Models of torchvision, files of weights and frozen layers that do not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch

from bad_input.case import Arguments, case, command_case, digits_with

FAMILY = "Transfer"

command_case(
    FAMILY, "unknown model of torchvision", "unknown_name", ("squeezenet1_2", "Did you mean 'squeezenet1_"),
    *digits_with("network=torchvision:squeezenet1_2"),
)  # fmt: skip
command_case(
    FAMILY, "model of torchvision without its family", "config", ("torchvision's, 'torchvision:resnet18'?",),
    *digits_with("network=resnet18"),
)  # fmt: skip
command_case(
    FAMILY, "grey pictures for a model of torchvision", "config", ("resnet18 takes pictures of 3 channels",),
    *digits_with("network=torchvision:resnet18"),
)  # fmt: skip
command_case(
    FAMILY, "pictures too small for a model of torchvision", "config", ("Input 3×8×8 does not go through features",),
    *digits_with("network=torchvision:alexnet", "data.color=rgb"),
)  # fmt: skip
command_case(
    FAMILY, "file of weights that is not there", "data", ("network.weights: No file or folder 'nowhere.pth'",),
    *digits_with("network.weights=nowhere.pth"),
)  # fmt: skip
command_case(
    FAMILY, "unknown layer to freeze", "unknown_name", ("Did you mean 'blocks.block1'?",),
    *digits_with("network.freeze=blocks.blok1"),
)  # fmt: skip
command_case(
    FAMILY, "more blocks to freeze than there are", "config", ("network.freeze <= 2", "got 3"),
    *digits_with("network.freeze=3"),
)  # fmt: skip
command_case(
    FAMILY, "everything frozen", "config", ("nothing would be left to train", "all_but_head"),
    *digits_with("network.freeze=classifier"),
)  # fmt: skip
command_case(
    FAMILY, "fixed views of layers that learn", "config", ("fit.fixed_views is for frozen layers",),
    *digits_with("fit.fixed_views=4"),
)  # fmt: skip


class _Code:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch was-run",)


def _weights(folder: Path, value: object) -> Arguments:
    torch.save(value, folder / "w.pth")
    return digits_with(f"network.weights={folder / 'w.pth'}")


@case(FAMILY, "file of weights that holds code", "data", "holds more than weights", "Nothing of it was run")
def _code(folder: Path) -> Arguments:
    return _weights(folder, {"blocks.block1.convolution.weight": _Code()})


@case(FAMILY, "weights of another network", "data", "is of another network: blocks.block1.convolution.weight", "more")
def _other(folder: Path) -> Arguments:
    return _weights(folder, {"features.0.weight": torch.zeros(64, 3, 3, 3)})


@case(FAMILY, "damaged file of weights", "data", "is damaged, or no file of weights")
def _damaged(folder: Path) -> Arguments:
    (folder / "w.pth").write_bytes(b"PK\x03\x04 and no more")
    return digits_with(f"network.weights={folder / 'w.pth'}")


@case(FAMILY, "another file of weights than the recipe means", "data", "is not the file that the recipe means")
def _changed(folder: Path) -> Arguments:
    (folder / "w.pth").write_bytes(b"changed")
    return digits_with(f"network.weights={folder / 'w.pth'}", f"network.weights_sha256={'0' * 64}")
