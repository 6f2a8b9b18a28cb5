"""The ledger: an SQL index of runs and epochs, and the one lasting record of every opening of a test set.

Runs and epochs can be rebuilt from the run folders. Openings cannot, so nothing here deletes them.
"""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from conviction.core.errors import LedgerError, NewerFormat, StorageError
from conviction.core.files import make_folder
from conviction.core.records import EpochRecord, RunSummary

SCHEMA_VERSION = 1
WAIT_FOR_LOCK_S = 30
WAL_PAUSE_S = 0.02
_DRIVERS = ("sqlite", "sqlite+pysqlite", "postgresql", "postgresql+psycopg")
_ADDRESSES = "Use sqlite:///PATH or postgresql+psycopg://USER@HOST/DATABASE."

_tables = sql.MetaData()
_versions = sql.Table("conviction_schema", _tables, sql.Column("version", sql.Integer, primary_key=True))
_runs = sql.Table(
    "runs",
    _tables,
    sql.Column("run", sql.String(200), primary_key=True),
    sql.Column("name", sql.Text, nullable=False),
    sql.Column("recipe", sql.Text, nullable=False),
    sql.Column("status", sql.String(20), nullable=False),
    sql.Column("created_at", sql.String(40), nullable=False),
    sql.Column("folder", sql.Text, nullable=False),
    sql.Column("seed", sql.BigInteger, nullable=False),
    sql.Column("data_digest", sql.String(64), nullable=False),
    sql.Column("split_digest", sql.String(64), nullable=False),
    sql.Column("num_parameters", sql.BigInteger, nullable=False),
    sql.Column("epochs", sql.Integer, nullable=False),
    sql.Column("seconds", sql.Float(53), nullable=False),
    sql.Column("best_epoch", sql.Integer),
    sql.Column("best_validation_accuracy", sql.Float(53)),
    sql.Column("best_validation_loss", sql.Float(53)),
    sql.Column("validation_count", sql.Integer),
)
_epochs = sql.Table(
    "epochs",
    _tables,
    sql.Column("run", sql.String(200), primary_key=True),
    sql.Column("epoch", sql.Integer, primary_key=True),
    sql.Column("learning_rate", sql.Float(53), nullable=False),
    sql.Column("train_accuracy", sql.Float(53)),
    sql.Column("train_loss", sql.Float(53)),
    sql.Column("validation_accuracy", sql.Float(53), nullable=False),
    sql.Column("validation_loss", sql.Float(53), nullable=False),
)
_openings = sql.Table(
    "openings",
    _tables,
    sql.Column("opening", sql.Integer, primary_key=True, autoincrement=True),
    sql.Column("run", sql.String(200), nullable=False, index=True),
    sql.Column("test_digest", sql.String(64), nullable=False, index=True),
    sql.Column("opened_at", sql.String(40), nullable=False),
    sql.Column("weights", sql.String(20), nullable=False),
    sql.Column("accuracy", sql.Float(53)),
    sql.Column("loss", sql.Float(53)),
    sql.Column("count", sql.Integer),
)


@dataclass(frozen=True)
class Opening:
    """One look at a test set: by which run, at which test images, when, and what was seen."""

    opening: int
    run: str
    test_digest: str
    opened_at: str
    weights: str
    accuracy: float | None
    loss: float | None
    count: int | None


def default_ledger_file(home: Path) -> Path:
    """Where the ledger of the runs in `home` lies, unless another one is named."""
    return home.resolve() / "ledger.db"


