"""Every run there is: what the ledger lists, brought up to date by the run folders, which know better.

The list needs no permission to write: where no ledger can be opened beside the runs, the folders alone make it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conviction.core.errors import ConvictionError
from conviction.core.ledger import Ledger, default_ledger_file
from conviction.core.records import EpochRecord, Score
from conviction.core.run_folder import RunFolder, list_run_folders

MISSING, DAMAGED = "missing", "damaged"


@dataclass(frozen=True)
class ListedRun:
    """One line of the list. `status` is that of the run, or that its folder is `missing` or `damaged`."""

    run: str
    recipe: str
    status: str
    created_at: str
    epochs: int
    seconds: float
    seed: int
    num_parameters: int
    folder: Path
    best: EpochRecord | None = None


def list_runs(home: Path, ledger_url: str | None = None) -> list[ListedRun]:
    """The runs in `home` and those in the ledger, newest first; with a `ledger_url`, those of that ledger alone.

    Raises: LedgerError where a ledger that was asked for cannot be reached.
    """
    found = {folder.id: _from_folder(folder) for folder in list_run_folders(home)}
    if ledger_url is None and not _may_open(default_ledger_file(home)):
        listed = found
    else:
        ledger = Ledger.beside(home, ledger_url)
        rows = [_from_row(row, home, ledger) for row in ledger.runs()]
        listed = {row.run: row for row in rows} | ({} if ledger_url else found)
    return sorted(listed.values(), key=lambda row: (row.created_at, row.run), reverse=True)


def _may_open(ledger: Path) -> bool:
    """Whether there is a ledger, and SQLite may write beside it, which it needs even for reading."""
    return ledger.exists() and os.access(ledger, os.W_OK) and os.access(ledger.parent, os.W_OK)


def _from_folder(folder: RunFolder) -> ListedRun:
    try:
        summary = folder.read_summary()
    except ConvictionError:
        return ListedRun(folder.id, "", DAMAGED, "", 0, 0.0, 0, 0, folder.path)
    return ListedRun(
        run=folder.id,
        recipe=summary.recipe,
        status=summary.status,
        created_at=summary.created_at,
        epochs=summary.epochs,
        seconds=summary.seconds,
        seed=summary.seed,
        num_parameters=summary.num_parameters,
        folder=folder.path,
        best=summary.best,
    )


def _from_row(row: dict[str, Any], home: Path, ledger: Ledger) -> ListedRun:
    """What the run's folder says, in `home` or where the ledger saw it last, or else what the ledger remembers."""
    places = [RunFolder(home / row["run"]), RunFolder(Path(row["folder"]))]
    present = next((folder for folder in places if folder.summary_file.is_file()), None)
    known = _from_folder(present) if present else None
    if known and known.status != DAMAGED:
        return known
    status, folder = (DAMAGED, known.folder) if known else (MISSING, Path(row["folder"]))
    return ListedRun(**{key: row[key] for key in _COPIED}, status=status, folder=folder, best=_best(row, ledger))


_COPIED = ("run", "recipe", "created_at", "epochs", "seconds", "seed", "num_parameters")


def _best(row: dict[str, Any], ledger: Ledger) -> EpochRecord | None:
    rates = {epoch["epoch"]: epoch["learning_rate"] for epoch in ledger.epochs(row["run"])}
    if row["best_epoch"] not in rates:
        return None
    validation = Score(row["best_validation_accuracy"], row["best_validation_loss"], row["validation_count"])
    return EpochRecord(row["best_epoch"], rates[row["best_epoch"]], validation)
