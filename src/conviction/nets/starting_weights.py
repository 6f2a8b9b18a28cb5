"""Weights to begin with, from a file that others wrote: torch's or safetensors, read without running what is in it."""

from __future__ import annotations

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from conviction.core.errors import DataError
from conviction.data.source.locate import locate
from conviction.nets.block import NetworkConfig
from conviction.nets.freezing import head_of

_CHUNK_BYTES = 1 << 22
# torch counts batches in networks that normalise; older files lack the counts, and nothing here uses them.
_COUNTERS = "num_batches_tracked"
# The second and third heads of GoogLeNet and Inception, which help while those are trained from the beginning.
_AUXILIARY = ("aux1.", "aux2.", "AuxLogits.")
# torchvision's files of DenseNets have names from before dots were forbidden in them: norm.1 is now norm1.
_FORMER_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def weights_digest(weights: str) -> str:
    """The SHA-256 of the file that `network.weights` names. Raises: DataError."""
    digest = hashlib.sha256()
    path = _located(weights)
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise DataError(f"network.weights: cannot read {path}: {error.strerror}.") from error
    return digest.hexdigest()


def load_starting_weights(config: NetworkConfig, network: nn.Module) -> list[str]:
    """Fill a network with the weights of the settings' file; returns what a person should know of it.

    The head stays as it was drawn where the file's is for another number of classes. Without `weights`, nothing is
    done.

    Raises: DataError where the file is missing, damaged, changed, holds code, or belongs to another network; it names
    the layer that does not fit.
    """
    if config.weights is None:
        return []
    path = _located(config.weights)
    if config.weights_sha256 is not None and (found := weights_digest(config.weights)) != config.weights_sha256:
        raise DataError(
            f"network.weights: {path} is not the file that the recipe means: its SHA-256 is {found}, and "
            f"network.weights_sha256 is {config.weights_sha256}. Bring the former file back, or set "
            "network.weights_sha256=null."
        )
    given = {_FORMER_NAME.sub(r"\1\2", name): tensor for name, tensor in read_weights(path).items()}
    own = network.state_dict()
    head = head_of(network)
    left_out = {name for name in own if name.startswith(f"{head}.") and _differs(given.get(name), own[name])}
    _check(path, given, {name: tensor for name, tensor in own.items() if name not in left_out}, f"{head}.")
    network.load_state_dict({**own, **{name: given[name] for name in own if name in given and name not in left_out}})
    if not left_out:
        return [f"All weights come from {path}."]
    former = given.get(f"{head}.weight")
    was = f"{len(former)} classes there, " if former is not None and former.ndim else ""
    return [f"Weights come from {path}; the head, {head} ({was}{len(own[f'{head}.weight'])} here), is drawn anew."]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file by name. Raises: DataError."""
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        value = _read_safetensors(path) if is_safetensors else _read_torch(path)
    except OSError as error:
        raise DataError(f"network.weights: cannot read {path}: {error.strerror or error}.") from error
    # What training scripts write beside optimiser and epoch.
    if isinstance(value, Mapping) and isinstance(value.get("state_dict"), Mapping):
        value = value["state_dict"]
    if not isinstance(value, Mapping) or not value:
        raise DataError(
            f"network.weights: {path} holds {type(value).__name__}, but must hold a network's weights by name, as "
            "network.state_dict() gives them."
        )
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            raise DataError(
                f"network.weights: {path} must hold a network's weights by name, as network.state_dict() gives them, "
                f"but holds {name!r}: {type(tensor).__name__}."
            )
    return {name.removeprefix("module."): tensor for name, tensor in value.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, ValueError) as error:
        raise DataError(f"network.weights: {path} is damaged: {error}.") from error


def _read_torch(path: Path) -> Any:
    _refuse_what_unfolds(path)
    try:
        # Of a pickle that torch did not write it warns before it refuses.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "GLOBAL" in str(error):
            raise DataError(
                f"network.weights: {path} holds more than weights: Python objects, which may run code when they are "
                "read. Nothing of it was run. Save the weights alone: torch.save(network.state_dict(), …)."
            ) from error
        raise _unreadable(path) from error
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes the reader raise anything
        raise _unreadable(path) from error


def _refuse_what_unfolds(path: Path) -> None:
    """torch writes without compression: a file that would grow on reading was made to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
    except (zipfile.BadZipFile, ValueError, struct.error) as error:
        raise _unreadable(path) from error
    if unfolded > path.stat().st_size:
        raise DataError(
            f"network.weights: {path} is compressed, as torch writes no file. Save it anew with torch.save."
        )


def _unreadable(path: Path) -> DataError:
    return DataError(
        f"network.weights: {path} is damaged, or no file of weights: torch.save and safetensors write such files."
    )


def _located(weights: str) -> Path:
    """Raises: DataError."""
    try:
        path = locate(weights)
    except DataError as error:
        raise DataError(f"network.weights: {error}") from error
    if not path.is_file():
        raise DataError(f"network.weights: {path} is a folder, but must be a file of weights.")
    return path


def _differs(given: Tensor | None, own: Tensor) -> bool:
    return given is None or given.shape != own.shape


def _check(path: Path, given: dict[str, Tensor], wanted: dict[str, Tensor], head: str) -> None:
    """Raises: DataError that names the first weights that do not fit."""
    faults = []
    for name, tensor in wanted.items():
        found = given.get(name)
        if found is None:
            if not name.endswith(_COUNTERS):
                faults.append(f"{name} ({_sizes(tensor)} in the network) is not in the file")
        elif found.shape != tensor.shape:
            faults.append(f"{name} has {_sizes(found)} numbers in the file and {_sizes(tensor)} in the network")
        elif not bool(torch.isfinite(found).all()):
            faults.append(f"{name} holds numbers that are not finite")
    faults += [
        f"{name} is in the file and not in the network"
        for name in given
        if name not in wanted and not name.startswith((head, *_AUXILIARY)) and not name.endswith(_COUNTERS)
    ]
    if faults:
        more = f", and {len(faults) - 1:,} more do not fit" if len(faults) > 1 else ""
        raise DataError(f"network.weights: {path} is of another network: {faults[0]}{more}.")


def _sizes(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "1"
