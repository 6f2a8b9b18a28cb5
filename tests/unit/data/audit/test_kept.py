from __future__ import annotations

from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest

from conviction.data.audit.kept import KeptAudit, keep_audit, kept_audit, leak_warning
from conviction.data.pack import Pack
from conviction.data.split import Splits

PATHS = ("a", "b", "c", "d", "e", "f")
SPLITS = Splits(np.array([0, 1]), np.array([2, 3]), np.array([4, 5]))
COMMAND = "conviction data audit x"


def pack(pictures_digest: str = "pictures") -> Pack:
    empty = np.zeros((6, 0, 0, 0), np.uint8)
    labels, splits = np.zeros(6, np.int64), np.zeros(6, np.int8)
    return Pack(empty, labels, splits, PATHS, ("cat", "dog"), "", "x", (), (), (), pictures_digest)


def test_it_is_found_for_the_same_pictures_alone() -> None:
    audit = KeptAudit(COMMAND, (("a", "e"),))
    keep_audit("pictures", audit)
    assert kept_audit("pictures") == audit
    assert kept_audit("others") is None
    assert leak_warning(pack("others"), SPLITS) is None


@pytest.mark.parametrize(
    ("pairs", "found"),
    [
        ([("a", "e")], "1 of the 2 test pictures"),
        ([("a", "e"), ("e", "b"), ("c", "e")], "1 of the 2 test pictures"),
        ([("e", "d"), ("f", "d")], "2 of the 2 test pictures"),
        ([("d", "a"), ("a", "f")], "1 of the 2 validation pictures and 1 of the 2 test pictures"),
    ],
)
def test_the_warning_by_hand(pairs: list[tuple[str, str]], found: str) -> None:
    keep_audit("pictures", KeptAudit(COMMAND, tuple(pairs)))
    assert leak_warning(pack(), SPLITS) == (
        f"an audit found copies of {found} in another split: accuracy on these looks better than it is. "
        f"See the copies: {COMMAND}"
    )


@pytest.mark.parametrize("pairs", [[], [("a", "b"), ("c", "d"), ("e", "f")], [("a", "gone")]])
def test_no_warning_without_leaks(pairs: list[tuple[str, str]]) -> None:
    assert leak_warning(pack(), SPLITS) is None
    keep_audit("pictures", KeptAudit(COMMAND, tuple(pairs)))
    assert leak_warning(pack(), SPLITS) is None


def test_the_training_division_decides() -> None:
    keep_audit("pictures", KeptAudit(COMMAND, (("a", "b"),)))
    other = Splits(np.array([0, 2]), np.array([1, 3]), np.array([4, 5]))
    assert leak_warning(pack(), SPLITS) is None
    assert "1 of the 2 validation pictures" in (leak_warning(pack(), other) or "")


def test_of_equal_pictures_the_first_tells_as_much_as_all_pairs() -> None:
    """Four equal pictures of six, in every division there is."""
    every = tuple(combinations("abcd", 2))
    for places in product(range(3), repeat=4):
        splits = Splits(*(np.flatnonzero(np.array([*places, 0, 1]) == code) for code in range(3)))
        warnings = []
        for audit in (KeptAudit(COMMAND, every), KeptAudit(COMMAND, every[:3], (tuple("abcd"),))):
            keep_audit("pictures", audit)
            warnings.append(leak_warning(pack(), splits))
        assert warnings[0] == warnings[1], places
        assert (warnings[0] is None) == (len(set(places)) == 1)


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"command": "x", "pairs": [["a"]]}'])
def test_a_damaged_file_is_none(tmp_path: Path, content: bytes) -> None:
    keep_audit("pictures", KeptAudit(COMMAND, (("a", "e"),)))
    [path] = (tmp_path / "cache" / "audits").iterdir()
    path.write_bytes(content)
    assert leak_warning(pack(), SPLITS) is None
