"""`conviction data audit`: copies, contradicting labels, unreadable and odd pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import Column, print_aside, print_json, print_lines, print_table
from conviction.core.names import shown

if TYPE_CHECKING:
    from conviction.core.audit_record import AuditRecord

LEAKS_FOUND = 1
_MOST_LABEL_LETTERS = 30
_MOST_GROUPS = 20
_MOST_OF_GROUP = 4
_MOST_NAMED = 5


def audit(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A recipe, a YAML file, or class folders: a directory, an archive, or a data source."
        ),
    ],
    html: Annotated[
        str | None, typer.Option("--html", metavar="FILE", help="Write a page with thumbnails, one file.")
    ] = None,
    similarity: Annotated[
        float,
        typer.Option("--similarity", help="How alike near duplicates are at least, at least 0.5 and below 1."),
    ] = 0.85,
    strict: Annotated[
        bool, typer.Option("--strict", help="End with exit code 1 where pictures have copies in another split.")
    ] = False,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Find copies within and across splits, contradicting labels, unreadable and odd pictures. Nothing is changed.

    A later training on the same pictures warns where copies were found across splits.
    """
    from pathlib import Path

    from conviction.cli.progress import watcher
    from conviction.report.audit_page import check_page_path
    from conviction.run.audited import Audited
    from conviction.run.recipe import parse_overrides

    if html is not None:
        # Before the pictures are read, which may take minutes.
        check_page_path(Path(html))
    with watcher() as watching:
        audited = Audited(source, parse_overrides(assignments), similarity=similarity, progress=watching.stage)
        if html is not None:
            audited.save_page(html)
    found = audited.record
    if as_json:
        print_json({**found.as_json(), "seal": _seal(found) or None, "page": html})
    else:
        _print_audit(found)
        if html is not None:
            print_lines([f"Page        {html}"])
    if strict and any(found.leaked.values()):
        raise typer.Exit(LEAKS_FOUND)


def _print_audit(found: AuditRecord) -> None:
    from conviction.report.audit_text import (
        balance_line,
        duplicate_line,
        label_line,
        leak_line,
        nature_lines,
        odd_line,
        plain_line,
        size_line,
        unreadable_line,
    )

    print_lines(
        [
            f"{shown(found.path)}: {size_line(found)}",
            "",
            f"Leaks       {leak_line(found)}",
            f"Labels      {label_line(found)}",
            f"Copies      {duplicate_line(found)}",
            f"Unreadable  {unreadable_line(found)}",
            f"Odd         {odd_line(found)}",
            f"Classes     {balance_line(found)}",
        ]
    )
    if found.pairs:
        _print_pairs(found)
        _print_groups(found)
    _print_singles(found)
    for line in (*found.notes, *nature_lines(found), *filter(None, [plain_line(found), _seal(found)])):
        print_aside(f"note: {line}")


def _seal(found: AuditRecord) -> str:
    """What the names given would give away of another division's test split; empty where none are."""
    from conviction.report.audit_text import seal_line

    return seal_line(found) if found.pairs or found.findings else ""


def _print_pairs(found: AuditRecord) -> None:
    from conviction.core.audit_record import ACROSS, DUPLICATE_KINDS, WITHIN
    from conviction.report.audit_text import between_words

    counts = [(between, found.count_pairs(between)) for between in (*ACROSS, *WITHIN)]
    rows = [
        (between_words(between), *(f"{of_kind[kind]:,}" for kind in DUPLICATE_KINDS))
        for between, of_kind in counts
        if between in ACROSS or of_kind.total()
    ]
    print_table([Column("pairs", "left"), *map(Column, DUPLICATE_KINDS)], rows)


def _print_groups(found: AuditRecord) -> None:
    from conviction.report.audit_text import SPLIT_WORDS, group_words

    for group in found.groups[:_MOST_GROUPS]:
        print_lines([group_words(group)])
        named = group.pictures[:_MOST_OF_GROUP]
        width = min(_MOST_LABEL_LETTERS, max(len(one.label) for one in named))
        print_lines(f"  {SPLIT_WORDS[one.split or 'train']:<11} {one.label:<{width}}  {one.path}" for one in named)
        if more := len(group.pictures) - len(named):
            print_lines([f"  and {more:,} more"])
    if (more := len(found.groups) - _MOST_GROUPS) > 0:
        print_lines([f"… and {more:,} more groups: --json lists all, --html FILE shows them."])
    print_lines([""])


def _print_singles(found: AuditRecord) -> None:
    from conviction.core.audit_record import FINDING_KINDS

    lists = [[f"{shown(one.picture.path)} {one.reason}" for one in found.unreadable]]
    lists += [
        [f"{shown(one.picture.path)} {one.reason}" for one in found.findings if one.kind == kind]
        for kind in FINDING_KINDS
    ]
    for lines in filter(None, lists):
        print_lines(lines[:_MOST_NAMED])
        if more := max(0, len(lines) - _MOST_NAMED):
            print_lines([f"… and {more:,} more"])
        print_lines([""])
