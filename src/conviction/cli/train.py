"""`conviction train` and `conviction resume`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conviction.cli.options import JsonOption, LedgerOption, ProcessesOption, RunArgument, SetOption
from conviction.cli.output import epoch_json, print_json, print_lines, shown_duration, shown_score

if TYPE_CHECKING:
    from conviction import Run
    from conviction.cli.progress import PlainWatcher
    from conviction.core.records import RunSummary

# Building the network and looking into the cache take less.
LEAST_SHOWN_S = 1.0
RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A built-in recipe (see `conviction recipes`) or a YAML file.")
]


def train(
    recipe: RecipeArgument,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    processes: ProcessesOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train a recipe; ends with the best validation figures and where the run lies.

    The test split stays sealed: `conviction evaluate` opens it.
    """
    from conviction import train as train_recipe
    from conviction.cli.progress import watcher
    from conviction.run.recipe import parse_overrides

    overrides = parse_overrides(assignments)
    with watcher() as seen, _interruption(seen):
        run = train_recipe(recipe, overrides, processes=_number(processes, 1), ledger_url=ledger, watcher=seen)
    _report(run, as_json)


def resume(
    run: RunArgument = "latest",
    processes: ProcessesOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was killed or interrupted, as if nothing had happened."""
    from conviction import resume as resume_run
    from conviction.cli.progress import watcher

    with watcher() as seen, _interruption(seen):
        resumed = resume_run(run, processes=_number(processes, None), ledger_url=ledger, watcher=seen)
    _report(resumed, as_json)


def _number(processes: str | None, default: int | None) -> Any:
    """What `--processes` was given, as a number where it is one; the run says what else is allowed."""
    try:
        return default if processes is None else int(processes)
    except ValueError:
        return processes


@contextmanager
def _interruption(seen: PlainWatcher) -> Iterator[None]:
    """Say what an interruption leaves behind: a run to go on with, once one has begun."""
    from conviction.core.errors import Interrupted

    try:
        yield
    except KeyboardInterrupt:
        if not seen.run:
            raise
        raise Interrupted(f"Interrupted. The best weights are kept; go on with: conviction resume {seen.run}") from None


def _report(run: Run, as_json: bool) -> None:
    summary = run.summary
    if as_json:
        print_json(run_json(summary, run.path))
    else:
        print_lines(describe_end(summary, run.path))


def run_json(summary: RunSummary, path: Path) -> dict[str, Any]:
    """The fixed fields of `train` and `resume`, and some more."""
    return {
        "run": summary.run,
        "epochs": summary.epochs,
        "seconds": summary.seconds,
        "preparation_s": summary.preparation_s,
        "images_per_second": summary.images_per_second,
        "peak_memory_bytes": summary.peak_memory_bytes,
        "best": epoch_json(summary.best),
        "last": epoch_json(summary.last),
        "recipe": summary.recipe,
        "status": summary.status,
        "seed": summary.seed,
        "processes": summary.num_processes,
        "path": str(path.resolve()),
        "notes": list(summary.data.notes),
    }


def describe_end(summary: RunSummary, path: Path) -> list[str]:
    """How a training ended, for a person."""
    best = summary.best
    assert best is not None
    ended = "stopped early" if summary.status == "stopped_early" else summary.status
    short = summary.run.rsplit("-", 1)[-1]
    return [
        "",
        f"Validation  {shown_score(best.validation)} nats: best epoch, {best.epoch} of {summary.epochs} ({ended})",
        f"Time        {shown_duration(summary.seconds)}{_preparation(summary)}, {summary.images_per_second:,.0f} "
        f"training images a second, at most {summary.peak_memory_bytes / 1e6:,.0f} MB of memory",
        *describe_places(path),
        "",
        f"The test split is sealed. To open it, on record:  conviction evaluate {short}",
    ]


def _preparation(summary: RunSummary) -> str:
    """What came before the epochs, where it took time: a training that is compiled is not as fast as its steps."""
    if summary.preparation_s < LEAST_SHOWN_S:
        return ""
    return f" after {shown_duration(summary.preparation_s)} of preparation"


def describe_places(path: Path) -> list[str]:
    """Where the run, its curves and its filters lie."""
    shown = Path(os.path.relpath(path)) if not str(os.path.relpath(path)).startswith("..") else path.resolve()
    places = [f"Run         {shown}"]
    for label, name in (("Curves", "curves.png"), ("Filters", "filters.png")):
        if (path / "figures" / name).exists():
            places.append(f"{label:<11} {shown / 'figures' / name}")
    return places
