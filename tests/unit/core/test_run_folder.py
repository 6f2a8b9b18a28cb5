import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conviction.core import run_folder
from conviction.core.errors import NewerFormat, RunError, StorageError, UnknownName
from conviction.core.files import is_locked
from conviction.core.records import DataRecord, EpochRecord, Evaluation, RunSummary, Score, Timing, to_json
from conviction.core.run_folder import (
    RunFolder,
    create_run_folder,
    find_run_folder,
    list_run_folders,
    runs_home,
)

DATA = DataRecord("digits", "digits", "d" * 64, "s" * 64, ("0", "1"), 1, 8, 8, 100, 20, 30)
SUMMARY = RunSummary("a", "lenet", "recipe.yaml", "finished", "2026-01-31T10:00:00+00:00", 0, DATA, 1000)
EPOCH = EpochRecord(1, 0.1, Score(0.5, 1.25, 20), Score(0.4, 1.5, 100))
EVALUATION = Evaluation("a", "test", "best", 1, 0.5, 1.25, 30, 1, 1, "2026-01-31T10:00:00+00:00", (0.3, 0.7))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def add_run(home: Path, name: str, **changes: Any) -> RunFolder:
    folder = RunFolder(home / name)
    folder.path.mkdir(parents=True)
    folder.write_summary(dataclasses.replace(SUMMARY, run=name, **changes))
    return folder


def test_runs_lie_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CONVICTION_HOME", raising=False)
    assert runs_home() == Path("runs")
    monkeypatch.setenv("CONVICTION_HOME", "")
    assert runs_home() == Path("runs")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("CONVICTION_HOME", "~/experiments")
    assert runs_home() == Path("/home/ada/experiments")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("LeNet on digits!", "lenet-on-digits"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "run"),
        ("数字", "run"),
        ("a" * 39 + " and more", "a" * 39),
        ("a" * 60, "a" * 40),
    ],
)
def test_a_new_folder_bears_the_day_the_name_and_an_id(home: Path, name: str, slug: str) -> None:
    folder = create_run_folder(home, name)
    day, given, number = folder.id[:10], folder.id[11:-7], folder.id[-6:]
    assert [len(part) for part in day.split("-")] == [4, 2, 2]
    assert given == slug
    assert folder.id[-7] == "-"
    assert int(number, 16) >= 0
    assert folder.path.parent == home
    assert folder.figures.is_dir()


