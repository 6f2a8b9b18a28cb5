"""The command line as a user meets it, on the embedded digits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from command import Finished, conviction
from conviction import Run
from conviction.core.ledger import Ledger
from conviction.core.run_folder import RunFolder
from pictures import write_class_folders

SCORE = {"accuracy", "loss", "count"}


@pytest.fixture
def trained() -> Finished:
    finished = conviction("train", "digits", "--set", "fit.epochs=2", "--json")
    assert finished.code == 0, finished.err
    return finished


def test_train_prints_one_document_with_the_fixed_fields(trained: Finished, tmp_path: Path) -> None:
    found = trained.json
    assert {"run", "epochs", "seconds", "images_per_second", "peak_memory_bytes", "best", "last"} <= set(found)
    assert found["epochs"] == 2
    for name in ("best", "last"):
        assert set(found[name]["validation"]) == set(found[name]["train"]) == SCORE
    # 1,797 digits, a fifth of each class for validation and for test.
    assert (found["best"]["validation"]["count"], found["best"]["train"]["count"]) == (359, 1079)
    assert Path(found["path"]) == tmp_path / "runs" / found["run"]
    assert "1,079 training, 359 validation, 359 test (sealed)" in trained.err


def test_run_folder_is_complete(trained: Finished) -> None:
    folder = RunFolder(Path(trained.json["path"]))
    names = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*") if path.is_file()}
    assert names - {".lock"} == {
        "best.safetensors",
        "checkpoint.safetensors",
        "environment.json",
        "figures/curves.png",
        "figures/filters.png",
        "figures/learning_rate.png",
        "filters.safetensors",
        "history.jsonl",
        "last.safetensors",
        "model.json",
        "recipe.yaml",
        "run.json",
        "split.csv",
        "timings.jsonl",
    }
    for figure in folder.figures.iterdir():
        with Image.open(figure) as picture:
            assert picture.width > 500
    history = folder.read_history()
    assert [record.epoch for record in history] == [0, 1, 2]
    assert history[0].train is None
    # An untrained classifier of ten classes is indifferent: ln 10 = 2.303 nats.
    assert history[0].validation.loss == pytest.approx(2.303, abs=0.05)
    environment = json.loads(folder.environment.read_text())
    assert environment["packages"]["torch"]
    assert environment["threads"] >= 1
    recipe = yaml.safe_load(folder.recipe.read_text())
    assert recipe["network"]["blocks"][0]["filters"] == 32
    assert json.loads(folder.model.read_text())["classes"] == [str(digit) for digit in range(10)]


def test_evaluate_opens_the_test_split_on_record(trained: Finished, tmp_path: Path) -> None:
    first = conviction("evaluate", trained.json["run"], "--json").json
    assert {"run", "split", "accuracy", "loss", "count", "openings"} <= set(first)
    assert (first["split"], first["count"], first["openings"]) == ("test", 359, 1)
    second = conviction("evaluate", "--json").json
    assert second["openings"] == 2
    assert (second["accuracy"], second["loss"]) == (first["accuracy"], first["loss"])
    validation = conviction("evaluate", "--split", "validation", "--json").json
    assert validation["openings"] == 2
    assert validation["accuracy"] == trained.json["best"]["validation"]["accuracy"]
    openings = Ledger.beside(tmp_path / "runs").openings()
    assert [(opening.run, opening.count) for opening in openings] == [(trained.json["run"], 359)] * 2
    shown = conviction("evaluate").out
    assert "opening 3 of the test split by this run" in shown
    assert "of 359)" in shown


def test_openings_outlive_the_run_and_are_counted_across_runs(trained: Finished) -> None:
    conviction("evaluate")
    assert conviction("runs", "delete", trained.json["run"], "--yes", "--json").json == {
        "deleted": [trained.json["run"]]
    }
    assert not Path(trained.json["path"]).exists()
    assert conviction("runs", "--json").json == {"runs": []}
    conviction("train", "digits", "--set", "fit.epochs=1")
    again = conviction("evaluate", "--json").json
    assert (again["openings"], again["test_set_openings"]) == (1, 2)
    assert "2 of these test images by all runs" not in conviction("evaluate", "--split", "validation").out
    assert "3 of these test images by all runs" in conviction("evaluate").out


def test_runs_are_listed_sorted_and_compared(trained: Finished) -> None:
    other = conviction("train", "digits", "--set", "fit.epochs=1", "--set", "network=perceptron", "--json").json
    listed = conviction("runs", "--json").json["runs"]
    assert [row["run"] for row in listed] == [other["run"], trained.json["run"]]
    assert {"run", "recipe", "status", "best"} <= set(listed[0])
    assert listed[1]["best"] == trained.json["best"]
    by_best = conviction("runs", "--sort", "best", "--json").json["runs"]
    accuracies = [row["best"]["validation"]["accuracy"] for row in by_best]
    assert accuracies == sorted(accuracies, reverse=True)
    compared = conviction("runs", "compare", trained.json["run"], other["run"], "--json").json
    assert compared["settings"]["fit.epochs"] == [2, 1]
    assert compared["settings"]["network.preset"] == ["digits", "perceptron"]
    assert "optimizer.learning_rate" not in compared["settings"]
    assert compared["results"]["best validation accuracy"][1] == other["best"]["validation"]["accuracy"]
    assert "fit.epochs" in conviction("runs", "compare", trained.json["run"], other["run"]).out


def test_ledger_is_rebuilt_from_the_folders(trained: Finished, tmp_path: Path) -> None:
    conviction("evaluate")
    before = conviction("runs", "--json").json
    ledger = Ledger.beside(tmp_path / "runs")
    ledger.forget_run(trained.json["run"])
    assert ledger.runs() == []
    assert conviction("runs", "rebuild", "--json").json["runs"] == 1
    assert conviction("runs", "--json").json == before
    assert len(ledger.openings()) == 1
    assert len(ledger.epochs(trained.json["run"])) == 3


def test_openings_are_counted_where_the_ledger_was_lost(trained: Finished, tmp_path: Path) -> None:
    conviction("evaluate")
    for file in (tmp_path / "runs").glob("ledger.db*"):
        file.unlink()
    assert conviction("evaluate", "--split", "validation", "--json").json["openings"] == 1
    assert conviction("evaluate", "--json").json["openings"] == 2


def test_runs_in_an_empty_folder_makes_nothing(tmp_path: Path) -> None:
    assert conviction("runs", "--json").json == {"runs": []}
    assert not (tmp_path / "runs").exists()


def test_what_ended_before_it_began_is_named_and_can_be_deleted(trained: Finished, tmp_path: Path) -> None:
    killed = tmp_path / "runs" / "2026-01-31-digits-0a1b2c"
    killed.mkdir()
    (killed / "recipe.yaml").touch()
    listed = conviction("runs", "--json")
    assert [row["run"] for row in listed.json["runs"]] == [trained.json["run"]]
    assert f"note: {killed.name} ended before its training began" in listed.err
    assert conviction("runs", "delete", killed.name, killed.name, "--yes", "--json").json == {"deleted": [killed.name]}
    assert not killed.exists()


def test_ledger_may_be_postgresql(postgresql_url: str, tmp_path: Path) -> None:
    trained = conviction("train", "digits", "--set", "fit.epochs=1", "--ledger", postgresql_url, "--json").json
    assert conviction("evaluate", "--ledger", postgresql_url, "--json").json["openings"] == 1
    assert not (tmp_path / "runs" / "ledger.db").exists()
    listed = conviction("runs", "--ledger", postgresql_url, "--json").json["runs"]
    assert [row["run"] for row in listed] == [trained["run"]]
    assert conviction("runs", "rebuild", "--ledger", postgresql_url, "--json").json["runs"] == 1
    conviction("runs", "delete", trained["run"], "--yes", "--ledger", postgresql_url)
    assert conviction("runs", "--ledger", postgresql_url, "--json").json == {"runs": []}
    assert len(Ledger(postgresql_url).openings()) == 1


def test_skipped_pictures_are_named_in_the_run(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", {"cat": 12, "dog": 12}, (60, 60))
    (tmp_path / "photos" / "cat" / "bad.png").write_text("no picture")
    finished = conviction(
        *("train", "simplecnn-artists", "--set", "fit.epochs=1", "--set", f"data.path={tmp_path / 'photos'}"),
        *("--set", "data.unreadable=skip", "--json"),
    )
    assert finished.code == 0, finished.err
    assert finished.json["notes"] == ["1 unreadable picture was left out; skipped.txt names it."]
    named = (Path(finished.json["path"]) / "skipped.txt").read_text()
    assert named.startswith("cat/bad.png is no picture of a known kind")


def test_part_of_a_stage_that_the_recipe_leaves_out_can_be_replaced() -> None:
    shown = conviction("recipes", "show", "digits", "--set", "loss.label_smoothing=0.1", "--json").json
    assert shown["loss"] == {"name": "cross_entropy", "label_smoothing": 0.1}
    shown = conviction("recipes", "show", "alexnet-cifar10", "--set", "schedule.warmup_epochs=1", "--json").json
    assert (shown["schedule"]["name"], shown["schedule"]["warmup_epochs"]) == ("constant", 1)


def test_override_cannot_claim_a_newer_format() -> None:
    assert conviction("train", "digits", "--set", "format=2", "--json").json["error"]["kind"] == "newer_format"


def test_json_in_front_of_a_subcommand_is_refused() -> None:
    for command in (("runs", "--json", "show"), ("recipes", "--json", "show", "digits")):
        finished = conviction(*command)
        assert finished.code == 2
        assert "behind the subcommand" in finished.json["error"]["message"]
    assert conviction("recipes", "schema", "--json").json["title"] == "Conviction recipe"


def test_text_that_looks_like_markup_is_shown_as_it_is() -> None:
    assert conviction("train", "digits", "--set", "fit.epochs=1", "--set", 'name="[/red]x"').code == 0
    listed = conviction("runs")
    assert listed.code == 0
    assert "[/red]x" in listed.out


def test_run_can_be_used_from_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_class_folders(tmp_path / "photos", {"cat": 12, "dog": 12}, (60, 60))
    monkeypatch.chdir(tmp_path)
    assert conviction("train", "simplecnn-artists", "--set", "data.path=photos", "--set", "fit.epochs=1").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    finished = conviction("evaluate", "--split", "validation")
    assert finished.code == 0, finished.err


def test_show_lists_epochs_and_evaluations(trained: Finished) -> None:
    conviction("evaluate")
    shown = conviction("runs", "show", "--json").json
    assert [record["epoch"] for record in shown["history"]] == [0, 1, 2]
    assert [evaluation["split"] for evaluation in shown["evaluations"]] == ["test"]
    assert "accuracy" in conviction("runs", "show").out


def test_predict_names_what_is_in_pictures(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "photos", {"dark": 30, "light": 30}, (12, 12))
    settings = ["data.image_size_px=12", "network=perceptron", "fit.epochs=8", f"data.path={tmp_path / 'photos'}"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert conviction("train", "simplecnn-artists", *arguments).code == 0
    Image.new("RGB", (40, 30), (20, 20, 20)).save(tmp_path / "night.png")
    Image.new("L", (30, 40), 235).save(tmp_path / "day.jpg")
    found = conviction("predict", "latest", tmp_path / "night.png", tmp_path / "day.jpg", "--json").json["predictions"]
    assert [prediction["label"] for prediction in found] == ["dark", "light"]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)
    assert "dark" in conviction("predict", "latest", tmp_path / "night.png").out
    (tmp_path / "bad.png").touch()
    mixed = conviction("predict", "latest", tmp_path / "bad.png", tmp_path / "day.jpg", "--json")
    assert mixed.code == 2
    assert [prediction["label"] for prediction in mixed.json["predictions"]] == ["light"]
    assert mixed.json["unreadable"][0]["message"].endswith("bad.png is empty (0 bytes).")
    assert mixed.json["error"] == {"kind": "data", "message": mixed.json["unreadable"][0]["message"]}
    shown = conviction("predict", "latest", tmp_path / "bad.png", tmp_path / "day.jpg")
    assert (shown.code, "light" in shown.out, "bad.png is empty" in shown.err) == (2, True, True)
    assert conviction("predict", "latest", tmp_path / "bad.png", "--json").json["error"]["kind"] == "data"


@pytest.mark.usefixtures("two_threads")
def test_predict_on_two_cores(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    assert conviction("train", "digits", "--set", "fit.epochs=1", "--set", "fit.threads=2").code == 0
    found = conviction("predict", "latest", str(tmp_path / "black.png"), "--json")
    assert found.code == 0, found.err
    assert conviction("evaluate", "latest", "--split", "validation").code == 0


def test_a_larger_picture_is_seen_place_by_place(tmp_path: Path) -> None:
    """A dark and a light half: the map says so where the windows lie in one of them."""
    write_class_folders(tmp_path / "photos", {"dark": 30, "light": 30}, (12, 12))
    settings = ["data.image_size_px=12", "network=perceptron", "fit.epochs=8", f"data.path={tmp_path / 'photos'}"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    trained = conviction("train", "simplecnn-artists", *arguments, "--json").json
    halves = np.full((20, 40, 3), 20, np.uint8)
    halves[:, 20:] = 235
    Image.fromarray(halves).save(tmp_path / "halves.png")
    found = conviction("predict", "latest", tmp_path / "halves.png", "--dense", "--json").json
    # A perceptron slides pixel by pixel: 20 − 12 + 1 and 40 − 12 + 1 places.
    assert (found["map"], found["stride_px"], found["window_px"]) == ([9, 29], [1, 1], [12, 12])
    assert found["picture_px"] == [20, 40]
    assert sum(found["share_by_class"].values()) == pytest.approx(1)
    assert min(found["share_by_class"].values()) > 0.3
    assert Path(found["path"]) == Path(trained["path"]) / "figures" / "dense-halves.png"
    with Image.open(found["path"]) as figure:
        assert figure.size[0] > 500
    model = Run.open("latest").model()
    maps, pixels = model.dense_map(tmp_path / "halves.png")
    assert np.array_equal(pixels, halves)
    for row, column in ((0, 0), (8, 28), (4, 11)):
        [alone] = model.predict(halves[row : row + 12, column : column + 12])
        for number, name in enumerate(maps.classes):
            assert maps.probabilities[number, row, column] == pytest.approx(alone.probabilities[name], abs=1e-5)
    shown = conviction("predict", "latest", tmp_path / "halves.png", "--dense", "--out", tmp_path / "map.png").out
    assert "9×29 positions" in shown
    assert (tmp_path / "map.png").exists()
    small = conviction("predict", "latest", tmp_path / "halves.png", "--dense", "--scale", "0.5", "--json")
    assert "needs a picture of 12×12 pixels or more" in small.json["error"]["message"]


def test_recipes_are_listed_and_shown_whole() -> None:
    names = [recipe["name"] for recipe in conviction("recipes", "--json").json["recipes"]]
    assert names == [
        "alexnet-cifar10",
        "convnet-bn-cifar10",
        "convnet-cifar10",
        "digits",
        "lenet5-mnist",
        "simplecnn-artists",
        "speed-cifar10",
        "speed-cifar10-quick",
        "speed-cifar10-sgd",
    ]
    shown = conviction("recipes", "show", "lenet5-mnist").out
    assert "filters: 16" in shown
    assert conviction("recipes", "show", "lenet5-mnist", "--json").json["fit"]["batch_size"] == 128


def test_shown_recipe_is_itself_a_recipe(tmp_path: Path) -> None:
    shown = conviction("recipes", "show", "convnet-bn-cifar10", "--set", "seed=7").out
    (tmp_path / "mine.yaml").write_text(shown)
    assert conviction("recipes", "show", tmp_path / "mine.yaml").out == shown


def test_schema_accepts_every_built_in_recipe() -> None:
    schema = conviction("recipes", "schema").json
    assert schema["properties"]["optimizer"]["anyOf"][0]["enum"][0] == "sgd"
    assert "alexnet-cifar10" in schema["properties"]["network"]["anyOf"][0]["enum"]
    assert schema["additionalProperties"] is False


def test_without_a_terminal_there_are_plain_lines_alone() -> None:
    finished = conviction("train", "digits", "--set", "fit.epochs=1")
    assert "\x1b" not in finished.err + finished.out
    assert "\r" not in finished.err
    assert "    1/1" in finished.err
    assert "conviction evaluate" in finished.out


def test_help_is_quick_to_load() -> None:
    script = (
        "import sys; from conviction.cli.main import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'sqlalchemy', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "train" in done.stdout


def test_import_of_the_package_loads_nothing_heavy() -> None:
    script = "import sys, conviction; sys.exit(len({'torch', 'numpy', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("before", "frozen"), [("", False), ("conviction.is_command = True", True)])
def test_the_command_alone_looks_for_no_garbage_in_what_it_has_imported(before: str, frozen: bool) -> None:
    # In Python another program's objects would be kept for good.
    script = (
        f"import gc, conviction\n{before}\nconviction.load_recipe\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 100_000)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["True", str(frozen)], done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="torch computes with GNU's OpenMP on Linux alone")
@pytest.mark.parametrize(
    ("own", "turns"),
    [({}, "20000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")],
)
def test_waiting_threads_give_their_cores_away_soon(own: dict[str, str], turns: str) -> None:
    """As GNU's OpenMP says itself when torch is loaded."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    shown = subprocess.run(
        [sys.executable, "-m", "conviction", "inspect", "digits"],
        env={**inherited, **own, "OMP_DISPLAY_ENV": "verbose"},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert f"GOMP_SPINCOUNT = '{turns}'" in shown.stderr


