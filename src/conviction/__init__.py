"""Conviction trains image classifiers fast, compares them fairly, and shows what they have learned.

`import conviction` loads nothing heavy; what is named here is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conviction.core.errors import ConvictionError
    from conviction.run import Recipe, Run, load_recipe, recipe_names, resume, train

__version__ = "0.1.0"
__all__ = ["ConvictionError", "Recipe", "Run", "load_recipe", "recipe_names", "resume", "train"]


def __getattr__(name: str) -> Any:
    if name == "ConvictionError":
        return importlib.import_module("conviction.core.errors").ConvictionError
    if name in __all__:
        return getattr(importlib.import_module("conviction.run"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
