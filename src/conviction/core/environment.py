"""What a run's figures depend on beside its recipe: package versions, processor, threads, commit."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.version import Version

from conviction.core.device import BFLOAT16_INSTRUCTIONS, num_cores, processor_flags, processor_name
from conviction.core.errors import InstallationError

RECORDED_PACKAGES = ("conviction", "torch", "torchvision", "torchmetrics", "numpy", "pillow", "pydantic", "safetensors")


def check_torch_and_torchvision() -> None:
    """Refuse a torchvision that was built for another torch, before either is loaded.

    A mismatch otherwise shows as a missing operator in the middle of a training. torchvision states the torch that it
    needs in its package metadata, which is read here.

    Raises: InstallationError that says what to type.
    """
    installed = {name: _version(name) for name in ("torch", "torchvision")}
    for name, version in installed.items():
        if version is None:
            raise InstallationError(f"The package {name} is not installed. Type: pip install torch torchvision")
    torch_version, torchvision_version = installed["torch"], installed["torchvision"]
    for text in importlib.metadata.requires("torchvision") or ():
        requirement = Requirement(text)
        if requirement.name != "torch" or requirement.marker is not None:
            continue
        if not requirement.specifier.contains(Version(torch_version or ""), prereleases=True):
            raise InstallationError(
                f"torchvision {torchvision_version} needs torch{requirement.specifier}, but torch {torch_version} "
                "is installed. Install two that belong together: pip install --upgrade torch torchvision"
            )
    builds = {name: Version(version or "").local for name, version in installed.items()}
    if builds["torch"] and builds["torchvision"] and builds["torch"] != builds["torchvision"]:
        raise InstallationError(
            f"torch {torch_version} and torchvision {torchvision_version} are builds for different devices "
            f"({builds['torch']} and {builds['torchvision']}). Install both from the same place: "
            "pip install --force-reinstall torch torchvision"
        )


def describe_environment(
    threads: int,
    device: str,
    precision: str,
    memory_format: str = "channels_last",
    num_processes: int = 1,
    compile: str = "none",
) -> dict[str, Any]:
    """The environment of a run, for `environment.json`; the threads are those of all processes."""
    return {
        "packages": {name: _version(name) for name in RECORDED_PACKAGES},
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "processor": processor_name(),
        "instruction_sets": sorted(processor_flags() & (BFLOAT16_INSTRUCTIONS | {"avx2", "avx512f", "asimd"})),
        "cores": num_cores(),
        "threads": threads,
        "processes": num_processes,
        "device": device,
        "precision": precision,
        "memory_format": memory_format,
        "compile": compile,
        "commit": _commit(Path(__file__).parent),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(folder: Path) -> str | None:
    """The commit that Conviction's own code stands at, with `+` where it was changed since; None outside a checkout."""
    if _git(folder, "ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = _git(folder, "describe", "--always", "--abbrev=12", "--exclude=*")
    # Whatever else lies in the checkout, benchmarks' figures for example, changes nothing of a run.
    return commit and commit + "+" * bool(_git(folder, "status", "--porcelain", "--untracked-files=no", "--", ".."))


def _git(folder: Path, *arguments: str) -> str | None:
    # Inside a git hook, GIT_DIR and its kin would answer for another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, env=environment, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
