import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sql

from conviction.core.errors import LedgerError, NewerFormat, StorageError
from conviction.core.ledger import Ledger
from conviction.core.records import DataRecord, EpochRecord, RunSummary, Score

DATA = DataRecord("digits", "digits", "d" * 64, "s" * 64, ("0", "1"), 1, 8, 8, 100, 20, 30)
SUMMARY = RunSummary("a", "lenet", "digits", "running", "2026-01-31T10:00:00+00:00", 2**62, DATA, 1000)
FOLDER = Path("/somewhere/runs/a")


def epoch(number: int, accuracy: float = 0.5, train: Score | None = None) -> EpochRecord:
    return EpochRecord(number, 0.1, Score(accuracy, 1.25, 20), train)


def execute(url: str, *statements: str) -> None:
    engine = sql.create_engine(url, poolclass=sql.pool.NullPool)
    with engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


def tables(url: str) -> set[str]:
    return set(sql.inspect(sql.create_engine(url, poolclass=sql.pool.NullPool)).get_table_names())


class LedgerContract:
    """What holds whichever database keeps the ledger; a subclass gives the `url` of an empty one."""

    @pytest.fixture
    def ledger(self, url: str) -> Ledger:
        return Ledger(url)

    def test_a_run_is_entered_with_what_its_summary_says(self, ledger: Ledger) -> None:
        ledger.record_run(dataclasses.replace(SUMMARY, seconds=0.1, best=epoch(3, accuracy=0.7)), FOLDER)
        assert ledger.runs() == [
            {
                "run": "a",
                "name": "lenet",
                "recipe": "digits",
                "status": "running",
                "created_at": "2026-01-31T10:00:00+00:00",
                "folder": str(FOLDER),
                "seed": 2**62,
                "data_digest": "d" * 64,
                "split_digest": "s" * 64,
                "num_parameters": 1000,
                "epochs": 0,
                "seconds": 0.1,
                "best_epoch": 3,
                "best_validation_accuracy": 0.7,
                "best_validation_loss": 1.25,
                "validation_count": 20,
            }
        ]

    def test_a_run_entered_again_is_brought_up_to_date(self, ledger: Ledger) -> None:
        ledger.record_run(SUMMARY, FOLDER)
        assert ledger.runs()[0]["best_epoch"] is None
        ledger.record_run(dataclasses.replace(SUMMARY, status="finished", epochs=3, best=epoch(2)), FOLDER)
        [row] = ledger.runs()
        assert (row["status"], row["epochs"], row["best_epoch"]) == ("finished", 3, 2)

    def test_epochs_entered_again_are_brought_up_to_date(self, ledger: Ledger) -> None:
        ledger.record_epochs("a", [epoch(1), epoch(0)])
        ledger.record_epochs("a", [epoch(1, accuracy=0.75, train=Score(0.25, 2.0, 100)), epoch(2)])
        ledger.record_epochs("b", [epoch(7)])
        ledger.record_epochs("b", [])
        found = [(row["epoch"], row["validation_accuracy"], row["train_accuracy"]) for row in ledger.epochs("a")]
        assert found == [(0, 0.5, None), (1, 0.75, 0.25), (2, 0.5, None)]
        assert [row["epoch"] for row in ledger.epochs("b")] == [7]
        assert ledger.epochs("c") == []

    def test_floats_are_kept_exactly(self, ledger: Ledger) -> None:
        values = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 1e-17]
        ledger.record_epochs("a", [epoch(number, accuracy=value) for number, value in enumerate(values)])
        assert [row["validation_accuracy"] for row in ledger.epochs("a")] == values

    def test_runs_come_newest_first_and_then_by_the_bytes_of_their_names(self, ledger: Ledger) -> None:
        days = {"old": "2026-01-01", "B-2": "2026-01-31", "a-1": "2026-01-31", "new": "2026-02-01"}
        for run, day in days.items():
            ledger.record_run(dataclasses.replace(SUMMARY, run=run, created_at=f"{day}T10:00:00+00:00"), FOLDER)
        assert [row["run"] for row in ledger.runs()] == ["new", "a-1", "B-2", "old"]

    def test_a_forgotten_run_leaves_the_others_and_its_openings(self, ledger: Ledger) -> None:
        for run in ("a", "b"):
            ledger.record_run(dataclasses.replace(SUMMARY, run=run), FOLDER)
            ledger.record_epochs(run, [epoch(0)])
            ledger.open_test(run, "t" * 64, "best")
        ledger.forget_run("a")
        ledger.forget_run("never there")
        assert [row["run"] for row in ledger.runs()] == ["b"]
        assert ledger.epochs("a") == []
        assert len(ledger.epochs("b")) == 1
        assert [opening.run for opening in ledger.openings()] == ["a", "b"]

    def test_an_opening_is_recorded_before_anything_is_seen_and_completed_later(self, ledger: Ledger) -> None:
        first, second = (ledger.open_test("a", "t" * 64, weights) for weights in ("best", "last"))
        assert first < second
        ledger.complete_opening(first, accuracy=0.5, loss=1.25, count=30)
        done, begun = ledger.openings()
        assert (done.opening, done.run, done.test_digest, done.weights) == (first, "a", "t" * 64, "best")
        assert (done.accuracy, done.loss, done.count) == (0.5, 1.25, 30)
        assert (begun.opening, begun.accuracy, begun.loss, begun.count) == (second, None, None, None)
        assert begun.opened_at.endswith("+00:00")

    def test_openings_are_found_by_run_and_by_test_set(self, ledger: Ledger) -> None:
        numbers = [ledger.open_test(run, digest, "best") for run, digest in (("a", "t"), ("b", "t"), ("a", "u"))]
        assert [opening.opening for opening in ledger.openings()] == numbers
        assert [opening.test_digest for opening in ledger.openings(run="a")] == ["t", "u"]
        assert [opening.run for opening in ledger.openings(test_digest="t")] == ["a", "b"]
        assert [opening.opening for opening in ledger.openings(run="a", test_digest="u")] == numbers[2:]
        assert ledger.openings(run="c") == []

    def test_an_opening_of_another_ledger_cannot_be_completed(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError, match="has no opening 5"):
            ledger.complete_opening(5, accuracy=0.5, loss=1.25, count=30)

    def test_rebuilding_replaces_the_index_and_keeps_the_openings(self, ledger: Ledger) -> None:
        ledger.record_run(SUMMARY, FOLDER)
        ledger.record_epochs("a", [epoch(0)])
        ledger.open_test("a", "t", "best")
        again = [(dataclasses.replace(SUMMARY, run=run), [epoch(0), epoch(1)], FOLDER) for run in ("b", "c")]
        assert ledger.rebuild(iter(again)) == 2
        assert [row["run"] for row in ledger.runs()] == ["c", "b"]
        assert ledger.epochs("a") == []
        assert len(ledger.epochs("b")) == len(ledger.epochs("c")) == 2
        assert [opening.run for opening in ledger.openings()] == ["a"]
        assert ledger.rebuild([]) == 0
        assert ledger.runs() == []

    def test_rebuilding_is_all_or_nothing(self, ledger: Ledger) -> None:
        ledger.record_run(SUMMARY, FOLDER)
        ledger.record_epochs("a", [epoch(0)])
        broken: Any = dataclasses.replace(epoch(1), learning_rate=None)
        with pytest.raises(LedgerError, match="cannot be used"):
            ledger.rebuild([(dataclasses.replace(SUMMARY, run="b"), [epoch(0), broken], FOLDER)])
        assert [row["run"] for row in ledger.runs()] == ["a"]
        assert len(ledger.epochs("a")) == 1

    @pytest.mark.parametrize("changes", [{"seed": 2**64}, {"name": "lone \udce9"}])
    def test_what_the_database_cannot_hold_is_refused_and_nothing_is_entered(
        self, ledger: Ledger, changes: Any
    ) -> None:
        with pytest.raises(LedgerError) as caught:
            ledger.record_run(dataclasses.replace(SUMMARY, **changes), FOLDER)
        assert "\n" not in str(caught.value)
        assert ledger.runs() == []

    def test_a_second_ledger_at_the_same_place_sees_the_same(self, ledger: Ledger) -> None:
        ledger.record_run(SUMMARY, FOLDER)
        assert Ledger(ledger.url).runs() == ledger.runs()

    def test_a_newer_schema_is_refused_and_left_as_it_is(self, url: str) -> None:
        execute(url, "CREATE TABLE conviction_schema (version INTEGER)", "INSERT INTO conviction_schema VALUES (2)")
        with pytest.raises(NewerFormat) as caught:
            Ledger(url)
        assert str(caught.value) == (
            "The ledger has schema 2, and this version of Conviction knows up to 1: update Conviction."
        )
        assert tables(url) == {"conviction_schema"}

    def test_foreign_tables_are_not_taken_for_the_ledgers(self, url: str) -> None:
        execute(url, "CREATE TABLE runs (experiment INTEGER)")
        with pytest.raises(LedgerError, match=r"cannot be used: .*(created_at|column)"):
            Ledger(url).runs()

    def test_processes_create_the_tables_and_write_at_once(self, url: str) -> None:
        code = """
import dataclasses, json, sys
from pathlib import Path
from conviction.core.ledger import Ledger
from conviction.core.records import EpochRecord, RunSummary, from_json
url, run, summary = sys.argv[1:]
summary = dataclasses.replace(from_json(RunSummary, json.loads(summary)), run=run)
print("ready", flush=True)
sys.stdin.readline()
ledger = Ledger(url)
for number in range(10):
    ledger.record_run(dataclasses.replace(summary, epochs=number), Path("a"))
    ledger.record_epochs(run, [dataclasses.replace(summary.best, epoch=number)])
    ledger.complete_opening(ledger.open_test(run, "t", "best"), 0.5, 1.25, number)
"""
        names = ["a", "b", "c", "d"]
        summary = json.dumps(dataclasses.asdict(dataclasses.replace(SUMMARY, best=epoch(0))))
        pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        writers = [subprocess.Popen([sys.executable, "-c", code, url, name, summary], **pipes) for name in names]
        for writer in writers:
            assert writer.stdout.readline() == "ready\n"
        for writer in writers:
            writer.stdin.write("go\n")
            writer.stdin.flush()
        assert [writer.communicate(timeout=60)[1] for writer in writers] == [""] * 4
        ledger = Ledger(url)
        assert [(row["run"], row["epochs"]) for row in ledger.runs()] == [(name, 9) for name in reversed(names)]
        assert [len(ledger.epochs(name)) for name in names] == [10] * 4
        openings = ledger.openings(test_digest="t")
        assert sorted((opening.run, opening.count) for opening in openings) == [
            (name, number) for name in names for number in range(10)
        ]
        assert len({opening.opening for opening in openings}) == 40


