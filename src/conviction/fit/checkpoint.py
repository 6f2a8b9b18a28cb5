"""Weights and optimiser state as safetensors: no pickle, one file, one atomic move, one checksum.

The checksum covers the tensors and the text beside them, so that a flipped bit is found before it is trained on.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from conviction.core.errors import RunError
from conviction.core.files import write_atomically
from conviction.fit.plain_optimizer import restore_state, state_of

# safetensors writes its metadata in no fixed order: with one key alone, equal content gives equal bytes.
_ABOUT, _NETWORK, _OPTIMIZER = "conviction", "network.", "optimizer."


def save_tensors(path: Path, tensors: Mapping[str, Tensor], about: dict[str, Any]) -> None:
    """Write tensors and a JSON value beside them, atomically. Raises: StorageError."""
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    # As it will be read: JSON turns tuples into lists and numbers among the keys into text, and sorts text otherwise.
    about = json.loads(json.dumps(about))
    text = json.dumps({"about": about, "sha256": _checksum(dense, about)})
    write_atomically(path, lambda temporary: _write(temporary, dense, text))


def _write(path: Path, tensors: dict[str, Tensor], text: str) -> None:
    # safetensors lets the owner alone read what it writes; the run's other files are as open as the umask says.
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(tensors, path, metadata={_ABOUT: text})
        path.chmod(mode)
    except SafetensorError as error:
        # safetensors reports a full disk in words of its own.
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `save_tensors` wrote.

    Raises: RunError where the file is missing, damaged, or not Conviction's.
    """
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(_ABOUT)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except FileNotFoundError:
        raise RunError(f"{path} is missing.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if text is None:
        raise RunError(f"{path} was not written by Conviction: it says nothing about itself.")
    try:
        stored = json.loads(text)
        about, expected = stored["about"], stored["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged: {error}.") from error
    if _checksum(tensors, about) != expected:
        raise RunError(f"{path} is damaged: its checksum does not match.")
    return tensors, about


def save_weights(path: Path, network: nn.Module, about: dict[str, Any]) -> None:
    """Write a network's weights. Raises: StorageError."""
    save_tensors(path, network.state_dict(), about)


def load_weights(path: Path, network: nn.Module) -> dict[str, Any]:
    """Fill a network with saved weights and return what stands beside them.

    Raises: RunError where the file is damaged or belongs to another network.
    """
    tensors, about = load_tensors(path)
    _fill(network, tensors, path)
    return about


def save_checkpoint(path: Path, network: nn.Module, optimizer: Optimizer, progress: dict[str, Any]) -> None:
    """Write all that resuming needs into one file. Raises: StorageError."""
    state = state_of(optimizer)
    tensors = {_NETWORK + name: tensor for name, tensor in network.state_dict().items()}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{index}.{name}"] = value
            else:
                scalars.setdefault(str(index), {})[name] = value
    kind = type(optimizer).__name__
    about = {"progress": progress, "optimizer": kind, "groups": state["param_groups"], "scalars": scalars}
    save_tensors(path, tensors, about)


def load_checkpoint(path: Path, network: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Fill network and optimiser with a checkpoint and return the progress that stands beside them.

    Raises: RunError where the file is damaged or belongs to another network or optimiser.
    """
    tensors, about = load_tensors(path)
    _fill(network, _of_network(tensors), path)
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in tensors.items():
        if key.startswith(_OPTIMIZER):
            index, _, name = key.removeprefix(_OPTIMIZER).partition(".")
            state.setdefault(int(index), {})[name] = tensor
    try:
        if about["optimizer"] != type(optimizer).__name__:
            raise ValueError(f"it was written by {about['optimizer']}, not by {type(optimizer).__name__}")
        for index, values in about["scalars"].items():
            state.setdefault(int(index), {}).update(values)
        groups = [{**group, **_tuples(group)} for group in about["groups"]]
        restore_state(optimizer, {"state": state, "param_groups": groups})
        _restore_layout(optimizer)
        progress: dict[str, Any] = about["progress"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{path} does not fit this optimiser: {error}.") from error
    return progress


def load_checkpoint_weights(path: Path, network: nn.Module) -> None:
    """Fill a network alone with a checkpoint's weights.

    Raises: RunError where the file is damaged or belongs to another network.
    """
    _fill(network, _of_network(load_tensors(path)[0]), path)


def _of_network(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(_NETWORK): t for name, t in tensors.items() if name.startswith(_NETWORK)}


def _restore_layout(optimizer: Optimizer) -> None:
    """The state in its weights' memory layout.

    Files keep no layout, and fused optimisers walk through weights and state by address, whatever their strides.
    """
    for weight, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                values[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples, and torch compares betas as one."""
    return {name: tuple(value) for name, value in group.items() if isinstance(value, list) and name != "params"}


def _fill(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip()
        raise RunError(f"{path} does not fit this network: {reason}") from error


def _checksum(tensors: Mapping[str, Tensor], about: dict[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
