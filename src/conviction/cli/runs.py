"""`conviction runs`: list, show, compare, delete, rebuild."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conviction.cli.options import JsonOption, LedgerOption, RunArgument
from conviction.cli.output import (
    Column,
    epoch_json,
    percent,
    print_aside,
    print_json,
    print_lines,
    print_table,
    refuse_early_json,
    shown_duration,
    shown_score,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from conviction.core.ledger import Ledger
    from conviction.core.run_list import ListedRun

app = typer.Typer(help="The runs and their ledger.", invoke_without_command=True)
SORTS = ("created", "best", "loss", "name", "seconds")


@app.callback()
def runs(
    context: typer.Context,
    sort: Annotated[str, typer.Option("--sort", help=f"{', '.join(SORTS)}.")] = "created",
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the runs: the newest first, or by best validation accuracy (--sort best) or loss."""
    if context.invoked_subcommand is not None:
        refuse_early_json(as_json, f"conviction runs {context.invoked_subcommand}")
        return
    from conviction.core.errors import UnknownName
    from conviction.core.run_folder import list_unfinished_folders, runs_home
    from conviction.core.run_list import list_runs

    if sort not in SORTS:
        raise UnknownName("order", sort, SORTS)
    rows = sorted(list_runs(runs_home(), ledger), key=_sort_key(sort))
    for folder in list_unfinished_folders(runs_home()):
        print_aside(f"note: {folder.id} ended before its training began; `conviction runs delete` removes it.")
    if as_json:
        print_json({"runs": [_row_json(row) for row in rows]})
        return
    if not rows:
        print_lines(["There is no run yet. Train one: conviction train digits"])
        return
    print_table(_RUN_COLUMNS, [_row_cells(row) for row in rows])


@app.command()
def show(run: RunArgument = "latest", as_json: JsonOption = False) -> None:
    """Show one run: its figures, its epochs, its evaluations."""
    from conviction.cli.train import describe_places, run_json
    from conviction.core.records import Score, to_json
    from conviction.core.run_folder import find_run_folder, runs_home

    folder = find_run_folder(run, runs_home())
    summary, history, evaluations = folder.read_summary(), folder.read_history(), folder.read_evaluations()
    if as_json:
        more = {
            "data": to_json(summary.data),
            "history": [epoch_json(record) for record in history],
            "evaluations": [to_json(evaluation) for evaluation in evaluations],
        }
        print_json({**run_json(summary, folder.path), **more})
        return
    lines = [f"{summary.run}: {summary.status.replace('_', ' ')}, {summary.num_parameters:,} parameters"]
    lines += [summary.message] if summary.message else []
    lines += (
        [f"Validation  {shown_score(summary.best.validation)} nats: best epoch, {summary.best.epoch}"]
        if summary.best
        else []
    )
    for evaluation in evaluations:
        found = Score(evaluation.accuracy, evaluation.loss, evaluation.count)
        label = f"{evaluation.split.capitalize():<11}"
        lines.append(f"{label} {shown_score(found)} nats: {evaluation.weights} weights, {evaluation.evaluated_at}")
    print_lines([*lines, *describe_places(folder.path)])
    print_table(_EPOCH_COLUMNS, [_epoch_cells(record) for record in history])


@app.command()
def compare(
    runs: Annotated[list[str], typer.Argument(metavar="RUN RUN...", help="Two runs or more.")],
    as_json: JsonOption = False,
) -> None:
    """Compare runs: the settings that differ, and the results."""
    from conviction.core.errors import ConfigError
    from conviction.core.run_folder import find_run_folder, runs_home
    from conviction.report.comparison import compare_runs

    if len(runs) < 2:
        raise ConfigError(f"A comparison needs two runs at least, but got {len(runs)}.")
    compared = compare_runs([find_run_folder(reference, runs_home()) for reference in runs])
    if as_json:
        print_json(compared.as_json())
        return
    columns = [Column("", "left"), *(Column(_broken(name)) for name in compared.runs)]
    rows = [
        (key, *(_shown(key, value) for value in values))
        for key, values in {**compared.settings, **compared.results}.items()
    ]
    print_table(columns, rows)
    if not compared.settings:
        print_lines(["The settings are the same."])


