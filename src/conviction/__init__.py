"""Conviction trains image classifiers fast, compares them fairly, and shows what they have learned.

`import conviction` loads nothing heavy; what is named here is loaded when it is first used.
"""

from __future__ import annotations

import gc
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conviction.core.errors import ConvictionError
    from conviction.recipes import recipe_names
    from conviction.run import (
        Recipe,
        Run,
        audit_data,
        bench_machine,
        describe_data,
        inspect,
        load_recipe,
        resume,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "ConvictionError",
    "Recipe",
    "Run",
    "audit_data",
    "bench_machine",
    "describe_data",
    "inspect",
    "load_recipe",
    "recipe_names",
    "resume",
    "train",
]

# Set where this process runs the command and nothing else, so that what it has imported lives as long as it does.
is_command = False
_HOMES = {"ConvictionError": "conviction.core.errors", "recipe_names": "conviction.recipes"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    was_enabled = gc.isenabled()
    # Importing torch makes objects by the hundred thousand, none of them garbage: looking for it takes 0.15 s more.
    gc.disable()
    try:
        return getattr(importlib.import_module(_HOMES.get(name, "conviction.run")), name)
    finally:
        if is_command:
            # The first collection would look through all of them, for another 0.2 s.
            gc.freeze()
        if was_enabled:
            gc.enable()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
