"""Several runs side by side: the settings that differ, and the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from conviction.core.config import read_mapping
from conviction.core.run_folder import RunFolder

_NAMES = ("format", "name", "description")


@dataclass(frozen=True)
class Comparison:
    """For each differing setting and for each result, a value a run; None where a run does not have it."""

    runs: list[str]
    settings: dict[str, list[Any]]
    results: dict[str, list[Any]]

    def as_json(self) -> dict[str, Any]:
        """The same as JSON's types."""
        return {"runs": self.runs, "settings": self.settings, "results": self.results}


def compare_runs(folders: Sequence[RunFolder]) -> Comparison:
    """What differs between the recipes and the pictures of these runs, and what came of them.

    Raises: RunError where a run is damaged.
    """
    flat = [_flat(read_mapping(folder.recipe)) for folder in folders]
    summaries = [folder.read_summary() for folder in folders]
    for settings, summary in zip(flat, summaries, strict=True):
        settings["pictures"] = summary.data.digest[:12]
        settings["division"] = summary.data.split_digest[:12]
    keys = list(dict.fromkeys(key for settings in flat for key in settings if key not in _NAMES))
    table = {key: [settings.get(key) for settings in flat] for key in keys}
    differing = {key: values for key, values in table.items() if any(value != values[0] for value in values)}
    rows = [_results(folder) for folder in folders]
    results = {key: [row[key] for row in rows] for key in rows[0]}
    return Comparison([folder.id for folder in folders], differing, results)


def _results(folder: RunFolder) -> dict[str, Any]:
    summary = folder.read_summary()
    best, last = summary.best, summary.last
    tests = [evaluation for evaluation in folder.read_evaluations() if evaluation.split == "test"]
    return {
        "status": summary.status,
        "parameters": summary.num_parameters,
        "epochs": summary.epochs,
        "best epoch": best.epoch if best else None,
        "best validation accuracy": best.validation.accuracy if best else None,
        "validation loss at the best epoch": best.validation.loss if best else None,
        "training accuracy at the best epoch": best.train.accuracy if best and best.train else None,
        "last validation accuracy": last.validation.accuracy if last else None,
        "validation count": best.validation.count if best else None,
        "test accuracy (last look)": tests[-1].accuracy if tests else None,
        "seconds": summary.seconds,
        "seconds of preparation": summary.preparation_s,
        "images per second": summary.images_per_second,
    }


def _flat(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    if isinstance(settings, Mapping) and settings:
        parts = settings.items()
    elif isinstance(settings, list) and any(isinstance(item, Mapping | list) for item in settings):
        parts = {str(index): item for index, item in enumerate(settings)}.items()
    else:
        return {prefix: settings}
    flat: dict[str, Any] = {}
    for key, value in parts:
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat
