"""The speed recipes on the real CIFAR-10 pictures: test accuracy over seeds, and how long training takes.

    make bench-recipes              or: python benchmarks/speed_recipes.py [--recipe NAME …] [--seeds N]
                                        [--continue [--again SEED …]]

Needs cifar10-jpeg75.tar.xz in a folder of CONVICTION_DATA. Each seed is trained by `conviction train`, and when that is
done, evaluated once by `conviction evaluate`, with the weights of its last epoch: a choice among epochs on few
validation pictures would add chance. Figures are written after each seed: what was killed goes on with `--continue`,
which takes over only figures of the same recipe in the same environment, but for the seeds `--again`. `--quick` shows
on made-up pictures that everything works; its figures are not written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recipe_summary import summarise
from record import bystanders, child_environment, read_sections, this_environment, write_section
from targets import SPEED_RECIPES, write_page

if TYPE_CHECKING:
    from conviction.core.records import EpochRecord, Timing
    from conviction.run.recipe import Recipe

SECTION, PICTURES = "speed_recipes", "cifar10-jpeg75"
NUM_SEEDS, QUICK_SEEDS = 5, 2
# In how many views a picture is shown at test time where the recipe does not say.
USUAL_VIEWS = {"mirror": True, "shift_px": 1}
REACHED = 0.8
# What figures depend on; the commit is told for each seed.
SAME = ("packages", "python", "processor", "instruction_sets", "cores", "threads", "device", "precision")
QUICK_PICTURES = {"train": 30, "test": 5}


def resolved(name: str, overrides: dict[str, Any]) -> Recipe:
    """The recipe as it is trained: on other pictures, and with several views at test time."""
    from conviction.run.recipe import load_recipe

    recipe = load_recipe(name, overrides)
    return load_recipe(recipe, {"test_time": USUAL_VIEWS}) if recipe.test_time.num_views == 1 else recipe


def digest_of(recipe: Recipe) -> str:
    """SHA-256 of all that a recipe says but its seed and its texts."""
    settings = {key: value for key, value in recipe.settings().items() if key not in ("seed", "name", "description")}
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()


def measure(recipe: Recipe, seed: int, folder: Path) -> dict[str, Any]:
    """One training and, after it, one look at the test split: each in a process of its own."""
    from conviction import Run
    from conviction.core.files import read_json
    from conviction.run.recipe import load_recipe

    file = folder / "recipe.yaml"
    file.write_text(load_recipe(recipe, {"seed": seed}).to_yaml())
    with bystanders() as shares:
        trained = conviction_says(folder, "train", str(file))
    run = Run.open(trained["path"])
    evaluation = conviction_says(folder, "evaluate", str(run.path), "--weights", "last")
    environment = read_json(run.folder.environment)
    timings = run.folder.read_timings()
    last = run.summary.last
    assert last is not None
    assert last.epoch == evaluation["epoch"] == recipe.fit.epochs
    return {
        "seed": seed,
        "test_accuracy": evaluation["accuracy"],
        "test_accuracy_one_view": evaluation["one_view"]["accuracy"],
        "num_test": evaluation["count"],
        "num_views": evaluation["num_views"],
        "validation_accuracy": last.validation.accuracy,
        "num_validation": last.validation.count,
        "epoch": evaluation["epoch"],
        "train_s": sum(timing.train_s for timing in timings),
        "train_and_validation_s": sum(timing.train_s + timing.validation_s for timing in timings),
        "to_80_percent_train_s": seconds_until(run.history, timings),
        "peak_memory_bytes": run.summary.peak_memory_bytes,
        **{key: environment[key] for key in ("precision", "memory_format", "commit")},
        "bystanders": shares,
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def conviction_says(folder: Path, *arguments: str) -> dict[str, Any]:
    """What a command prints as JSON."""
    environment = child_environment(CONVICTION_HOME=str(folder / "runs"), CONVICTION_CACHE=str(folder / "cache"))
    command = [sys.executable, "-m", "conviction", *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return dict(json.loads(done.stdout))


def seconds_until(history: Sequence[EpochRecord], timings: Sequence[Timing]) -> float | None:
    """Of training alone, up to the first epoch whose validation accuracy is 80 %; None where none is."""
    spent = 0.0
    for record, timing in zip(history, timings, strict=True):
        spent += timing.train_s
        if record.validation.accuracy >= REACHED:
            return spent
    return None


def what_changed(former: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Of what figures depend on, what differs between two environments."""
    return [key for key in SAME if former.get(key) != now.get(key)]