class TestSqlite(LedgerContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return f"sqlite:///{tmp_path / 'ledger.db'}"

    def test_readers_and_a_writer_do_not_wait_for_each_other(self, ledger: Ledger) -> None:
        engine = sql.create_engine(ledger.url, poolclass=sql.pool.NullPool)
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            connection.exec_driver_sql("DELETE FROM runs")
            assert ledger.runs() == []

    @pytest.mark.parametrize("content", [b"this is no database " * 300, b"SQLite format 3\0" + b"\xff" * 5000])
    def test_a_damaged_file_is_named_and_left_as_it_is(self, tmp_path: Path, url: str, content: bytes) -> None:
        (tmp_path / "ledger.db").write_bytes(content)
        with pytest.raises(LedgerError) as caught:
            Ledger(url)
        assert str(caught.value).startswith(f"The ledger {url} cannot be used: file is not a database.")
        assert (tmp_path / "ledger.db").read_bytes() == content

    def test_a_file_damaged_in_its_middle_is_refused_when_it_is_read(self, tmp_path: Path, ledger: Ledger) -> None:
        ledger.record_epochs("a", [epoch(number) for number in range(500)])
        execute(ledger.url, "PRAGMA wal_checkpoint(TRUNCATE)")
        content = (tmp_path / "ledger.db").read_bytes()
        (tmp_path / "ledger.db").write_bytes(content[:8192] + b"\xff" * (len(content) - 8192))
        with pytest.raises(LedgerError, match="cannot be used: database disk image is malformed"):
            ledger.epochs("a")

    def test_a_file_in_a_folder_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path / 'absent' / 'ledger.db'}"
        with pytest.raises(LedgerError) as caught:
            Ledger(url)
        assert str(caught.value) == f"The ledger {url} cannot be used: unable to open database file."

    @pytest.mark.parametrize("name", ["runs", "what? & 100%20 #1"])
    def test_the_ledger_lies_beside_the_runs(self, tmp_path: Path, name: str) -> None:
        home = tmp_path / name
        Ledger.beside(home).record_run(SUMMARY, FOLDER)
        assert (home / "ledger.db").is_file()
        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert len(Ledger.beside(home).runs()) == 1

    def test_another_address_takes_the_place_of_the_file_beside_the_runs(self, tmp_path: Path, url: str) -> None:
        Ledger.beside(tmp_path / "runs", url).record_run(SUMMARY, FOLDER)
        assert not (tmp_path / "runs").exists()
        assert len(Ledger(url).runs()) == 1

    def test_a_file_in_the_place_of_the_runs_is_a_storage_error(self, tmp_path: Path) -> None:
        (tmp_path / "runs").write_text("")
        with pytest.raises(StorageError, match="a file stands where a folder is needed"):
            Ledger.beside(tmp_path / "runs")