class Ledger:
    """A connection to the ledger at `url`, whose tables are made where they are missing.

    Raises: LedgerError where the database cannot be reached, NewerFormat where a later version made it.
    """

    def __init__(self, url: str | sql.URL) -> None:
        self._address = _address(url)
        self.url = self._address.render_as_string(hide_password=False)
        self._is_sqlite = self._address.get_backend_name() == "sqlite"
        with self._faults():
            arguments = {"timeout": WAIT_FOR_LOCK_S} if self._is_sqlite else {"connect_timeout": 10}
            self._engine = sql.create_engine(self._address, connect_args=arguments, poolclass=sql.pool.NullPool)
            if self._is_sqlite:
                sql.event.listen(self._engine, "connect", _prepare_sqlite)
            self._create_tables()

    @classmethod
    def beside(cls, home: Path, url: str | None = None) -> Ledger:
        """The ledger at `url`, or the SQLite file `ledger.db` beside the runs in `home`.

        Raises: LedgerError, StorageError.
        """
        if url:
            return cls(url)
        make_folder(home)
        file = default_ledger_file(home)
        # SQLite itself would say only that it is unable to open the file.
        for path in (home, file):
            if path.exists() and not os.access(path, os.W_OK):
                raise StorageError(
                    f"Cannot write {path}, the place of the ledger: the folder is read-only or permission is missing. "
                    "Copy the runs to a place that can be written, and set CONVICTION_HOME to it."
                )
        # Not a text, in which a question mark or a percent sign of the path would have a meaning of its own.
        return cls(sql.URL.create("sqlite", database=str(file)))

    def record_run(self, summary: RunSummary, folder: Path) -> None:
        """Enter a run or bring its row up to date."""
        with self._writing() as connection:
            self._upsert(connection, _runs, [_run_row(summary, folder)])

    def record_epochs(self, run: str, history: Iterable[EpochRecord]) -> None:
        """Enter epochs or bring their rows up to date."""
        with self._writing() as connection:
            self._upsert(connection, _epochs, _epoch_rows(run, history))

    def runs(self) -> list[dict[str, Any]]:
        """Every run's row, newest first."""
        with self._reading() as connection:
            # The same order everywhere: a PostgreSQL server sorts text by the rules of its own language.
            by_bytes = "BINARY" if self._is_sqlite else "C"
            newest = [sql.collate(column, by_bytes).desc() for column in (_runs.c.created_at, _runs.c.run)]
            rows = connection.execute(sql.select(_runs).order_by(*newest))
            return [dict(row) for row in rows.mappings()]

    def epochs(self, run: str) -> list[dict[str, Any]]:
        """The rows of one run's epochs, in their order."""
        with self._reading() as connection:
            rows = connection.execute(sql.select(_epochs).where(_epochs.c.run == run).order_by(_epochs.c.epoch))
            return [dict(row) for row in rows.mappings()]

    def forget_run(self, run: str) -> None:
        """Remove a run and its epochs from the index; its openings stay."""
        with self._writing() as connection:
            for table in (_epochs, _runs):
                connection.execute(sql.delete(table).where(table.c.run == run))

    def rebuild(self, runs: Iterable[tuple[RunSummary, list[EpochRecord], Path]]) -> int:
        """Replace the index by what the run folders say, all at once, and return their number; openings stay."""
        found = list(runs)
        with self._writing() as connection:
            for table in (_epochs, _runs):
                connection.execute(sql.delete(table))
            self._upsert(connection, _runs, [_run_row(summary, folder) for summary, _, folder in found])
            for summary, history, _ in found:
                self._upsert(connection, _epochs, _epoch_rows(summary.run, history))
        return len(found)

    def open_test(self, run: str, test_digest: str, weights: str) -> int:
        """Record, before anything is seen, that `run` looks at a test set; returns the opening's number."""
        row = {
            "run": run,
            "test_digest": test_digest,
            "weights": weights,
            "opened_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._writing() as connection:
            result = connection.execute(sql.insert(_openings).values(**row))
            assert result.inserted_primary_key is not None
            return int(result.inserted_primary_key[0])

    def complete_opening(self, opening: int, accuracy: float, loss: float, count: int) -> None:
        """Enter what the look found."""
        found = {"accuracy": accuracy, "loss": loss, "count": count}
        with self._writing() as connection:
            done = connection.execute(sql.update(_openings).where(_openings.c.opening == opening).values(**found))
            if done.rowcount != 1:
                raise LedgerError(f"The ledger {self._shown_url()} has no opening {opening}: is it another ledger?")

    def openings(self, run: str | None = None, test_digest: str | None = None) -> list[Opening]:
        """The openings of one run, of one test set, or all, in their order."""
        query = sql.select(_openings).order_by(_openings.c.opening)
        if run is not None:
            query = query.where(_openings.c.run == run)
        if test_digest is not None:
            query = query.where(_openings.c.test_digest == test_digest)
        with self._reading() as connection:
            return [Opening(**row) for row in connection.execute(query).mappings()]

    def _create_tables(self) -> None:
        with self._writing() as connection:
            if not self._is_sqlite:
                connection.execute(sql.text("SELECT pg_advisory_xact_lock(7061771)"))
            _versions.create(connection, checkfirst=True)
            version = connection.execute(sql.select(sql.func.max(_versions.c.version))).scalar()
            if version is None:
                self._upsert(connection, _versions, [{"version": SCHEMA_VERSION}])
            elif version > SCHEMA_VERSION:
                raise NewerFormat(
                    f"The ledger has schema {version}, and this version of Conviction knows up to {SCHEMA_VERSION}: "
                    "update Conviction."
                )
            _tables.create_all(connection)

    def _upsert(self, connection: sql.Connection, table: sql.Table, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        if self._is_sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        statement = insert(table)
        keys = [column.name for column in table.primary_key]
        changes = {column.name: statement.excluded[column.name] for column in table.c if column.name not in keys}
        if changes:
            statement = statement.on_conflict_do_update(index_elements=keys, set_=changes)
        else:
            statement = statement.on_conflict_do_nothing()
        connection.execute(statement, rows)

    @contextmanager
    def _reading(self) -> Iterator[sql.Connection]:
        with self._faults(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sql.Connection]:
        with self._faults(), self._engine.begin() as connection:
            if self._is_sqlite:
                # Take the write lock at once: a transaction that reads first and writes later cannot wait for it.
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            yield connection

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except ModuleNotFoundError as error:
            raise LedgerError(
                f"The ledger's driver is not installed ({error.name}). Type: pip install 'conviction[postgresql]'"
            ) from error
        except (SQLAlchemyError, OverflowError, UnicodeError) as error:
            lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
            raise LedgerError(f"The ledger {self._shown_url()} cannot be used: {lines[0].rstrip('.')}.") from error

    def _shown_url(self) -> str:
        return _without_options(self._address.render_as_string(hide_password=True))


def _address(url: str | sql.URL) -> sql.URL:
    try:
        address = sql.make_url(url)
    except (ArgumentError, ValueError):
        shown = _without_options(re.sub(r":.*@", ":***@", str(url)))
        raise LedgerError(f"{shown!r} is no ledger address. {_ADDRESSES}") from None
    if address.drivername not in _DRIVERS:
        raise LedgerError(
            f"{address.drivername!r} is none of the ledger's drivers: {', '.join(_DRIVERS)}. {_ADDRESSES}"
        )
    if address.get_backend_name() == "postgresql":
        return address.set(drivername="postgresql+psycopg")
    if address.database in (None, "", ":memory:"):
        raise LedgerError(f"The ledger needs a file, and {str(url)!r} names none. {_ADDRESSES}")
    if address.query:
        raise LedgerError(f"An SQLite ledger takes no options, but got {str(url)!r}. {_ADDRESSES}")
    return address


def _without_options(url: str) -> str:
    """The address without its options, among which a password may stand."""
    return url.partition("?")[0]


def _run_row(summary: RunSummary, folder: Path) -> dict[str, Any]:
    best = summary.best
    return {
        "run": summary.run,
        "name": summary.name,
        "recipe": summary.recipe,
        "status": summary.status,
        "created_at": summary.created_at,
        "folder": str(folder.resolve()),
        "seed": summary.seed,
        "data_digest": summary.data.digest,
        "split_digest": summary.data.split_digest,
        "num_parameters": summary.num_parameters,
        "epochs": summary.epochs,
        "seconds": summary.seconds,
        "best_epoch": best.epoch if best else None,
        "best_validation_accuracy": best.validation.accuracy if best else None,
        "best_validation_loss": best.validation.loss if best else None,
        "validation_count": best.validation.count if best else None,
    }


def _epoch_rows(run: str, history: Iterable[EpochRecord]) -> list[dict[str, Any]]:
    return [
        {
            "run": run,
            "epoch": record.epoch,
            "learning_rate": record.learning_rate,
            "train_accuracy": record.train.accuracy if record.train else None,
            "train_loss": record.train.loss if record.train else None,
            "validation_accuracy": record.validation.accuracy,
            "validation_loss": record.validation.loss,
        }
        for record in history
    ]


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    _switch_to_wal(cursor)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()


def _switch_to_wal(cursor: Any) -> None:
    """Turn on the write-ahead log. SQLite does not wait for other processes here, so that we do."""
    deadline = time.monotonic() + WAIT_FOR_LOCK_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(WAL_PAUSE_S)
