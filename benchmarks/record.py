"""Where measurements are written: a file for each processor and number of threads, a section for each benchmark."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def show(found: dict[str, Any]) -> None:
    """A line for each finding."""
    for key, value in found.items():
        print(f"{key:36} {value}")


def child_environment(**more: str) -> dict[str, str]:
    """What processes that are measured see of the environment, and more.

    A shell that forbids Python to keep compiled modules would have each of them compile torch anew.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, **more}


def machine_path(environment: dict[str, Any], ending: str) -> Path:
    """The file of this machine in the folder of results, for example with the ending `.json`."""
    processor = re.sub(r"[^a-z0-9]+", "-", environment["processor"].lower()).strip("-")
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"{processor}-{environment['threads']}-threads{ending}"


def read_sections(environment: dict[str, Any]) -> dict[str, Any]:
    """Everything that was measured on this machine."""
    path = machine_path(environment, ".json")
    return dict(json.loads(path.read_text())) if path.exists() else {}


def write_section(name: str, found: dict[str, Any], environment: dict[str, Any]) -> None:
    """Replace one benchmark's findings in its machine's file, and leave the others that stand there."""
    sections = read_sections(environment)
    sections[name] = {"environment": environment, **found}
    path = machine_path(environment, ".json")
    path.write_text(json.dumps(sections, indent=2) + "\n")
    print(f"written to {path.relative_to(FOLDER.parent.parent)}")


def this_environment(recipe: str) -> dict[str, Any]:
    """What figures of this machine depend on, in the precision that a recipe has here."""
    from conviction.core.environment import describe_environment
    from conviction.run.prepared import Machine
    from conviction.run.recipe import load_recipe

    machine = Machine.for_recipe(load_recipe(recipe))
    return describe_environment(machine.threads, machine.device.type, machine.precision)
