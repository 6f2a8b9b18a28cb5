"""`conviction data`: pictures, before anything is trained on them."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Annotated

import typer

from conviction.cli.audit import audit
from conviction.cli.facescrub import facescrub
from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import Column, console, print_json, print_lines, print_table
from conviction.cli.preview import preview

if TYPE_CHECKING:
    from conviction.core.data_summary import DataSummary, StoredSize
    from conviction.run.described import Described

app = typer.Typer(help="Pictures, before anything is trained on them.", invoke_without_command=True)
app.command()(facescrub)
app.command()(preview)
app.command()(audit)

_PICTURES_A_CLASS = 10
_MOST_SIZES = 5
_READABLE_LETTERS = 100


@app.callback()
def data(context: typer.Context) -> None:
    """Look at pictures before anything is trained on them."""
    if context.invoked_subcommand is None:
        print_lines([context.get_help()])


@app.command()
def info(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE",
            help="A recipe, a YAML file, a data source, or a path: class folders, an archive, a list, a data set.",
        ),
    ],
    save_sheet: Annotated[
        str | None,
        typer.Option("--save-sheet", metavar="FILE", help="Draw training pictures of each class as .png or .svg."),
    ] = None,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Show counts by class and split, sizes, and the statistics of the training split. The test split stays sealed."""
    from pathlib import Path

    from conviction.cli.progress import watcher
    from conviction.report.figure import picture_kind
    from conviction.run.described import load_described
    from conviction.run.recipe import parse_overrides

    if save_sheet:
        # Before the pictures are packed, which may take minutes.
        picture_kind(Path(save_sheet))
    with watcher() as watching:
        described = load_described(source, parse_overrides(assignments), watching.packing)
    found = described.summary()
    if save_sheet:
        _save_sheet(described, found, save_sheet)
    if as_json:
        print_json({**found.as_json(), "sheet": save_sheet})
        return
    _print_summary(found)
    if save_sheet:
        print_lines([f"Sheet       {save_sheet}"])


def _save_sheet(described: Described, found: DataSummary, path: str) -> None:
    from pathlib import Path

    from conviction.report.sheet import draw_sheet

    count = found.totals["train"]
    title = f"{found.path}: training split, {count:,} pictures of {len(found.classes):,} classes, {_shown_size(found)}"
    draw_sheet(described.examples(_PICTURES_A_CLASS), found.counts["train"], title, Path(path))


def _shown_size(found: DataSummary) -> str:
    return f"{found.height_px}×{found.width_px} pixels"


def _print_summary(found: DataSummary) -> None:
    totals = found.totals
    print_lines([f"{found.path}: {sum(totals.values()):,} pictures of {len(found.classes):,} classes"])
    columns = [Column("class", "left"), Column("training"), Column("validation"), Column("test\n(sealed)")]
    rows = [
        (name, *(f"{by_class[name]:,}" for by_class in found.counts.values()), f"{_total(found, name):,}")
        for name in found.classes
    ]
    sums = ("all", *(f"{total:,}" for total in totals.values()), f"{sum(totals.values()):,}")
    print_table([*columns, Column("all")], [*rows, sums])
    print_lines([*_describe_pictures(found), ""])
    _print_statistics(found)
    print_lines(f"note: {note}" for note in _notes(found))


def _total(found: DataSummary, name: str) -> int:
    return sum(by_class[name] for by_class in found.counts.values())


def _describe_pictures(found: DataSummary) -> list[str]:
    colours = {1: "1 channel (grey)", 3: "3 channels (red, green, blue)"}[found.channels]
    lines = [f"Pictures    {_shown_size(found)} (height×width), {colours}"]
    own = [(size.height_px, size.width_px) for size in found.stored_sizes]
    if own != [(found.height_px, found.width_px)]:
        lines.append(f"As stored   {_describe_sizes(found.stored_sizes)} (training split)")
    if found.drawn:
        lines.append(f"Splits      {' and '.join(found.drawn)} drawn by class from seed {found.seed}")
    return lines


def _describe_sizes(sizes: tuple[StoredSize, ...]) -> str:
    shown = [f"{size.height_px}×{size.width_px} ({size.count:,})" for size in sizes[:_MOST_SIZES]]
    rest = sum(size.count for size in sizes[_MOST_SIZES:])
    if rest:
        shown.append(f"{len(sizes) - _MOST_SIZES:,} other sizes ({rest:,})")
    return ", ".join(shown)


def _print_statistics(found: DataSummary) -> None:
    from conviction.core.data_summary import WHY_TWO_DEVIATIONS

    figures = found.statistics
    names = ("grey",) if found.channels == 1 else ("red", "green", "blue")
    rows = [
        ("mean", *(f"{value:.3f}" for value in figures.mean)),
        ("deviation over all pixels", *(f"{value:.3f}" for value in figures.deviation)),
        ("average of the pictures' own deviations", *(f"{value:.3f}" for value in figures.mean_picture_deviation)),
    ]
    print_lines([f"Channels on the scale [0, 1], from the {figures.count:,} training pictures alone:"])
    print_table([Column("", "left"), *map(Column, names)], rows)
    print_lines(textwrap.wrap(WHY_TWO_DEVIATIONS, width=min(console().width, _READABLE_LETTERS)))


def _notes(found: DataSummary) -> list[str]:
    notes = list(found.notes)
    if found.num_skipped:
        notes.append(f"unreadable pictures were left out: {found.num_skipped:,}.")
    return notes
