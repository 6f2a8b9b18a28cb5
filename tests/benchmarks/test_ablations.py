"""Each ablation takes away what its name says, and nothing else; pairs are of the same seed."""

from __future__ import annotations

from typing import Any

import ablations
import pytest
from ablations import ABLATIONS, BASE, differences, markdown, recipe_without

from conviction.nets import build_network
from conviction.run.recipe import load_recipe


def changes(one: Any, other: Any, path: str = "") -> set[str]:
    """The paths at which two settings differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        return {
            found
            for key in {*one, *other}
            for found in changes(one.get(key), other.get(key), f"{path}.{key}" if path else str(key))
        }
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return {
            found
            for index, pair in enumerate(zip(one, other, strict=True))
            for found in changes(*pair, f"{path}.{index}")
        }
    return set() if one == other else {path}


def resolved_without(name: str) -> dict[str, Any]:
    return load_recipe(recipe_without(name, 3)).settings()


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_is_a_recipe_that_can_be_trained(name: str) -> None:
    recipe = load_recipe(recipe_without(name, 3))
    assert recipe.seed == 3
    assert recipe.test_time.num_views == 6
    build_network(recipe.network, (3, 32, 32), 10)


@pytest.mark.parametrize("name", [name for name in ABLATIONS if name != BASE])
def test_an_ablation_changes_something_in_one_section(name: str) -> None:
    changed = changes(resolved_without(BASE), resolved_without(name))
    assert changed
    # SGD has a schedule of its own.
    sections = {path.split(".")[0] for path in changed}
    assert len(sections) == 1 or (name.startswith("SGD") and sections == {"optimizer", "schedule"})


def test_what_is_left_out_by_hand() -> None:
    base = resolved_without(BASE)
    assert changes(base, resolved_without("no label smoothing")) == {"loss.label_smoothing"}
    assert changes(base, resolved_without("no Dirac initialisation")) == {
        f"network.blocks.{number}.initialization" for number in range(1, 7)
    }
    assert changes(base, resolved_without("whitening that trains")) == {"network.blocks.0.frozen"}
    assert changes(base, resolved_without("all biases at the rate of others")) == {
        "optimizer.bias_rate",
        "optimizer.norm_bias_rate",
    }
    assert resolved_without("whole pictures in all epochs")["fit"]["progressive_sizes"] == []


def test_differences_are_of_pairs_and_what_the_ingredient_gives() -> None:
    def one(seed: int, accuracy: float) -> dict[str, Any]:
        figures = {"accuracy": accuracy, "accuracy_one_view": accuracy, "loss_one_view": 1 - accuracy}
        return {"seed": seed, **figures, "num_validation": 5000}

    found = {BASE: [one(0, 0.85), one(1, 0.83), one(2, 0.84)], "no shifts": [one(1, 0.80), one(0, 0.83)]}
    assert differences(found, "no shifts", "accuracy") == pytest.approx([0.03, 0.02])
    # Mean 2.5 points, deviation 0.7071; Student's t for one degree of freedom is 12.706: half of 12.706.
    row = markdown({"pictures": "P", "trainings": found})[-1]
    assert row == "| no shifts | 81.50 % | 81.50 % | +2.50 (-3.85 … +8.85) | -0.025 (-0.089 … +0.039) | 2 |"


def test_a_killed_benchmark_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    import record

    trained: list[tuple[str, int]] = []

    def measure(name: str, seed: int, folder: Any) -> dict[str, Any]:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((name, seed))
        return {"seed": seed, "accuracy": 0.8, "accuracy_one_view": 0.8, "loss_one_view": 0.7, "num_validation": 5000}

    environment = {"processor": "P", "threads": 2, "instruction_sets": [], "precision": "bfloat16", "device": "cpu"}
    (tmp_path / "benchmarks").mkdir()
    monkeypatch.setattr(record, "FOLDER", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(ablations, "measure", measure)
    monkeypatch.setattr(ablations, "this_environment", lambda recipe: environment)
    monkeypatch.setattr(ablations, "write_page", lambda environment: None)
    arguments = ["ablations.py", "--seeds", "2", "--only", "no shifts", "--continue"]
    monkeypatch.setattr("sys.argv", arguments)

    def killed_and_continued() -> None:
        trained.clear()
        with pytest.raises(KeyboardInterrupt):
            ablations.main()
        assert trained == [(BASE, 0), ("no shifts", 0), (BASE, 1)]
        trained.clear()
        ablations.main()
        assert trained == [("no shifts", 1)]

    killed_and_continued()
    # Nothing of another environment is kept, nor lost unasked.
    environment["precision"] = "float32"
    before = record.machine_path(environment, ".json").read_bytes()
    with pytest.raises(SystemExit):
        ablations.main()
    assert record.machine_path(environment, ".json").read_bytes() == before
    record.machine_path(environment, ".json").unlink()
    killed_and_continued()
    found = record.read_sections(environment)["ablations"]["trainings"]
    assert {name: [one["seed"] for one in seeds] for name, seeds in found.items()} == {
        BASE: [0, 1],
        "no shifts": [0, 1],
    }

    # What is not named stays, whatever is measured anew.
    trained.clear()
    monkeypatch.setattr("sys.argv", ["ablations.py", "--seeds", "1", "--only", "no label smoothing"])
    ablations.main()
    assert trained == [(BASE, 0), ("no label smoothing", 0)]
    found = record.read_sections(environment)["ablations"]["trainings"]
    assert {name: len(seeds) for name, seeds in found.items()} == {BASE: 1, "no shifts": 2, "no label smoothing": 1}
