"""`conviction data preview`: pictures beside what augmentations make of them."""

from __future__ import annotations

from typing import Annotated

import typer

from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import print_json, print_lines


def preview(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A recipe, a YAML file, or class folders: a directory, an archive, or a data source."
        ),
    ],
    augment: Annotated[
        list[str],
        typer.Option(
            "--augment",
            metavar="POLICY",
            help="An augmentation: NAME, NAME:KEY=VALUE,… or {name: NAME, KEY: VALUE}; repeat it for several. "
            "By default those of the recipe.",
        ),
    ] = [],  # noqa: B006 - typer copies it
    out: Annotated[str, typer.Option("--out", metavar="FILE", help="The picture: .png or .svg.")] = "preview.png",
    num_pictures: Annotated[
        int, typer.Option("--pictures", min=1, max=40, help="How many training pictures, a row each.")
    ] = 6,
    num_variants: Annotated[
        int | None,
        typer.Option(
            "--variants", min=1, max=30, help="How many variants of each; by default 8, or fewer of large pictures."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Which pictures, and all draws; by default the recipe's seed.")
    ] = None,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Draw training pictures beside augmented variants of them. The test split stays sealed."""
    from pathlib import Path

    from conviction.cli.progress import watcher
    from conviction.report.figure import picture_kind
    from conviction.report.preview import draw_preview
    from conviction.run.preview import parse_augmentation, preview_augmentations
    from conviction.run.recipe import parse_overrides

    # Before the pictures are packed, which may take minutes.
    picture_kind(Path(out))
    overrides = parse_overrides(assignments)
    if augment:
        overrides["augment"] = [parse_augmentation(text) for text in augment]
    with watcher() as watching:
        found = preview_augmentations(source, overrides, (num_pictures, num_variants), watching.packing, seed)
    notes = [f"note: {note}" for note in found.notes]
    draw_preview(found.rows, "\n".join([found.title, *notes]), Path(out))
    if as_json:
        print_json({**found.as_json(), "preview": out})
        return
    print_lines([*found.title.split("\n"), f"Preview     {out}", *notes])
