from __future__ import annotations

import ast

import pytest

from conviction.core.names import is_printable, shown


@pytest.mark.parametrize("name", ["cat/1.png", "Ölbild", "1.00\u202fPM", "👩\u200d🎨", "می\u200cخواهم", "it's \\x1b"])
def test_what_can_be_shown_is_shown_as_it_is(name: str) -> None:
    assert shown(name) == name


@pytest.mark.parametrize(
    "odd", ["\n", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u2066", "\ufeff", "\ud800", "no\udcfftext", "\U000e0001"]
)
def test_what_cannot_is_quoted_and_can_be_read_back(odd: str) -> None:
    name = f"cat/a{odd}b.png"
    assert not is_printable(name)
    assert shown(name).isprintable()
    assert ast.literal_eval(shown(name)) == name
