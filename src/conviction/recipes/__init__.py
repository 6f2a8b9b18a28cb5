"""The built-in recipes, one YAML file each; reading their names loads nothing heavy."""

from __future__ import annotations

import re
from importlib import resources


def recipe_names() -> list[str]:
    """The built-in recipes, sorted."""
    folder = resources.files(__name__)
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a built-in recipe."""
    return resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")


def recipe_summary(name: str) -> str:
    """The description of a built-in recipe."""
    found = re.search(r"^description: (.*)$", recipe_text(name), re.MULTILINE)
    return found.group(1).strip() if found else ""
