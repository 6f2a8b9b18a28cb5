"""What the benchmark of the speed recipes makes of seeds, and what it keeps when it was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import record
import speed_recipes
from bounds import training_flop
from recipe_summary import markdown, spread, summarise
from scipy.integrate import quad
from speed_recipes import digest_of, resolved, seconds_until
from targets import TARGETS, page

from conviction.core.records import EpochRecord, Score, Timing
from conviction.run.recipe import load_recipe

ENVIRONMENT = {
    "processor": "P",
    "threads": 2,
    "instruction_sets": ["avx2"],
    "device": "cpu",
    "precision": "bfloat16",
    "packages": {"torch": "1"},
    "system": "Linux 1",
    "commit": "c0ffee",
}


def measured(seed: int, accuracy: float = 0.91, **more: Any) -> dict[str, Any]:
    return {
        "seed": seed,
        "test_accuracy": accuracy,
        "test_accuracy_one_view": accuracy - 0.01,
        "num_test": 10_000,
        "num_views": 6,
        "validation_accuracy": accuracy,
        "num_validation": 5_000,
        "train_s": 250.0 + seed,
        "train_and_validation_s": 260.0 + seed,
        "to_80_percent_train_s": 50.0,
        "peak_memory_bytes": 1.2e9 + 1e8 * seed,
        "precision": "bfloat16",
        "commit": "c0ffee",
        **more,
    }


def test_mean_deviation_and_interval_by_hand() -> None:
    # 1 to 5: mean 3, deviation √2.5; Student's t for four degrees of freedom is 2.7764 (tables since 1908).
    found = spread([1.0, 2.0, 3.0, 4.0, 5.0])
    assert (found["mean"], found["standard_deviation"]) == (3.0, pytest.approx(2.5**0.5))
    low, high = found["interval_95"]
    assert (low, high) == (
        pytest.approx(3 - 2.7764 * 0.5**0.5, abs=1e-3),
        pytest.approx(3 + 2.7764 * 0.5**0.5, abs=1e-3),
    )


def test_the_interval_holds_95_percent_of_students_density() -> None:
    # With three values the density is (1 + t²/2)^(−3/2) / (2√2); deviation 1 makes the half width t/√3.
    low, high = spread([-1.0, 0.0, 1.0])["interval_95"]
    inside, _ = quad(lambda t: (1 + t * t / 2) ** -1.5 / 8**0.5, low * 3**0.5, high * 3**0.5)
    assert inside == pytest.approx(0.95, abs=1e-6)


def test_one_seed_has_no_deviation() -> None:
    assert spread([2.0]) == {"mean": 2.0, "standard_deviation": None, "interval_95": None}
    assert spread([])["mean"] is None


def test_seconds_until_80_percent_are_of_training_alone() -> None:
    history = [EpochRecord(n, 0.1, Score(accuracy, 1.0, 100)) for n, accuracy in enumerate([0.1, 0.7, 0.8, 0.79])]
    timings = [Timing(n, train_s, 100.0, 1.0, 1) for n, train_s in enumerate([0.0, 20.0, 22.0, 21.0])]
    assert seconds_until(history, timings) == 42.0
    assert seconds_until(history[:2], timings[:2]) is None


def test_recipes_are_told_apart_by_all_but_seed_and_texts() -> None:
    recipe = resolved("speed-cifar10", {"data.path": "some"})
    digest = digest_of(recipe)
    for same in ({"seed": 5}, {"description": "other"}, {"name": "other"}):
        assert digest_of(load_recipe(recipe, same)) == digest
    for other in ({"optimizer.learning_rate": 1.4}, {"data.path": "other"}, {"test_time.shift_px": 2}):
        assert digest_of(load_recipe(recipe, other)) != digest


@pytest.mark.parametrize(("test_time", "num_views"), [({}, 6), ({"mirror": True}, 2)])
def test_views_are_the_recipes_own_or_six(test_time: dict[str, Any], num_views: int) -> None:
    recipe = resolved("speed-cifar10", {"test_time": test_time})
    assert recipe.test_time.num_views == num_views


class Benchmark:
    """The script with a training that takes no time, and may be killed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.trained: list[tuple[str, int]] = []
        self.environment = dict(ENVIRONMENT)
        self.killed_at: int | None = None
        self._monkeypatch = monkeypatch
        (folder / "benchmarks").mkdir()
        monkeypatch.setattr(record, "FOLDER", folder / "benchmarks" / "results")
        monkeypatch.setattr(speed_recipes, "measure", self._measure)
        monkeypatch.setattr(speed_recipes, "this_environment", lambda recipe: self.environment)
        monkeypatch.setattr(speed_recipes, "write_page", lambda environment: None)

    def _measure(self, recipe: Any, seed: int, folder: Path) -> dict[str, Any]:
        if seed == self.killed_at:
            raise KeyboardInterrupt
        self.trained.append((recipe.name, seed))
        return measured(seed)

    def run(self, *options: str) -> None:
        self._monkeypatch.setattr(sys, "argv", ["speed_recipes.py", *options])
        speed_recipes.main()

    @property
    def written(self) -> dict[str, Any]:
        return dict(record.read_sections(self.environment).get("speed_recipes", {}).get("recipes", {}))


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Benchmark:
    return Benchmark(monkeypatch, tmp_path)