def test_pictures_are_shown_in_several_views_at_test_time(trained: Finished, tmp_path: Path) -> None:
    """On the same seed: the same network, so that its one view is what the other run's evaluation finds."""
    shown = conviction("train", "digits", "--set", "fit.epochs=2", "--set", "test_time={shift_px: 1}", "--json")
    assert shown.code == 0, shown.err
    one, several = (conviction("evaluate", run.json["run"], "--json").json for run in (trained, shown))
    assert (one["num_views"], one["one_view"]) == (1, None)
    assert several["num_views"] == 3
    assert several["one_view"] == {key: one[key] for key in ("accuracy", "loss", "count")}
    assert several["loss"] != one["loss"]
    text = conviction("evaluate", shown.json["run"], "--split", "validation").out
    assert "; mean of 3 views of each picture" in text
    assert "\nOne view    " in text
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "black.png")
    for run, num_views in ((trained, 1), (shown, 3)):
        predict = ("predict", run.json["run"], tmp_path / "black.png")
        assert conviction(*predict, "--json").json["num_views"] == num_views
        assert ("Each is the mean of 3 views of the picture." in conviction(*predict).out) == (num_views == 3)
        # A heat map shows each window once.
        dense = (*predict, "--dense", "--out", tmp_path / "map.png")
        assert conviction(*dense, "--json").json["num_views"] == 1
        assert ("one of each window; without --dense, 3 are averaged" in conviction(*dense).out) == (num_views == 3)