def kept_seeds(
    name: str, digest: str, epochs: int, environment: dict[str, Any], again: Collection[int] = ()
) -> list[dict[str, Any]]:
    """What an earlier benchmark measured of the same recipe in the same environment, but for some seeds.

    Once the best epoch was tested, not the last of all `epochs`: such seeds are measured again.
    """
    former = read_sections(environment).get(SECTION, {}).get("recipes", {}).get(name)
    if former is None:
        return []
    if former["recipe_sha256"] != digest:
        print(f"{name} is another recipe than the one measured before: it is measured anew.")
        return []
    if changed := what_changed(former["environment"], environment):
        print(f"{name} was measured in another environment ({', '.join(changed)}): it is measured anew.")
        return []
    seeds = [one for one in former["seeds"] if one["seed"] not in again and one.get("epoch", epochs) == epochs]
    if not seeds:
        print(f"{name} is measured anew.")
        return []
    numbers, commits = (", ".join(sorted({str(one[key]) for one in seeds})) for key in ("seed", "commit"))
    print(f"{name}: seeds {numbers} are kept, measured at commit {commits}; this is commit {environment['commit']}.")
    return seeds


def benchmark(name: str, overrides: dict[str, Any], num_seeds: int, folder: Path, options: argparse.Namespace) -> None:
    """All seeds of one recipe that are not measured yet."""
    recipe, environment = resolved(name, overrides), this_environment(name)
    digest = digest_of(recipe)
    epochs = recipe.fit.epochs
    seeds = kept_seeds(name, digest, epochs, environment, options.again) if options.goes_on else []
    for seed in range(num_seeds):
        if any(one["seed"] == seed for one in seeds):
            continue
        seeds.append(measure(recipe, seed, folder))
        print(f"{name}, seed {seed}: {_shown(seeds[-1])}", flush=True)
        if options.quick:
            continue
        views = recipe.test_time.model_dump(mode="json")
        found = {"recipe_sha256": digest, "test_time": views, "environment": environment, **summarise(seeds)}
        others = read_sections(environment).get(SECTION, {}).get("recipes", {})
        write_section(SECTION, {"pictures": PICTURES, "recipes": {**others, name: found}}, environment)


def _shown(one: dict[str, Any]) -> str:
    reached = one["to_80_percent_train_s"]
    return (
        f"test {100 * one['test_accuracy']:.2f} % ({one['num_views']} views), "
        f"{100 * one['test_accuracy_one_view']:.2f} % (one view), validation {100 * one['validation_accuracy']:.2f} %, "
        f"training {one['train_s']:.1f} s, with validation {one['train_and_validation_s']:.1f} s, to 80 % "
        f"{'never' if reached is None else f'{reached:.1f} s'}, {one['precision']}"
    )


def quick_overrides(folder: Path) -> dict[str, Any]:
    """A few pictures of noise in ten classes, each with a brightness of its own."""
    import numpy as np
    from PIL import Image

    drawn = np.random.default_rng(0)
    for split, count in QUICK_PICTURES.items():
        for label in range(10):
            place = folder / "noise" / split / f"class-{label}"
            place.mkdir(parents=True)
            for number in range(count):
                pixels = drawn.integers(12 * label, 12 * label + 140, (32, 32, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / f"{number}.png")
    return {"data.path": str(folder / "noise"), "split.validation": 50, "fit.batch_size": 64}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--recipe", nargs="+", choices=SPEED_RECIPES, default=SPEED_RECIPES, help="by default all")
    parser.add_argument("--seeds", type=int, help=f"how many, from 0 on; {NUM_SEEDS} by default")
    parser.add_argument("--continue", action="store_true", dest="goes_on", help="keep the seeds that are measured")
    parser.add_argument(
        "--again", type=int, nargs="+", action="extend", default=[], metavar="SEED", help="but not of these"
    )
    parser.add_argument("--quick", action="store_true", help="a few made-up pictures, to see that it works")
    options = parser.parse_args()
    if options.seeds is not None and options.seeds < 1:
        parser.error(f"--seeds is 1 or more, but got {options.seeds}.")
    num_seeds = options.seeds or (QUICK_SEEDS if options.quick else NUM_SEEDS)
    if options.again and not (options.goes_on and set(options.again) <= set(range(num_seeds))):
        parser.error(f"--again goes with --continue, and with seeds from 0 to {num_seeds - 1}.")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        overrides = quick_overrides(folder) if options.quick else {"data.path": PICTURES}
        for recipe in options.recipe:
            benchmark(recipe, overrides, num_seeds, folder, options)
    if options.quick:
        print("\nNot written: these were made-up pictures.")
        return
    write_page(this_environment(options.recipe[0]))


if __name__ == "__main__":
    main()