def test_a_killed_benchmark_keeps_its_seeds_and_goes_on(
    benchmark: Benchmark, capsys: pytest.CaptureFixture[str]
) -> None:
    benchmark.killed_at = 2
    with pytest.raises(KeyboardInterrupt):
        benchmark.run("--seeds", "3")
    found = benchmark.written["speed-cifar10"]
    assert [one["seed"] for one in found["seeds"]] == [0, 1]
    assert found["figures"]["train_s"]["mean"] == 250.5
    benchmark.killed_at = None
    benchmark.environment["system"] = "Linux 2"
    benchmark.run("--seeds", "3", "--continue")
    assert "seeds 0, 1 are kept, measured at commit c0ffee" in capsys.readouterr().out
    others = ("speed-cifar10-quick", "speed-cifar10-sgd")
    assert benchmark.trained[2:] == [("speed-cifar10", 2), *((name, seed) for name in others for seed in range(3))]
    assert [one["seed"] for one in benchmark.written["speed-cifar10"]["seeds"]] == [0, 1, 2]
    assert benchmark.written["speed-cifar10-quick"]["num_seeds"] == 3


def test_figures_of_another_recipe_are_not_mixed_in(benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark.run("--seeds", "2")
    changed = {"data.path": "cifar10-jpeg75", "optimizer.momentum": 0.8}
    original = speed_recipes.resolved
    monkeypatch.setattr(speed_recipes, "resolved", lambda name, overrides: original(name, changed))
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "1", "--continue")
    assert benchmark.trained[6:] == [("speed-cifar10", 0)]
    assert benchmark.written["speed-cifar10"]["num_seeds"] == 1
    assert benchmark.written["speed-cifar10-quick"]["num_seeds"] == 2


@pytest.mark.parametrize(("key", "value"), [("packages", {"torch": "2"}), ("precision", "float32")])
def test_figures_of_another_environment_are_not_mixed_in(benchmark: Benchmark, key: str, value: Any) -> None:
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "2")
    benchmark.environment[key] = value
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "1", "--continue")
    assert len(benchmark.trained) == 3
    assert benchmark.written["speed-cifar10"]["num_seeds"] == 1


def test_without_being_told_to_go_on_all_seeds_are_measured(benchmark: Benchmark) -> None:
    for _ in range(2):
        benchmark.run("--recipe", "speed-cifar10", "--seeds", "2")
    assert len(benchmark.trained) == 4


def test_single_seeds_are_measured_again(benchmark: Benchmark, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--recipe", "speed-cifar10", "--seeds", "4")
    benchmark.run(*options)
    benchmark.run(*options, "--continue", "--again", "0", "--again", "2")
    assert "seeds 1, 3 are kept" in capsys.readouterr().out
    assert benchmark.trained[4:] == [("speed-cifar10", 0), ("speed-cifar10", 2)]
    assert [one["seed"] for one in benchmark.written["speed-cifar10"]["seeds"]] == [0, 1, 2, 3]
    for wrong in (("--again", "0"), ("--continue", "--again", "4")):
        with pytest.raises(SystemExit):
            benchmark.run(*options, *wrong)


def test_a_seed_that_was_tested_with_another_epoch_is_measured_again(
    benchmark: Benchmark, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Of seven epochs, by its recipe.
    epochs = iter((7, 6, 6, 6, 7))
    original = speed_recipes.measure
    monkeypatch.setattr(speed_recipes, "measure", lambda *which: {**original(*which), "epoch": next(epochs)})
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "2")
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "2", "--continue")
    assert benchmark.trained[2:] == [("speed-cifar10", 1)]
    assert "seeds 0 are kept" in capsys.readouterr().out
    # The last one was tested with another epoch again, and the first is not wanted.
    benchmark.run("--recipe", "speed-cifar10", "--seeds", "2", "--continue", "--again", "0")
    assert "speed-cifar10 is measured anew." in capsys.readouterr().out
    assert benchmark.trained[3:] == [("speed-cifar10", 0), ("speed-cifar10", 1)]


def test_made_up_pictures_write_nothing(benchmark: Benchmark) -> None:
    benchmark.run("--quick", "--seeds", "1")
    assert len(benchmark.trained) == 3
    assert benchmark.written == {}


def section(num_seeds: int, **more: Any) -> dict[str, Any]:
    seeds = [measured(seed, 0.90 + 0.01 * seed) for seed in range(num_seeds - 1)] + [measured(num_seeds, **more)]
    found = {"recipe_sha256": "0123456789abcdef", **summarise(seeds)}
    slow = summarise([{**seed, "train_s": 2 * seed["train_s"]} for seed in seeds])
    recipes = {"speed-cifar10": found, "speed-cifar10-quick": found, "speed-cifar10-sgd": {**found, **slow}}
    return {"pictures": "some pictures", "recipes": recipes}


