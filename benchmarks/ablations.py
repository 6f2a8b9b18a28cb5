"""What each ingredient of `speed-cifar10-quick` gives: the recipe without it, on validation pictures alone.

    make bench-ablations            or: python benchmarks/ablations.py [--seeds N] [--only NAME …] [--continue]

Needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA. Seeds keep the same pictures for validation with and without
an ingredient, so that differences are of pairs. The test split is never opened. Figures are written after each one.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from recipe_summary import spread
from record import read_sections, this_environment, write_section
from speed_recipes import PICTURES, conviction_says, digest_of, resolved, what_changed
from targets import write_page

SECTION, RECIPE, NUM_SEEDS = "ablations", "speed-cifar10-quick", 3
BASE = "the recipe"
Settings = dict[str, Any]


def _blocks(settings: Settings) -> list[Settings]:
    """The blocks of convolutions after the whitening."""
    return list(settings["network"]["blocks"][1:])


def _in_blocks(**keys: Any) -> Callable[[Settings], None]:
    def change(settings: Settings) -> None:
        for block in _blocks(settings):
            block.update(keys)

    return change


def _no_whitening(settings: Settings) -> None:
    settings["network"]["blocks"][0].update(initialization="default", frozen=False, bias_epochs=None)


def _whitening_trained(settings: Settings) -> None:
    settings["network"]["blocks"][0].update(frozen=False)


def _whitening_without_bias(settings: Settings) -> None:
    settings["network"]["blocks"][0].update(bias=False, bias_epochs=None)


def _usual_order(settings: Settings) -> None:
    for block in _blocks(settings):
        block.pop("order")


def _in(section: str, **keys: Any) -> Callable[[Settings], None]:
    return lambda settings: settings[section].update(keys)


def _sgd(lookahead: bool) -> Callable[[Settings], None]:
    """The publication's optimiser, at a rate for its own batches of 1,024 times the root of the share."""

    def change(settings: Settings) -> None:
        share = (settings["fit"]["batch_size"] / 1024) ** 0.5
        settings["optimizer"] = {
            "name": "sgd",
            "learning_rate": round(1.5 * share, 4),
            "momentum": 0.85,
            "nesterov": True,
            "weight_decay": 0.00133,
            "norm_bias_rate": 64,
        }
        if lookahead:
            settings["optimizer"]["lookahead"] = {
                "every_steps": 5,
                "decay": 0.774,
                "decay_power": 3,
                "start_epochs": 1,
            }
        settings["schedule"] = {"name": "triangular", "start": 0.2, "rise": 0.23, "final": 0.07}

    return change


def _flip_by_chance(settings: Settings) -> None:
    settings["augment"] = [
        {"name": "horizontal_flip"} if one["name"] == "alternating_flip" else one for one in settings["augment"]
    ]


def _no_shifts(settings: Settings) -> None:
    settings["augment"] = [one for one in settings["augment"] if one["name"] != "random_crop"]


ABLATIONS: dict[str, Callable[[Settings], None]] = {
    BASE: lambda settings: None,
    "no whitening: a first layer that is drawn and trained": _no_whitening,
    "whitening that trains": _whitening_trained,
    "whitening without a bias": _whitening_without_bias,
    "no Dirac initialisation": _in_blocks(initialization="default"),
    "biases of normalisations at the rate of others": _in("optimizer", norm_bias_rate=1),
    "all biases at the rate of others": _in("optimizer", norm_bias_rate=1, bias_rate=1),
    "SGD with Lookahead instead of Muon": _sgd(lookahead=True),
    "SGD without Lookahead instead of Muon": _sgd(lookahead=False),
    "Muon without normalised kernels": _in("optimizer", normalize_weights=False),
    "Muon without Nesterov's momentum": _in("optimizer", nesterov=False),
    "flip by chance instead of alternately": _flip_by_chance,
    "no shifts": _no_shifts,
    "no label smoothing": _in("loss", label_smoothing=0.0),
    "cosine schedule instead of triangular": lambda settings: settings.update(schedule={"name": "cosine"}),
    "whole pictures in all epochs": _in("fit", progressive_sizes=[]),
    "normalisation, activation, pooling in the usual order": _usual_order,
    "normalisations with a trained scale": _in_blocks(normalization_scale=True),
    "logits not scaled": _in("network", logit_scale=1.0),
    "classifier with a bias": _in("network", classifier_bias=True),
}


def recipe_without(name: str, seed: int) -> Settings:
    """The settings of the recipe without an ingredient, with several views at test time."""
    settings = resolved(RECIPE, {"data.path": PICTURES}).settings()
    ABLATIONS[name](settings)
    return {**settings, "seed": seed}