class TestPostgresql(LedgerContract):
    @pytest.fixture
    def url(self, postgresql_url: str) -> str:
        return postgresql_url

    def test_the_driver_need_not_be_named(self, ledger: Ledger) -> None:
        ledger.record_run(SUMMARY, FOLDER)
        assert Ledger(ledger.url.replace("postgresql+psycopg:", "postgresql:")).runs() == ledger.runs()

    def test_a_refused_password_is_not_shown(self, url: str) -> None:
        wrong = sql.make_url(url).set(password="open sesame").render_as_string(hide_password=False)
        with pytest.raises(LedgerError, match='password authentication failed for user "conviction"') as caught:
            Ledger(wrong)
        assert "sesame" not in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_a_database_that_is_not_there_is_named(self, url: str) -> None:
        other = sql.make_url(url).set(database="nowhere").render_as_string(hide_password=False)
        with pytest.raises(LedgerError, match='database "nowhere" does not exist'):
            Ledger(other)

    def test_a_server_that_goes_away_is_a_ledger_error(self, ledger: Ledger) -> None:
        name = sql.make_url(ledger.url).database
        admin = sql.make_url(ledger.url).set(database="postgres")
        engine = sql.create_engine(admin, isolation_level="AUTOCOMMIT", poolclass=sql.pool.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}")
        with pytest.raises(LedgerError, match="cannot be used"):
            ledger.record_run(SUMMARY, FOLDER)