def rows(num_seeds: int, **more: Any) -> list[tuple[str, ...]]:
    sections = {"speed_recipes": section(num_seeds, **more)}
    return [
        target.row(sections)[1:] for target in TARGETS if "speed-cifar10" in target.work or "the same" in target.work
    ]


def test_targets_want_five_seeds() -> None:
    # 0.90, 0.91, 0.92, 0.93 and 0.91; seconds 250 to 253, and 255; 1.2 to 1.5, and 1.7 GB.
    assert rows(5) == [
        ("≥ 91 %", "91.40 %", "met"),
        ("≥ 89.8 %", "90.40 %", "met"),
        ("≤ 300 s", "252.20 s", "met"),
        ("≥ 1.99 ×", "2.00 ×", "met"),
        ("≤ 1.5 GB", "1.70 GB", "**missed**"),
        ("≤ 60 s", "50.00 s", "met"),
    ]
    assert {row[1:] for row in rows(4)} == {("–", "not measured")}


def test_a_miss_is_told_with_what_the_figures_say_of_it() -> None:
    sections = {
        "speed_recipes": section(5, accuracy=0.80, train_s=600.0),
        "share_of_ceiling": {"ceiling_gflop_a_second": [500.0]},
    }
    verdicts = {target.work: target.row(sections)[-1] for target in TARGETS}

    def why(part: str) -> str:
        return next(verdict for work, verdict in verdicts.items() if part in work)

    # Ten epochs of 45,000 whole pictures, of which seven smaller ones save half; accuracies as above, and 0.80.
    assert why("several views") == (
        "**missed**: `speed-cifar10-sgd`, the published recipe with 1.97 times the operations, reaches 89.20 % here "
        "(5 seeds)"
    )
    assert why("one view") == (
        "**missed**: `speed-cifar10-sgd`, the published recipe with 1.97 times the operations, reaches 88.20 % here "
        "(5 seeds)"
    )
    tflop = training_flop("speed-cifar10", 45_000) / 1e12
    assert why("without validation, mean") == (
        f"**missed**: the products of its training, {tflop:.0f} TFLOP, take {tflop / 0.5:.0f} s at the ceiling (below)"
    )
    slow = section(5)
    slow["recipes"]["speed-cifar10-sgd"] = slow["recipes"]["speed-cifar10"]
    (ratio,) = [t for t in TARGETS if "against the published" in t.work and "speed-cifar10-sgd" in t.work]
    shown = ratio.row({**sections, "speed_recipes": slow})
    assert shown[2:3] == ("1.00 ×",)
    assert "1.97 times fewer operations" in shown[3]


def test_shares_of_the_processor_are_those_of_others() -> None:
    seeds = [
        measured(0, bystanders={"others": 0.01, "host": 0.002}),
        measured(1, bystanders={"others": 0.03, "host": 0}),
    ]
    recipes = {"speed-cifar10": {"recipe_sha256": "0" * 64, **summarise(seeds)}}
    line = "Beside a training, other programs had at most 3.0 % of the processor's time, and the host of the virtual "
    assert f"{line}machine 0.2 %." in markdown({"pictures": "P", "recipes": recipes})
    recipes["speed-cifar10"]["seeds"].append(measured(2))
    assert f"{line}machine 0.2 % (2 seeds tell)." in markdown({"pictures": "P", "recipes": recipes})


def test_a_seed_that_never_reaches_80_percent_misses_the_target() -> None:
    assert rows(5, to_80_percent_train_s=None)[-1] == ("≤ 60 s", "inf s", "**missed**")
    shown = "\n".join(markdown(section(5, to_80_percent_train_s=None)))
    assert "(4 of 5 seeds came so far) | 50.0 s |" in shown


def test_the_page_shows_the_recipes() -> None:
    shown = page({"speed_recipes": section(5)}, ENVIRONMENT)
    assert (
        "**`speed-cifar10`** (SHA-256 0123456789ab…), 5 seeds, in bfloat16; 10,000 test pictures and 5,000 for "
        "validation; at most 1.70 GB of memory.\n"
    ) in shown
    # Deviations of 0.90, 0.91, 0.92, 0.93, 0.91 from 0.914: √(0.00052 / 4) = 0.0114; 2.7764 · 0.0114 / √5 = 0.0142.
    assert "| test accuracy, mean of 6 views of each picture | 91.40 % | 1.14 % | 89.98 … 92.82 % |" in shown
    assert "| test accuracy, one view | 91.00 % | – | – |" in "\n".join(markdown(section(1, accuracy=0.92)))


@pytest.mark.slow
def test_it_works_on_made_up_pictures() -> None:
    script = Path(speed_recipes.__file__)
    command = [sys.executable, str(script), "--quick", "--seeds", "1", "--recipe", "speed-cifar10-quick"]
    before = {path: path.read_bytes() for path in record.FOLDER.iterdir()}
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "seed 0" in line)
    assert "(6 views)" in line
    assert "training " in line
    assert {path: path.read_bytes() for path in record.FOLDER.iterdir()} == before
