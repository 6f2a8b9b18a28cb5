"""What a narrow terminal sees: whole columns, the important ones first, and no line that wraps."""

import pytest

from conviction.cli import output
from conviction.cli.output import Column, print_table
from conviction.cli.progress import epoch_line, headings
from conviction.core.records import EpochRecord, Score, Timing

COLUMNS = [
    Column("run", "left"),
    Column("recipe", "left", rank=2),
    Column("validation\naccuracy"),
    Column("seed", rank=1),
]
ROWS = [("2026-01-31-digits-0a1b2c", "digits", "99.4 %", "0"), ("b", "数字", "9 %", "12345")]
RECORD = EpochRecord(100, 0.00123, Score(1.0, 0.0123, 359), Score(1.0, 12.3456, 1079))


@pytest.mark.parametrize(
    ("width", "shown", "left_out"),
    [
        # 24 + 6 + 10 + 5 letters, three between each, and one at either end.
        (56, ["recipe", "seed"], ""),
        (55, ["seed"], "recipe"),
        (47, ["seed"], "recipe"),
        (46, [], "recipe, seed"),
        (10, [], "recipe, seed"),
    ],
)
def test_the_least_important_columns_are_left_out_first(
    width: int, shown: list[str], left_out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_WIDTH_WITHOUT_TERMINAL", width)
    print_table(COLUMNS, ROWS)
    out, err = capsys.readouterr()
    words = [word for word in ("recipe", "seed") if word in out]
    assert words == shown
    assert err == (f"note: the terminal is too narrow for: {left_out}.\n" if left_out else "")
    assert all(len(line) <= width for line in out.splitlines())
    if width > 40:
        assert "2026-01-31-digits-0a1b2c" in out


@pytest.mark.parametrize("width", [20, 40, 60, 75, 80, 200])
def test_epochs_lines_keep_within_the_terminal(width: int) -> None:
    line = epoch_line(RECORD, Timing(100, 1.0, 1.0, 12345.0, 1), 100, is_best=True, width=width)
    first, second = headings(width)
    assert max(len(line), len(first), len(second)) <= width
    assert len(line.removesuffix(" *")) == len(first) == len(second)
    assert line.startswith("  100/100")
    assert ("12,345" in line) == (width >= 73)
    assert ("0.00123" in line) == (width >= 62)
    assert ("100.0 %" in line) == (width >= 31)
