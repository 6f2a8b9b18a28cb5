"""Where measurements are written: a file for each machine, a section for each benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from conviction.run.prepared import Machine

FOLDER = Path(__file__).parent / "results"


def write_section(name: str, found: dict[str, Any], machine: Machine) -> None:
    """Put one benchmark's findings into its machine's file, beside the others', and show them."""
    from conviction.core.environment import describe_environment

    environment = describe_environment(machine.threads, machine.device.type, machine.precision)
    processor = re.sub(r"[^a-z0-9]+", "-", environment["processor"].lower()).strip("-")
    path = FOLDER / f"{processor}-{machine.threads}-threads.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    sections[name] = {"environment": environment, **found}
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(sections, indent=2) + "\n")
    for key, value in found.items():
        print(f"{key:36} {value}")
    print(f"written to {path.relative_to(FOLDER.parent.parent)}")