def measure(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """One training, and its accuracy on the validation pictures in several views and in one, after the last epoch."""
    from conviction import Run
    from conviction.core.files import read_json
    from conviction.run.recipe import load_recipe

    file = folder / "recipe.yaml"
    file.write_text(load_recipe(recipe_without(name, seed)).to_yaml())
    run = Run.open(conviction_says(folder, "train", str(file))["path"])
    found = conviction_says(folder, "evaluate", str(run.path), "--split", "validation", "--weights", "last")
    return {
        "seed": seed,
        "accuracy": found["accuracy"],
        "accuracy_one_view": found["one_view"]["accuracy"],
        "loss_one_view": found["one_view"]["loss"],
        "num_validation": found["count"],
        "train_s": sum(timing.train_s for timing in run.folder.read_timings()),
        "commit": read_json(run.folder.environment)["commit"],
    }


def differences(found: dict[str, list[dict[str, Any]]], name: str, key: str) -> list[float]:
    """With the ingredient minus without it, for each seed that was trained both ways."""
    base = {one["seed"]: one[key] for one in found.get(BASE, ())}
    return [base[one["seed"]] - one[key] for one in found[name] if one["seed"] in base]


def markdown(section: dict[str, Any]) -> list[str]:
    """The table of a machine's file."""
    found: dict[str, list[dict[str, Any]]] = section["trainings"]
    one = found[BASE][0]
    lines = [
        f"## What each ingredient of `{RECIPE}` gives",
        "",
        f"The recipe without one of them, on {section['pictures']}; accuracy after the last epoch on "
        f"{one['num_validation']:,} validation",
        "pictures, in one view and in several, mean over the seeds. What it gives is the mean difference of pairs",
        "with the same seed, in percentage points and in nats of loss of one view; brackets hold Student's 95 %",
        "interval. The loss tells small differences better (a negative one is a gain), but not that of label",
        "smoothing, which raises it. The test split was not opened.",
        "",
        "| | one view | several views | the ingredient gives | of loss | seeds |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in found.items():
        views = [100 * sum(each[key] for each in seeds) / len(seeds) for key in ("accuracy_one_view", "accuracy")]
        points = [100 * each for each in differences(found, name, "accuracy_one_view")]
        given = ("", "") if name == BASE else (_given(points, 2), _given(differences(found, name, "loss_one_view"), 3))
        lines.append(f"| {name} | {views[0]:.2f} % | {views[1]:.2f} % | {given[0]} | {given[1]} | {len(seeds)} |")
    return lines


def _given(pairs: Sequence[float], digits: int) -> str:
    """Mean and interval."""
    if not pairs:
        return "–"
    about = spread(pairs)
    shown = [f"{value:+.{digits}f}" for value in (about["mean"], *(about["interval_95"] or ()))]
    return shown[0] + (f" ({shown[1]} … {shown[2]})" if len(shown) > 1 else "")


def kept_trainings(digest: str, environment: dict[str, Any]) -> dict[str, list[dict[str, Any]]] | None:
    """What an earlier benchmark measured; None where it was of another recipe or in another environment."""
    former = read_sections(environment).get(SECTION)
    if former is None:
        return {}
    if former["recipe_sha256"] != digest or what_changed(former["environment"], environment):
        return None
    return dict(former["trainings"])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=NUM_SEEDS, help=f"how many, from 0 on; {NUM_SEEDS} by default")
    parser.add_argument("--only", nargs="+", choices=list(ABLATIONS), default=list(ABLATIONS), metavar="NAME")
    parser.add_argument("--continue", action="store_true", dest="goes_on", help="keep what is measured of this recipe")
    options = parser.parse_args()
    environment = this_environment(RECIPE)
    digest = digest_of(resolved(RECIPE, {"data.path": PICTURES}))
    names = list(dict.fromkeys((BASE, *options.only)))
    found = kept_trainings(digest, environment)
    if found is None:
        if set(options.only) != set(ABLATIONS):
            parser.error(
                "the figures that are there are of another recipe or environment. Measure all of them anew, without "
                "--only."
            )
        print("The recipe or the environment is another one than before: everything is measured anew.")
        found = {}
    if not options.goes_on:
        found = {name: seeds for name, seeds in found.items() if name not in names}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for name in names:
                if any(one["seed"] == seed for one in found.get(name, ())):
                    continue
                one = measure(name, seed, Path(folder))
                found.setdefault(name, []).append(one)
                print(
                    f"seed {seed}, {name}: {100 * one['accuracy_one_view']:.2f} % in one view, "
                    f"{100 * one['accuracy']:.2f} % in several",
                    flush=True,
                )
                write_section(SECTION, {"pictures": PICTURES, "recipe_sha256": digest, "trainings": found}, environment)
    write_page(environment)


if __name__ == "__main__":
    main()