SECRET = "open-sesame"
NO_ADDRESS = "is no ledger address. Use sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE."


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", f"'' {NO_ADDRESS}"),
        ("nonsense", f"'nonsense' {NO_ADDRESS}"),
        (f"postgres:/ada:{SECRET}@host/db", f"'postgres:***@host/db' {NO_ADDRESS}"),
        (f"postgresql:ada:{SECRET}@host", f"'postgresql:***@host' {NO_ADDRESS}"),
        (f"postgresql://ada:{SECRET}@host:port/db", f"'postgresql:***@host:port/db' {NO_ADDRESS}"),
        (f"postgresql//host?password={SECRET}", f"'postgresql//host' {NO_ADDRESS}"),
        (
            f"mysql://ada:{SECRET}@host/db",
            "'mysql' is none of the ledger's drivers: sqlite, sqlite+pysqlite, postgresql",
        ),
        (f"postgresql+foo://ada:{SECRET}@host/db", "'postgresql+foo' is none of the ledger's drivers: sqlite"),
        ("sqlite://", "The ledger needs a file, and 'sqlite://' names none."),
        ("sqlite:///:memory:", "The ledger needs a file, and 'sqlite:///:memory:' names none."),
        ("sqlite:///a.db?timeout=x", "An SQLite ledger takes no options, but got 'sqlite:///a.db?timeout=x'."),
        (
            f"postgresql://ada:{SECRET}@127.0.0.1:1/db",
            "The ledger postgresql+psycopg://ada:***@127.0.0.1:1/db cannot be used: connection failed: ",
        ),
        (
            f"postgresql+psycopg://ada@127.0.0.1:1/db?password={SECRET}",
            "The ledger postgresql+psycopg://ada@127.0.0.1:1/db cannot be used: connection failed: ",
        ),
        (
            f"postgresql://ada:{SECRET}@127.0.0.1:1/db?sslmode=none",
            "The ledger postgresql+psycopg://ada:***@127.0.0.1:1/db cannot be used: ",
        ),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_in_one_line_without_its_password(url: str, message: str) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(LedgerError) as caught:
        Ledger(url)
    assert str(caught.value).startswith(message)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_absent_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(LedgerError) as caught:
        Ledger("postgresql://ada@127.0.0.1:1/db")
    assert str(caught.value) == (
        "The ledger's driver is not installed (psycopg). Type: pip install 'conviction[postgresql]'"
    )
