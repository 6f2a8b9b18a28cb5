"""Where measurements are written, a file for each machine and a section for each benchmark; and what they depend on."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conviction.run.prepared import Machine

FOLDER = Path(__file__).parent / "results"
_KERNEL = Path("/proc/stat")
# Of the first line of that file: programs, the system for them, interrupts; and what the host kept for others.
_BUSY, _STOLEN = (0, 1, 2, 5, 6), 7


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
    """The file of this machine in the folder of results, for example with the ending `.json`.

    Processors of many kinds bear the same name on virtual machines, so that it tells of bfloat16, and of a GPU.
    """
    from conviction.core.device import BFLOAT16_INSTRUCTIONS

    parts = [environment["processor"], f"{environment['threads']} threads"]
    if BFLOAT16_INSTRUCTIONS & set(environment["instruction_sets"]):
        parts.append("bfloat16")
    if environment["device"] != "cpu":
        parts.append(environment["device_name"])
    FOLDER.mkdir(exist_ok=True)
    return FOLDER / f"{re.sub(r'[^a-z0-9]+', '-', ' '.join(parts).lower()).strip('-')}{ending}"


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
    from conviction.run.prepared import Machine
    from conviction.run.recipe import load_recipe

    return environment_of(Machine.for_recipe(load_recipe(recipe)))


def environment_of(machine: Machine) -> dict[str, Any]:
    """What figures of this machine depend on."""
    from conviction.core.device import device_name
    from conviction.core.environment import describe_environment

    environment = describe_environment(machine.threads, machine.device.type, machine.precision)
    return {**environment, "device_name": device_name(machine.device)}


@contextmanager
def bystanders() -> Iterator[dict[str, float]]:
    """How much of the processors others had while the block ran, as a share of all their time; filled in at its end.

    `others` are other programs than this one and those it started and waited for, `host` is what the host of a virtual
    machine kept for itself and other guests. Empty where the system does not tell (outside Linux).
    """
    found: dict[str, float] = {}
    before = _processor_seconds()
    yield found
    after = _processor_seconds()
    if before and after:
        all_s, busy_s, stolen_s, own_s = (late - early for early, late in zip(before, after, strict=True))
        found |= {"others": max(0.0, busy_s - own_s) / all_s, "host": stolen_s / all_s}


def _processor_seconds() -> tuple[float, float, float, float] | None:
    """Since the machine started: of all, of programs, stolen by the host; and of this program's own."""
    if not _KERNEL.exists():
        return None
    tick = os.sysconf("SC_CLK_TCK")
    seconds = [int(ticks) / tick for ticks in _KERNEL.read_text().split("\n", 1)[0].split()[1:9]]
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    own_s = sum(part.ru_utime + part.ru_stime for part in parts)
    return sum(seconds), sum(seconds[kind] for kind in _BUSY), seconds[_STOLEN], own_s
