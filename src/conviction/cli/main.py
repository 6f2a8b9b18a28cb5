"""The entry point: commands, and what becomes of errors."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer

from conviction.cli import bench, data, evaluate, inspect, recipes, runs, train
from conviction.core.errors import ConvictionError, Interrupted

FAULT, INTERRUPTED = 2, 130

app = typer.Typer(
    name="conviction",
    help="Train image classifiers fast, compare them fairly, and see what they have learned.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(train.train)
app.command()(train.resume)
app.command()(evaluate.evaluate)
app.command()(evaluate.predict)
app.command()(inspect.inspect)
app.command()(bench.bench)
app.add_typer(data.app, name="data")
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        from conviction import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def conviction(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train image classifiers fast, compare them fairly, and see what they have learned."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: 0 where all went well, 2 for a user's fault, 130 after an interruption."""
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    as_json = any(part.partition("=")[0] == "--json" for part in given)
    _answer_interruptions(as_json)
    try:
        code = app(given, standalone_mode=False, prog_name="conviction")
    except ConvictionError as error:
        code = INTERRUPTED if isinstance(error, Interrupted) else FAULT
        sys.exit(_fail(error.kind, error.message, as_json, code))
    except (KeyboardInterrupt, typer.Abort):
        sys.exit(_fail("interrupted", _INTERRUPTED_MESSAGE, as_json, INTERRUPTED))
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        sys.exit(_fail("usage", _usage_message(error), as_json, FAULT))
    if code == INTERRUPTED:  # typer's own answer to Ctrl-C
        sys.exit(_fail("interrupted", _INTERRUPTED_MESSAGE, as_json, INTERRUPTED))
    sys.exit(code if isinstance(code, int) else 0)


_INTERRUPTED_MESSAGE = "Interrupted."


def _answer_interruptions(as_json: bool) -> None:
    """Ctrl-C, and the polite request to end that schedulers of clusters send, raise KeyboardInterrupt once.

    A second one does not wait for what the first has set going: at every moment, what is on disk is whole.
    """
    numbers = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) != signal.SIG_IGN]

    def leave(signum: int, frame: Any) -> NoReturn:
        os._exit(
            _fail(
                "interrupted",
                "Interrupted twice: ended at once. A run that had begun goes on with: conviction resume",
                as_json,
                INTERRUPTED,
            )
        )

    def interrupt(signum: int, frame: Any) -> NoReturn:
        for number in numbers:
            signal.signal(number, leave)
        # A library that is interrupted while it closes a connection would log that, with its traceback.
        # It may be half imported at this moment.
        if disable := getattr(sys.modules.get("logging"), "disable", None):
            disable()
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, interrupt)


def _usage_message(error: Any) -> str:
    context = getattr(error, "ctx", None)
    hint = f" See: {context.command_path} --help" if context else ""
    message = error.format_message()
    return f"{message if message.endswith(('.', '?')) else message + '.'}{hint}"


def _fail(kind: str, message: str, as_json: bool, code: int) -> int:
    readable = message.encode("utf-8", "backslashreplace").decode("utf-8")
    if as_json:
        from conviction.cli.output import print_json

        print_json({"error": {"kind": kind, "message": readable}})
    else:
        sys.stderr.write(f"Error: {readable}\n")
    return code
