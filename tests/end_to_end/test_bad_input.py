"""Each fault gets one clear message and exit code 2; docs/reference/errors.md lists them and is written from here."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from bad_input import CASES, Case

from command import conviction
from small_disk import unmount

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
_messages: dict[tuple[str, str], str] = {}


@pytest.fixture(autouse=True)
def unmounted(tmp_path: Path) -> Iterator[None]:
    """Take away the file systems that a case mounted."""
    yield
    for place in ("runs", "cache"):
        if (tmp_path / place).is_mount():
            unmount(tmp_path / place)


@pytest.mark.parametrize("case", CASES, ids=[f"{case.family}-{case.title}" for case in CASES])
def test_fault_gets_its_message(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # Real data sets would make names resolve that these cases rely on not being there.
    monkeypatch.delenv("CONVICTION_DATA", raising=False)
    finished = conviction(*case.prepare(tmp_path), "--json")
    assert finished.code == 2, finished.err
    error = finished.json["error"]
    assert set(error) == {"kind", "message"}
    for part in case.says:
        assert part in error["message"]
    assert error["kind"] == case.kind
    assert "Traceback" not in finished.err
    _messages[case.family, case.title] = _without_chance(error["message"], tmp_path)


def test_reference_lists_every_message() -> None:
    """The whole page where every case ran before in this process; otherwise what is known of it."""
    whole = len(_messages) == len(CASES)
    if whole and os.environ.get("UPDATE_DOCS"):
        REFERENCE.write_text(_page(), encoding="utf-8")
    written = REFERENCE.read_text(encoding="utf-8")
    for case in CASES:
        assert f"\n| {case.title} | `{case.kind}` | " in written, "make docs writes it anew"
        if (case.family, case.title) in _messages:
            assert _row(case) in written, "make docs writes it anew"
    if whole:
        assert written == _page(), "make docs writes it anew"


def _row(case: Case) -> str:
    text = _messages[case.family, case.title].replace("|", "\\|").replace("\n", "<br>")
    return f"| {case.title} | `{case.kind}` | {text} |"


def _page() -> str:
    lines = [
        "# What Conviction says when something is wrong",
        "",
        "Each of these faults is brought about by a test, and this page is written from what the command then said.",
        "Every one ends with exit code 2, one message on standard error (with `--json` one document",
        '`{"error": {"kind", "message"}}` on standard output), and no traceback.',
    ]
    for family in dict.fromkeys(case.family for case in CASES):
        lines += ["", f"## {family}", "", "| what is wrong | kind | message |", "|---|---|---|"]
        lines += [_row(case) for case in CASES if case.family == family]
    return "\n".join(lines) + "\n"


def _without_chance(message: str, folder: Path) -> str:
    """The message without what differs from run to run: the folder, run ids, addresses of objects."""
    text = message.replace(str(folder.resolve()), "…").replace(str(folder), "…")
    text = re.sub(r"\.building-[0-9a-f]+", ".building-0123", text)
    text = re.sub(r"\d{4}-\d\d-\d\d-([a-z0-9-]+)-[0-9a-f]{6}", r"2026-01-01-\1-abc123", text)
    return re.sub(r"'\d{4}-\d\d-\d\d'", "'2026-01-01'", text)