@app.command()
def delete(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="The runs to delete.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete runs with all their files. Their openings of test sets stay in the ledger."""
    from conviction.core.errors import ConfigError
    from conviction.core.run_folder import find_run_folder, list_unfinished_folders, runs_home

    unfinished = {folder.id: folder for folder in list_unfinished_folders(runs_home())}
    found = [unfinished.get(reference) or find_run_folder(reference, runs_home()) for reference in runs]
    folders = list({folder.path.resolve(): folder for folder in found}.values())
    names = [folder.id for folder in folders]
    if not yes:
        if as_json or not sys.stdin.isatty():
            raise ConfigError(f"This would delete {', '.join(names)}. Say --yes where nobody can be asked.")
        typer.confirm(f"Delete {', '.join(names)} with all files?", abort=True, err=True)
    opened = _open_ledger(ledger)
    for folder in folders:
        folder.delete()
        opened.forget_run(folder.id)
    if as_json:
        print_json({"deleted": names})
    else:
        print_lines([f"Deleted {name}." for name in names])


@app.command()
def rebuild(ledger: LedgerOption = None, as_json: JsonOption = False) -> None:
    """Make the ledger's index of runs and epochs anew from the run folders. Openings of test sets stay."""
    from conviction.core.errors import ConvictionError
    from conviction.core.run_folder import list_run_folders, runs_home

    found, unreadable = [], []
    for folder in list_run_folders(runs_home()):
        try:
            found.append((folder.read_summary(), folder.read_history(), folder.path))
        except ConvictionError as error:
            unreadable.append(folder.id)
            print_aside(f"note: left out: {error}")
    num_runs = _open_ledger(ledger).rebuild(found)
    if as_json:
        print_json({"runs": num_runs, "unreadable": unreadable})
    else:
        print_lines([f"The ledger lists {num_runs} runs."])


def _open_ledger(url: str | None) -> Ledger:
    from conviction.core.ledger import Ledger
    from conviction.core.run_folder import runs_home

    return Ledger.beside(runs_home(), url)


def _row_json(row: ListedRun) -> dict[str, Any]:
    return {
        "run": row.run,
        "recipe": row.recipe,
        "status": row.status,
        "best": epoch_json(row.best),
        "created_at": row.created_at,
        "epochs": row.epochs,
        "seconds": row.seconds,
        "seed": row.seed,
        "num_parameters": row.num_parameters,
        "folder": str(row.folder.resolve()),
    }


_RUN_COLUMNS = [
    Column("run", "left"),
    Column("recipe", "left", rank=6),
    Column("status", "left"),
    Column("epochs", rank=3),
    Column("best\nepoch", rank=4),
    Column("validation\naccuracy"),
    Column("validation\nloss", rank=1),
    Column("seed", rank=2),
    Column("time", rank=5),
]


def _row_cells(row: ListedRun) -> tuple[str, ...]:
    best = row.best.validation if row.best else None
    return (
        row.run,
        row.recipe,
        row.status.replace("_", " "),
        str(row.epochs),
        str(row.best.epoch) if row.best else "–",
        f"{percent(best.accuracy)} of {best.count:,}" if best else "–",
        f"{best.loss:.4f}" if best else "–",
        str(row.seed),
        shown_duration(row.seconds),
    )


def _sort_key(sort: str) -> Callable[[ListedRun], Any]:
    def key(row: ListedRun) -> Any:
        best = row.best.validation if row.best else None
        if sort == "best":
            return -best.accuracy if best else 1.0
        if sort == "loss":
            return best.loss if best else float("inf")
        return row.run if sort == "name" else row.seconds if sort == "seconds" else 0

    return key


_EPOCH_COLUMNS = [
    Column("epoch"),
    Column("training\nloss", rank=2),
    Column("training\naccuracy", rank=2),
    Column("validation\nloss"),
    Column("validation\naccuracy"),
    Column("learning\nrate", rank=1),
]


def _epoch_cells(record: Any) -> tuple[str, ...]:
    train = record.train
    return (
        str(record.epoch),
        f"{train.loss:.4f}" if train else "–",
        percent(train.accuracy) if train else "–",
        f"{record.validation.loss:.4f}",
        percent(record.validation.accuracy),
        f"{record.learning_rate:.3g}",
    )


def _broken(run: str) -> str:
    """A run's id with a line each for its date, its name and its last part."""
    return re.sub(r"^(\d{4}-\d\d-\d\d)-(.*)-(\w+)$", r"\1\n\2\n\3", run)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_shown(key, part) for part in value) or "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return percent(value) if "accuracy" in key else f"{value:.6g}"
    return f"{value:,}" if key == "parameters" else str(value)
