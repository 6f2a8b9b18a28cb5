"""Training from a list of pictures, and the ways to divide them, as a user meets them."""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml

from command import conviction
from pictures import write_class_folders

COUNTS = {"cat": 24, "dog": 24}


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of two animals each in `photos`, and `list.csv` beside them with all columns."""
    folder = write_class_folders(tmp_path / "photos", COUNTS, (12, 12))
    lines = [
        f"{label}/{label}-{number:03d}.png,{label},{'test' if number < 4 else ''},{label}-{number // 2}"
        for label, count in COUNTS.items()
        for number in range(count)
    ]
    (folder / "list.csv").write_text("\n".join(["file,label,part,animal", *lines]) + "\n")
    monkeypatch.chdir(tmp_path)
    return folder


def train(*assignments: str) -> Any:
    wanted = ["data=table", "data.path=photos/list.csv", "network=digits", "fit.epochs=1", *assignments]
    finished = conviction("train", "digits", *(part for one in wanted for part in ("--set", one)), "--json")
    assert finished.code == 0, finished.err
    return finished.json


def split_of(run: Any) -> dict[str, str]:
    with (Path(run["path"]) / "split.csv").open(newline="") as file:
        return {row["path"]: row["split"] for row in csv.DictReader(file)}


def test_one_epoch_from_a_list(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = train()
    assert (run["epochs"], run["best"]["validation"]["count"]) == (1, 10)
    split = split_of(run)
    assert sorted(split) == sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    assert Counter(split.values()) == {"train": 28, "validation": 10, "test": 10}
    # The run holds the whole path of the list, and is evaluated from any folder.
    monkeypatch.chdir(photos)
    evaluated = conviction("evaluate", run["run"], "--json")
    assert evaluated.code == 0, evaluated.err
    assert (evaluated.json["split"], evaluated.json["count"]) == ("test", 10)


def test_splits_and_groups_of_a_list_are_kept(photos: Path) -> None:
    split = split_of(train("data.split_column=part", "data.group_column=animal"))
    assert {path for path, name in split.items() if name == "test"} == {
        f"{label}/{label}-{number:03d}.png" for label in COUNTS for number in range(4)
    }
    names = defaultdict(set)
    for path, name in split.items():
        names[path[:3], int(path[-7:-4]) // 2].add(name)
    assert [len(found) for found in names.values()] == [1] * 24
    assert set(split.values()) == {"train", "validation", "test"}


def test_every_fold_validates_once(photos: Path) -> None:
    columns = ("data.split_column=part", "data.group_column=animal")
    found = [split_of(train(*columns, "split.folds=3", f"split.fold={fold}")) for fold in (1, 2, 3)]
    validated = [path for split in found for path, name in split.items() if name == "validation"]
    tests = [{path for path, name in split.items() if name == "test"} for split in found]
    assert tests[0] == tests[1] == tests[2]
    assert sorted(validated) == sorted(set(found[0]) - tests[0])


def test_so_many_of_each_class_train(photos: Path) -> None:
    split = split_of(train("split.train_per_class=9"))
    assert Counter((path[:3], name) for path, name in split.items()) == {
        (label, name): count for label in COUNTS for name, count in (("train", 9), ("validation", 8), ("test", 7))
    }


def test_the_division_of_a_run_is_read_back(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train("split.train_per_class=9", "seed=5")
    (tmp_path / "mine.csv").write_bytes((Path(first["path"]) / "split.csv").read_bytes())
    second = train("split.file=mine.csv", "seed=6")
    assert split_of(second) == split_of(first)
    recipe = yaml.safe_load((Path(second["path"]) / "recipe.yaml").read_text())
    assert recipe["split"]["file"] == str(tmp_path / "mine.csv")
    monkeypatch.chdir(photos)
    assert conviction("evaluate", second["run"], "--json").json["count"] == 14


def test_a_run_whose_file_was_changed_is_not_evaluated(photos: Path, tmp_path: Path) -> None:
    first = train()
    text = (Path(first["path"]) / "split.csv").read_text()
    (tmp_path / "mine.csv").write_text(text)
    second = train("split.file=mine.csv")
    exchanged = text.replace(",test", ",x").replace(",validation", ",test").replace(",x", ",validation")
    (tmp_path / "mine.csv").write_text(exchanged)
    finished = conviction("evaluate", second["run"], "--json")
    assert finished.code == 2
    assert "its splits would mix training with test pictures" in finished.json["error"]["message"]