def test_a_new_folder_never_is_an_old_one(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(["aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(run_folder.secrets, "token_hex", lambda _: next(numbers))
    assert create_run_folder(home, "a").id.endswith("-aaaaaa")
    assert create_run_folder(home, "a").id.endswith("-bbbbbb")


def test_a_file_in_the_place_of_the_home_is_a_storage_error(home: Path) -> None:
    home.write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        create_run_folder(home, "a")
    assert list_run_folders(home) == []


def test_weights_are_the_best_or_the_last(home: Path) -> None:
    assert RunFolder(home).weights("best") == home / "best.safetensors"
    assert RunFolder(home).weights("last") == home / "last.safetensors"
    with pytest.raises(UnknownName, match=r"No weights named 'bets'\. Did you mean 'best'"):
        RunFolder(home).weights("bets")


def test_the_state_is_read_as_it_was_written(home: Path) -> None:
    folder = add_run(home, "a", best=EPOCH, last=EPOCH, status="stopped_early")
    assert folder.read_summary() == dataclasses.replace(SUMMARY, best=EPOCH, last=EPOCH, status="stopped_early")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": "zero"}, "int expected, got 'zero'"),
        ({"status": "done"}, "expected, got 'done'"),
        ({"extra": 1}, "RunSummary has no field 'extra'"),
        ({"data": None}, "DataRecord expected, got None"),
        ({"format": None}, "int expected, got None"),
    ],
)
def test_a_damaged_state_is_named_with_its_fault(home: Path, changes: dict[str, Any], message: str) -> None:
    folder = add_run(home, "a")
    folder.summary_file.write_text(json.dumps({**to_json(SUMMARY), **changes}))
    with pytest.raises(RunError) as caught:
        folder.read_summary()
    assert str(caught.value).startswith(f"{folder.summary_file} is damaged: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "{", "null"])
def test_a_state_that_is_no_record_is_damaged(home: Path, content: str) -> None:
    folder = add_run(home, "a")
    folder.summary_file.write_text(content)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        folder.read_summary()


def test_a_newer_format_is_refused_before_its_unknown_fields_are(home: Path) -> None:
    folder = add_run(home, "a")
    folder.summary_file.write_text(json.dumps({**to_json(SUMMARY), "format": 2, "extra": 1}))
    with pytest.raises(NewerFormat) as caught:
        folder.read_summary()
    assert str(caught.value) == (
        f"{folder.summary_file} has format 2, and this version of Conviction reads up to 1: update Conviction."
    )


def test_a_run_that_no_process_trains_has_crashed(home: Path) -> None:
    folder = add_run(home, "a", status="running")
    assert folder.read_summary().status == "crashed"
    with folder.held():
        assert folder.read_summary().status == "running"
    assert folder.read_summary().status == "crashed"
    assert json.loads(folder.summary_file.read_text())["status"] == "running"


def test_a_run_whose_process_was_killed_has_crashed(home: Path) -> None:
    folder = add_run(home, "a", status="running")
    code = (
        "import sys, time; from pathlib import Path; from conviction.core.run_folder import RunFolder\n"
        "with RunFolder(Path(sys.argv[1])).held():\n    print('held', flush=True)\n    time.sleep(60)"
    )
    trainer = subprocess.Popen([sys.executable, "-c", code, str(folder.path)], stdout=subprocess.PIPE, text=True)
    try:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "held\n"
        assert folder.read_summary().status == "running"
        with pytest.raises(RunError, match="The run a is being trained by another process right now"), folder.held():
            pass
        with pytest.raises(RunError, match="is being trained by another process"):
            folder.delete()
        assert folder.read_summary().status == "running"
    finally:
        trainer.kill()
        trainer.communicate()
    assert folder.read_summary().status == "crashed"
    folder.delete()
    assert not folder.path.exists()


def test_a_run_that_ends_while_one_looks_has_not_crashed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = add_run(home, "a", status="running")

    def end_and_let_go(path: Path) -> bool:
        folder.write_summary(SUMMARY)
        return is_locked(path)

    monkeypatch.setattr(run_folder, "is_locked", end_and_let_go)
    assert folder.read_summary().status == "finished"


def test_who_holds_a_run_removes_what_a_killed_process_left(home: Path) -> None:
    folder = add_run(home, "a")
    folder.figures.mkdir()
    for left in (folder.path / ".writing-00000000-run.json", folder.figures / ".writing-00000000-curves.png"):
        left.write_text("half")
    with folder.held():
        assert sorted(path.name for path in folder.path.rglob("*")) == [".lock", "figures", "run.json"]


READERS: list[tuple[str, Any, Callable[[RunFolder], Any], Callable[[RunFolder], Any]]] = [
    ("history_file", EPOCH, RunFolder.read_history, lambda folder: folder.write_history([EPOCH, EPOCH])),
    (
        "timings_file",
        Timing(1, 0.5, 0.25, 200.0, 1024),
        RunFolder.read_timings,
        lambda folder: folder.write_timings([Timing(1, 0.5, 0.25, 200.0, 1024)] * 2),
    ),
    (
        "evaluations_file",
        EVALUATION,
        RunFolder.read_evaluations,
        lambda folder: [folder.add_evaluation(EVALUATION) for _ in range(2)],
    ),
]


@pytest.mark.parametrize(("file", "record", "read", "write"), READERS)
class TestLines:
    def test_what_was_never_written_is_empty(
        self, home: Path, file: str, record: Any, read: Callable[..., Any], write: Callable[..., Any]
    ) -> None:
        folder = add_run(home, "a")
        assert read(folder) == []
        getattr(folder, file).write_text("")
        assert read(folder) == []

    def test_records_are_read_as_they_were_written(
        self, home: Path, file: str, record: Any, read: Callable[..., Any], write: Callable[..., Any]
    ) -> None:
        folder = add_run(home, "a")
        write(folder)
        assert read(folder) == [record, record]
        assert len(getattr(folder, file).read_bytes().split(b"\n")) == 3

    @pytest.mark.parametrize("line", ["", "{", "[]", "5", "null", "{}", "[" * 100_000, '{"epoch": "x"}'])
    def test_a_damaged_line_is_named_by_its_number(
        self, home: Path, file: str, record: Any, read: Callable[..., Any], write: Callable[..., Any], line: str
    ) -> None:
        folder = add_run(home, "a")
        write(folder)
        path = getattr(folder, file)
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(RunError) as caught:
            read(folder)
        assert str(caught.value).startswith(f"{path} is damaged at line 3: ")

    def test_a_file_cut_short_is_named_by_the_line_that_was_cut(
        self, home: Path, file: str, record: Any, read: Callable[..., Any], write: Callable[..., Any]
    ) -> None:
        folder = add_run(home, "a")
        write(folder)
        path = getattr(folder, file)
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(RunError, match="is damaged at line 2"):
            read(folder)
        path.write_bytes(b"\xff\n")
        with pytest.raises(RunError, match="is damaged"):
            read(folder)


def test_a_class_name_may_hold_any_letter(home: Path) -> None:
    folder = add_run(home, "a")
    names = ["line\u2028separator", "next\x85line", "new\nline", "Größe", os.fsdecode(b"caf\xe9")]
    evaluation = dataclasses.replace(EVALUATION, accuracy_by_class=dict.fromkeys(names, 0.5))
    folder.add_evaluation(evaluation)
    assert folder.read_evaluations() == [evaluation]


def test_processes_that_evaluate_at_once_all_keep_their_line(home: Path) -> None:
    folder = add_run(home, "a")
    folder.add_evaluation(EVALUATION)
    code = (
        "import dataclasses, sys; from pathlib import Path; from conviction.core.run_folder import RunFolder\n"
        "folder = RunFolder(Path(sys.argv[1])); first = folder.read_evaluations()[0]\n"
        "for epoch in range(10): folder.add_evaluation(dataclasses.replace(first, run=sys.argv[2], epoch=epoch))"
    )
    names = ("b", "c", "d")
    both = [subprocess.Popen([sys.executable, "-c", code, str(folder.path), name]) for name in names]
    assert [process.wait() for process in both] == [0, 0, 0]
    found = [(evaluation.run, evaluation.epoch) for evaluation in folder.read_evaluations()[1:]]
    assert sorted(found) == [(name, epoch) for name in names for epoch in range(10)]


def test_a_deleted_run_is_gone_with_all_its_files(home: Path) -> None:
    folder = add_run(home, "a")
    (folder.path / "figures").mkdir()
    (folder.path / "figures" / "curves.png").write_bytes(b"")
    folder.delete()
    assert list(home.iterdir()) == []


def test_a_run_held_here_is_not_deleted(home: Path) -> None:
    folder = add_run(home, "a")
    with folder.held(), pytest.raises(RunError, match="is being trained"):
        folder.delete()
    assert folder.read_summary().status == "finished"


def test_a_linked_run_is_deleted_with_its_link(home: Path, tmp_path: Path) -> None:
    other = add_run(tmp_path / "elsewhere", "a")
    home.mkdir()
    (home / "a").symlink_to(other.path)
    RunFolder(home / "a").delete()
    assert list(home.iterdir()) == []
    assert not other.path.exists()


IDS = ["2026-01-30-lenet-aaa111", "2026-01-31-lenet-bbb222", "2026-01-31-resnet18-ccc333"]


@pytest.fixture
def runs(home: Path) -> Path:
    for age, name in enumerate(IDS):
        folder = add_run(home, name)
        os.utime(folder.summary_file, (1_000_000 - age, 1_000_000 - age))
    (home / "not-a-run").mkdir()
    (home / "ledger.db").write_text("")
    return home


@pytest.mark.parametrize(
    ("reference", "meant"),
    [
        (IDS[0], IDS[0]),
        ("2026-01-30", IDS[0]),
        ("2026-01-31-r", IDS[2]),
        ("bbb222", IDS[1]),
        ("latest", IDS[0]),
    ],
)
def test_a_run_is_found_by_its_id_its_beginning_its_end_and_as_the_latest(
    runs: Path, reference: str, meant: str
) -> None:
    assert find_run_folder(reference, runs).path == runs / meant


def test_a_whole_id_is_meant_even_where_another_begins_with_it(runs: Path) -> None:
    add_run(runs, f"{IDS[0]}-copy")
    assert find_run_folder(IDS[0], runs).id == IDS[0]


def test_a_run_is_found_by_its_path_wherever_it_lies(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    assert find_run_folder(str(runs / IDS[1]), elsewhere).id == IDS[1]
    assert find_run_folder(f"{runs / IDS[1]}/", elsewhere).id == IDS[1]
    monkeypatch.chdir(runs / IDS[1])
    assert find_run_folder(".", elsewhere).id == IDS[1]
    monkeypatch.setenv("HOME", str(runs))
    assert find_run_folder(f"~/{IDS[2]}", elsewhere).id == IDS[2]


def test_what_means_several_runs_lists_them(runs: Path) -> None:
    with pytest.raises(RunError) as caught:
        find_run_folder("2026-01-31", runs)
    assert str(caught.value) == f"'2026-01-31' means 2 runs: {IDS[1]}, {IDS[2]}. Write more of the name."


def test_a_typo_is_answered_with_the_nearest_run(runs: Path) -> None:
    with pytest.raises(RunError) as caught:
        find_run_folder("2026-01-30-lenet-aaa112", runs)
    assert str(caught.value) == (
        f"No run named '2026-01-30-lenet-aaa112' in {runs}. Did you mean {IDS[0]!r}? `conviction runs` lists them."
    )


@pytest.mark.parametrize("reference", ["", "zzz", "~nosuchuser/a", "a" * 300, "nul\0", "not-a-run"])
def test_what_means_no_run_is_refused(runs: Path, reference: str) -> None:
    with pytest.raises(RunError, match="No run named"):
        find_run_folder(reference, runs)


@pytest.mark.parametrize("reference", ["latest", "a", ""])
def test_without_any_run_the_way_to_one_is_shown(home: Path, reference: str) -> None:
    with pytest.raises(RunError, match=r"There is no run in .*runs\. Train one: conviction train"):
        find_run_folder(reference, home)


def test_only_folders_with_a_state_are_listed_oldest_first(runs: Path) -> None:
    assert [folder.id for folder in list_run_folders(runs)] == IDS


def test_the_split_is_a_list_of_paths(home: Path) -> None:
    folder = create_run_folder(home, "split")
    folder.write_split([("cat/1.png", "train"), ('a, "b"/ü.png', "test")])
    assert folder.split.read_text(encoding="utf-8") == 'path,split\ncat/1.png,train\n"a, ""b""/ü.png",test\n'
