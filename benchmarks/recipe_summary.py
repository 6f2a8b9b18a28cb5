"""From seeds to means, deviations, intervals and a table. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

# The key of a figure in a seed's measurement, what a person reads, and its unit.
FIGURES = (
    ("test_accuracy", "test accuracy, mean of {num_views} views of each picture", "%"),
    ("test_accuracy_one_view", "test accuracy, one view", "%"),
    ("validation_accuracy", "validation accuracy, one view", "%"),
    ("train_s", "training", "s"),
    ("train_and_validation_s", "training with validation", "s"),
    ("to_80_percent_train_s", "training until 80 % of the validation pictures were right", "s"),
)


def summarise(seeds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What `spread` says of each figure, whose `num_seeds` is smaller where some never came so far."""
    figures = {}
    for key, _, _ in FIGURES:
        values = [one[key] for one in seeds if one[key] is not None]
        figures[key] = {**spread(values), "num_seeds": len(values)}
    return {
        "num_seeds": len(seeds),
        "precision": sorted({one["precision"] for one in seeds}),
        "figures": figures,
        "seeds": sorted(seeds, key=lambda one: one["seed"]),
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation, and Student's 95 % interval of the mean, which takes two values."""
    if len(values) < 2:
        return {"mean": mean(values) if values else None, "standard_deviation": None, "interval_95": None}
    from scipy.stats import t

    middle, deviation, count = mean(values), stdev(values), len(values)
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return {"mean": middle, "standard_deviation": deviation, "interval_95": [middle - half, middle + half]}


def markdown(section: dict[str, Any]) -> list[str]:
    """The tables of a machine's file."""
    lines = [
        "## The speed recipes",
        "",
        f"Trained and tested on {section['pictures']}, whose pictures are harder than CIFAR-10's own files: no figure",
        "here compares with one from there. Tested were the weights of the last epoch. Each seed keeps other pictures",
        "for validation. Settings were chosen by validation figures alone; the test figures of earlier measurements",
        "were known meanwhile (LOG.md).",
    ]
    for name, found in section["recipes"].items():
        count, one = found["num_seeds"], found["seeds"][0]
        memory_gb = max(seed["peak_memory_bytes"] for seed in found["seeds"]) / 1e9
        lines += [
            "",
            f"**`{name}`** (SHA-256 {found['recipe_sha256'][:12]}…), {count} seed{'s' * (count > 1)}, in "
            f"{' and '.join(found['precision'])}; {one['num_test']:,} test pictures and {one['num_validation']:,} "
            f"for validation; at most {memory_gb:.2f} GB of memory.",
            *_bystanders(found["seeds"]),
            "",
            "| over the seeds | mean | standard deviation | 95 % interval of the mean |",
            "|---|---|---|---|",
            *(_row(label.format(**one), found["figures"][key], unit, count) for key, label, unit in FIGURES),
        ]
    return lines


def _bystanders(seeds: Sequence[dict[str, Any]]) -> list[str]:
    """What others had of the processor while these were trained, where that is known."""
    shares = [one["bystanders"] for one in seeds if one.get("bystanders")]
    if not shares:
        return []
    others, host = (100 * max(share[who] for share in shares) for who in ("others", "host"))
    return [
        f"Beside a training, other programs had at most {others:.1f} % of the processor's time, and the host of the "
        f"virtual machine {host:.1f} %" + ("." if len(shares) == len(seeds) else f" ({len(shares)} seeds tell).")
    ]


def _row(label: str, found: dict[str, Any], unit: str, count: int) -> str:
    scale, form = (100, ".2f") if unit == "%" else (1, ".1f")

    def shown(*values: float) -> str:
        return f"{' … '.join(f'{scale * value:{form}}' for value in values)} {unit}"

    if found["num_seeds"] < count:
        label += f" ({found['num_seeds']} of {count} seeds came so far)"
    cells = [label, *("–" if found[key] is None else shown(found[key]) for key in ("mean", "standard_deviation"))]
    cells.append("–" if found["interval_95"] is None else shown(*found["interval_95"]))
    return "| " + " | ".join(cells) + " |"
