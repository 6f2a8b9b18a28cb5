"""What the command line prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from conviction.core.names import is_printable

if TYPE_CHECKING:
    from rich.console import Console

    from conviction.core.records import EpochRecord, Score


_WIDTH_WITHOUT_TERMINAL = 200


def print_json(value: Any) -> None:
    """The command's one JSON document."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    # As JSON's own escapes: a file's name may hold what moves a terminal's cursor, or what no encoding has.
    odd = {ord(letter): json.dumps(letter)[1:-1] for letter in set(text) - {"\n"} if not is_printable(letter)}
    sys.stdout.write(text.translate(odd) + "\n")
    sys.stdout.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Lines of a result, for a person."""
    sys.stdout.write("".join(line + "\n" for line in lines))
    sys.stdout.flush()


def print_aside(text: str) -> None:
    """A remark that is not part of the result."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def console(stderr: bool = False) -> Console:
    """A rich console; where there is no terminal its tables are as wide as they need to be."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else _WIDTH_WITHOUT_TERMINAL, highlight=False)


@dataclass(frozen=True)
class Column:
    """A column of a table; in a narrow terminal those with the highest rank are left out first, rank 0 never."""

    heading: str
    align: Literal["left", "right"] = "right"
    rank: int = 0


_BETWEEN_COLUMNS = 3


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """A table as wide as the terminal allows; cells that are wider still are folded."""
    listed = [list(row) for row in rows]
    target = console()
    shown = _columns_that_fit(columns, listed, target.width)
    chosen, cells = [columns[index] for index in shown], [[row[index] for index in shown] for row in listed]
    widths = _widths(chosen, cells)
    if sum(widths) + _BETWEEN_COLUMNS * len(widths) - 1 > target.width:
        _print_folded(chosen, cells)
    else:
        _print_aligned(chosen, cells, widths)
    if left_out := [columns[index].heading.replace("\n", " ") for index in range(len(columns)) if index not in shown]:
        print_aside(f"note: the terminal is too narrow for: {', '.join(left_out)}.")


def _print_aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> None:
    from rich.cells import cell_len
    from rich.text import Text

    def line(cells: Sequence[str]) -> str:
        padded = []
        for cell, column, width in zip(cells, columns, widths, strict=True):
            room = " " * (width - cell_len(cell))
            padded.append(cell + room if column.align == "left" else room + cell)
        return " " + (" " * _BETWEEN_COLUMNS).join(padded).rstrip()

    num_lines = max(column.heading.count("\n") for column in columns) + 1
    headings = [[""] * num_lines + column.heading.split("\n") for column in columns]
    target = console()
    target.print()
    for number in range(-num_lines, 0):
        target.print(Text(line([heading[number] for heading in headings]), style="bold"), no_wrap=True)
    print_lines([" " + "─" * (sum(widths) + _BETWEEN_COLUMNS * (len(widths) - 1)), *map(line, rows), ""])


def _print_folded(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(Text(column.heading), justify=column.align, overflow="fold")
    for row in rows:
        # As plain text: a path or a class may hold what rich would read as markup.
        table.add_row(*map(Text, row))
    console().print(table)


def _widths(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> list[int]:
    from rich.cells import cell_len

    return [
        max(map(cell_len, [*column.heading.split("\n"), *(row[index] for row in rows)]))
        for index, column in enumerate(columns)
    ]


def _columns_that_fit(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    widths = _widths(columns, rows)
    shown = list(range(len(columns)))
    while sum(widths[index] + _BETWEEN_COLUMNS for index in shown) - 1 > width:
        last = max(shown, key=lambda index: (columns[index].rank, index))
        if columns[last].rank == 0:
            break
        shown.remove(last)
    return shown


def percent(share: float) -> str:
    """A fraction as a person reads it: `99.2 %`."""
    return f"{100 * share:.1f} %"


def shown_score(score: Score) -> str:
    """`99.2 % (356 of 359), loss 0.031`."""
    hits = round(score.accuracy * score.count)
    return f"{percent(score.accuracy)} ({hits:,} of {score.count:,}), loss {score.loss:.3f}"


def score_json(score: Score | None) -> dict[str, Any] | None:
    """The fixed fields of a score; null where there is none."""
    return None if score is None else {"accuracy": score.accuracy, "loss": score.loss, "count": score.count}


def epoch_json(record: EpochRecord | None) -> dict[str, Any] | None:
    """The fixed fields of an epoch."""
    if record is None:
        return None
    return {
        "epoch": record.epoch,
        "validation": score_json(record.validation),
        "train": score_json(record.train),
        "train_fixed": score_json(record.train_fixed),
        "learning_rate": record.learning_rate,
    }


def shown_duration(seconds: float) -> str:
    """`7.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def refuse_early_json(as_json: bool, command: str) -> None:
    """`--json` in front of a subcommand would be lost. Raises: ConfigError."""
    from conviction.core.errors import ConfigError

    if as_json:
        raise ConfigError(f"Write --json behind the subcommand: {command} --json")


def shown_count(count: int) -> str:
    """`950`, `12,345`, `1.23 M`, `4.09 G`."""
    for power, sign in ((12, "T"), (9, "G"), (6, "M")):
        if count >= 10**power:
            return (
                f"{count / 10**power:.3g} {sign}" if count < 10 ** (power + 3) else f"{count / 10**power:,.0f} {sign}"
            )
    return f"{count:,}"


def shown_bytes(num_bytes: int) -> str:
    """`512 B`, `12.3 kB`, `4.6 MB`, `1.2 GB`, in powers of a thousand."""
    for power, sign in ((9, "GB"), (6, "MB"), (3, "kB")):
        if num_bytes >= 10**power:
            return f"{num_bytes / 10**power:.1f} {sign}"
    return f"{num_bytes} B"
