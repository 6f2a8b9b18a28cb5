"""The list of runs, from a ledger and from run folders that were moved, lost or damaged."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from conviction.core.errors import StorageError
from conviction.core.ledger import Ledger, default_ledger_file
from conviction.core.records import DataRecord, EpochRecord, RunSummary, Score
from conviction.core.run_folder import RunFolder
from conviction.core.run_list import list_runs

DATA = DataRecord("digits", "digits", "d" * 64, "s" * 64, ("0", "1"), 1, 8, 8, 100, 20, 30)
BEST = EpochRecord(2, 0.1, Score(0.75, 0.5, 20))
SUMMARY = RunSummary("a", "lenet", "digits", "finished", "2026-01-31T10:00:00+00:00", 7, DATA, 1000, 3, 1.5, best=BEST)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def add_run(home: Path, name: str, in_ledger: bool = True, **changes: Any) -> RunFolder:
    folder = RunFolder(home / name)
    folder.path.mkdir(parents=True)
    summary = dataclasses.replace(SUMMARY, run=name, **changes)
    folder.write_summary(summary)
    if in_ledger:
        ledger = Ledger.beside(home)
        ledger.record_run(summary, folder.path)
        ledger.record_epochs(name, [BEST])
    return folder


def listed(home: Path) -> list[tuple[str, str]]:
    return [(run.run, run.status) for run in list_runs(home)]


def test_nothing_is_made_where_there_is_no_run(home: Path) -> None:
    assert list_runs(home) == []
    assert not home.exists()


def test_a_line_holds_what_the_folder_says(home: Path) -> None:
    folder = add_run(home, "a")
    [run] = list_runs(home)
    assert (run.run, run.recipe, run.status, run.epochs, run.seconds) == ("a", "digits", "finished", 3, 1.5)
    assert (run.seed, run.num_parameters, run.folder) == (7, 1000, folder.path)
    assert run.best == BEST


def test_the_newest_comes_first_whether_the_ledger_knows_it_or_not(home: Path) -> None:
    add_run(home, "b", created_at="2026-01-02T00:00:00+00:00")
    add_run(home, "a", created_at="2026-01-03T00:00:00+00:00", in_ledger=False)
    add_run(home, "c", created_at="2026-01-01T00:00:00+00:00", in_ledger=False)
    assert [name for name, _ in listed(home)] == ["a", "b", "c"]


def test_a_folder_knows_better_than_the_ledger(home: Path) -> None:
    folder = add_run(home, "a", status="running")
    folder.write_summary(dataclasses.replace(SUMMARY, status="stopped_early"))
    assert listed(home) == [("a", "stopped_early")]


def test_a_folder_that_is_gone_is_remembered(home: Path) -> None:
    shutil.rmtree(add_run(home, "a").path)
    [run] = list_runs(home)
    assert (run.run, run.status, run.recipe, run.epochs) == ("a", "missing", "digits", 3)
    assert run.best == BEST


@pytest.mark.parametrize("in_ledger", [True, False])
def test_a_damaged_folder_is_named_as_such(home: Path, in_ledger: bool) -> None:
    add_run(home, "a", in_ledger).summary_file.write_text("{")
    assert listed(home) == [("a", "damaged")]


def test_runs_that_were_moved_with_their_ledger_are_found(home: Path, tmp_path: Path) -> None:
    add_run(home, "a")
    moved = home.rename(tmp_path / "elsewhere")
    [run] = list_runs(moved)
    assert (run.status, run.folder) == ("finished", moved / "a")


@pytest.mark.parametrize("closed", ["folder", "ledger"])
def test_folders_alone_make_the_list_where_nothing_may_be_written(
    home: Path, closed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_run(home, "a")
    shut = home.resolve() if closed == "folder" else default_ledger_file(home)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).resolve() != shut)
    assert listed(home) == [("a", "finished")]
    with pytest.raises(StorageError, match="the place of the ledger") as caught:
        Ledger.beside(home)
    assert "set CONVICTION_HOME" in caught.value.message


def test_a_ledger_that_was_asked_for_lists_its_own_runs_alone(home: Path, tmp_path: Path) -> None:
    add_run(home, "a", in_ledger=False)
    url = f"sqlite:///{tmp_path}/other.db"
    assert list_runs(home, url) == []
    Ledger(url).record_run(SUMMARY, home / "a")
    assert [run.run for run in list_runs(home, url)] == ["a"]
