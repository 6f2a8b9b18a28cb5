"""Where measurements are written: a file for each processor and number of threads, a section for each benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def show(found: dict[str, Any]) -> None:
    """A line for each finding."""
    for key, value in found.items():
        print(f"{key:36} {value}")


def write_section(name: str, found: dict[str, Any], environment: dict[str, Any]) -> None:
    """Replace one benchmark's findings in its machine's file, and leave the others that stand there."""
    processor = re.sub(r"[^a-z0-9]+", "-", environment["processor"].lower()).strip("-")
    path = FOLDER / f"{processor}-{environment['threads']}-threads.json"
    sections = json.loads(path.read_text()) if path.exists() else {}
    sections[name] = {"environment": environment, **found}
    FOLDER.mkdir(exist_ok=True)
    path.write_text(json.dumps(sections, indent=2) + "\n")
    print(f"written to {path.relative_to(FOLDER.parent.parent)}")
