"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
SetOption = Annotated[
    list[str],
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a setting, for example optimizer.learning_rate=0.1."),
]
LedgerOption = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        envvar="CONVICTION_LEDGER",
        metavar="URL",
        help="The ledger's database; by default ledger.db beside the runs.",
    ),
]
ProcessesOption = Annotated[
    str | None,
    typer.Option(
        "--processes",
        metavar="N",
        help="Share each batch among N processes; auto: one for each GPU. By default 1, or as many as before.",
    ),
]
WeightsOption = Annotated[str, typer.Option("--weights", help="best or last.")]
RunArgument = Annotated[str, typer.Argument(metavar="RUN", help="A run's id or a part of it, its folder, or 'latest'.")]
