import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conviction.core.config import (
    MAX_YAML_BYTES,
    parse_assignment,
    read_mapping,
    read_plain,
    read_yaml,
    with_overrides,
    write_yaml,
)
from conviction.core.errors import ConfigError

PLAIN = [
    ("1e-3", 0.001),
    ("1E5", 100000.0),
    ("-2.5e+2", -250.0),
    (".5", 0.5),
    ("1.", 1.0),
    ("010", 10),
    ("-7", -7),
    ("+3", 3),
    ("true", True),
    ("False", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("no", "no"),
    ("on", "on"),
    ("YES", "YES"),
    ("0x10", "0x10"),
    ("1_000", "1_000"),
    ("12:30:45", "12:30:45"),
    ("2026-01-31", "2026-01-31"),
    ("=", "="),
    ("<<", "<<"),
    ("[1, 2]", [1, 2]),
    ("1.2.3", "1.2.3"),
]


@pytest.mark.parametrize(("text", "value"), PLAIN)
def test_plain_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read_yaml(text, "the text")
    assert found == value
    assert type(found) is type(value)


def test_a_repeated_key_is_refused_at_any_depth_with_its_line() -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml("fit:\n  epochs: 3\n  batch: 2\n  epochs: 4\n", "recipe.yaml")
    assert str(caught.value) == "recipe.yaml is not valid YAML at line 4, column 3: the key 'epochs' stands twice."


def test_aliases_are_refused_before_they_unfold() -> None:
    laughs = "a: &a [ha, ha]\n" + "".join(
        f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
    )
    with pytest.raises(ConfigError) as caught:
        read_yaml(laughs, "recipe.yaml")
    assert str(caught.value) == "recipe.yaml is not valid YAML at line 2, column 8: aliases are not used in recipes."


@pytest.mark.parametrize("text", ["!!python/object:os.system x", "a: !!bool x", "!!map [a]", "!!timestamp x", "! x"])
def test_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="tags are not used in recipes"):
        read_yaml(text, "recipe.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1, 2\n", "recipe.yaml is not valid YAML at line 3, column 1: expected ',' or ']'"),
        ("a: 1\n\tb: 2\n", "recipe.yaml is not valid YAML at line 2, column 1: found character '\\t'"),
        ("a: b: c", "recipe.yaml is not valid YAML at line 1, column 5: mapping values are not allowed here"),
        ("? [a]\n: 1\n", "recipe.yaml is not valid YAML at line 1, column 3: a key must be one word."),
        ("a: 1\n---\nb: 2\n", "recipe.yaml is not valid YAML at line 2, column 1: but found another document."),
        ("a: \x07", "recipe.yaml is not valid YAML: it holds the unprintable character U+0007."),
        ("[" * 5000, "recipe.yaml is not valid YAML: it is nested too deeply."),
        ("1" * 5000, "recipe.yaml is not valid YAML: it holds a number with too many digits."),
        ("a" * (MAX_YAML_BYTES + 1), "recipe.yaml holds 1,000,001 characters; a recipe has at most 1,000,000."),
    ],
)
def test_broken_yaml_says_where_and_what(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "recipe.yaml")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


NUMBER_LIKE = st.sampled_from(
    ["1e-3", "010", "0x1F", "1_0", ".inf", "-", "no", "null", "~", "", " 1", "1:30", "2026-01-01"]
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
KEYS = st.text(max_size=12) | NUMBER_LIKE
VALUES = st.recursive(
    SCALARS | NUMBER_LIKE, lambda parts: st.lists(parts, max_size=4) | st.dictionaries(KEYS, parts, max_size=4)
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=5))
@example({"a": "a\u2028b\x85c\ufeff\x00\r\n "})
@example({"\x85": "\u2028", "a": ["@\x85b", "b\n", "\u2029"]})
@example({"a": ["x, y", "[", "{a: 1}", "# no comment", "a: b", "*a", "&a", "!a", "%a", "@a", "`", "'", '"']})
@example({"k" * 200: "1" * 5000, "<<": "=", "a": "word " * 60})
@example({"a": ["[" * 500]})
@example({"a": 1e16, "b": 5e-324, "c": 10**30, "d": -0.0})
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    found = read_yaml(write_yaml(value), "the text")
    assert found == value
    assert repr(found) == repr(value)


def test_an_object_that_stands_twice_is_written_twice() -> None:
    shared = [1, 2]
    assert write_yaml({"a": shared, "b": shared}) == "a: [1, 2]\nb: [1, 2]\n"


def test_lists_of_scalars_stand_on_one_line_and_the_rest_in_blocks() -> None:
    value = {"fit": {"epochs": 3}, "layers": [{"name": "conv", "padding": [1, 1]}], "note": "no"}
    assert write_yaml(value) == "fit:\n  epochs: 3\nlayers:\n- name: conv\n  padding: [1, 1]\nnote: 'no'\n"


def test_a_plain_text_that_is_no_yaml_means_itself() -> None:
    assert read_plain("[broken") == "[broken"
    assert read_plain("1e-3") == 0.001


def test_a_file_gives_its_mapping(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("\ufeffnäme: ü\n", encoding="utf-8")
    assert read_mapping(path) == {"näme": "ü"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "must hold keys and values, but holds nothing."),
        (b"[1]", "must hold keys and values, but holds a list."),
        (b"word", "must hold keys and values, but holds text."),
        (b"\xff\xfe", "is not UTF-8 text."),
        (b"a" * (MAX_YAML_BYTES + 1), "is larger than 1,000,000 bytes: not a recipe."),
    ],
)
def test_a_file_without_a_mapping_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_mapping(path)
    assert str(caught.value) == f"{path} {message}"


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_mapping(tmp_path / "absent.yaml")
    assert str(caught.value) == f"Cannot read {tmp_path / 'absent.yaml'}: No such file or directory."
    with pytest.raises(ConfigError, match="Is a directory"):
        read_mapping(tmp_path)


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("fit.epochs=3", "fit.epochs", 3),
        ("optimizer.learning_rate=1e-3", "optimizer.learning_rate", 0.001),
        ("name=a=b", "name", "a=b"),
        (" name = word ", "name", "word"),
        ("a=null", "a", None),
        ("a=[1, 2]", "a", [1, 2]),
        ("a=true", "a", True),
        ("a=", "a", None),
        ("a=''", "a", ""),
        ("a={name: sgd}", "a", {"name": "sgd"}),
    ],
)
def test_an_assignment_is_a_key_and_a_yaml_value(text: str, key: str, value: Any) -> None:
    assert parse_assignment(text) == (key, value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("path=2024", "2024"),
        ("path=a # b", "a # b"),
        ("path=*old*", "*old*"),
        ("path=[new] photos", "[new] photos"),
        ("path=a: b", "a: b"),
        ("path=null", None),
        ("path='null'", "null"),
        ('path="2024"', "2024"),
        ("path=a=b", "a=b"),
    ],
)
def test_a_key_of_text_takes_its_value_as_it_stands(text: str, value: str | None) -> None:
    assert parse_assignment(text, {"path"}) == ("path", value)


@pytest.mark.parametrize("text", ["epochs", "=3", " =3", ""])
def test_an_assignment_needs_a_key_and_an_equals_sign(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_assignment(text)


def test_a_broken_value_names_its_key() -> None:
    with pytest.raises(ConfigError, match=r"The value of fit\.epochs is not valid YAML"):
        parse_assignment("fit.epochs=[1")


def test_overrides_replace_what_they_name_and_leave_the_original() -> None:
    settings = {"fit": {"epochs": 3, "batch": 2}, "layers": [{"width": 1}, {"width": 2}]}
    new = {"p": 1}
    changed = with_overrides(settings, {"fit.epochs": 9, "layers.1.width": 8, "loss.weight": 0.5, "extra": new})
    assert changed == {
        "fit": {"epochs": 9, "batch": 2},
        "layers": [{"width": 1}, {"width": 8}],
        "loss": {"weight": 0.5},
        "extra": {"p": 1},
    }
    new["p"] = 2
    assert changed["extra"] == {"p": 1}
    assert settings == {"fit": {"epochs": 3, "batch": 2}, "layers": [{"width": 1}, {"width": 2}]}


@pytest.mark.parametrize(
    ("settings", "key", "changed"),
    [
        ({"optimizer": "sgd"}, "optimizer.rate", {"optimizer": {"name": "sgd", "rate": 1}}),
        ({"optimizer": "sgd"}, "optimizer.name", {"optimizer": {"name": 1}}),
        ({"augment": ["flip"]}, "augment.0.p", {"augment": [{"name": "flip", "p": 1}]}),
        ({"augment": ("flip",)}, "augment.0", {"augment": [1]}),
        ({"optimizer": None}, "optimizer.rate", {"optimizer": {"rate": 1}}),
        ({"layers": [None]}, "layers.0.width", {"layers": [{"width": 1}]}),
        ({}, "a.b.c", {"a": {"b": {"c": 1}}}),
    ],
)
def test_an_override_opens_a_bare_name_and_an_empty_place(settings: Any, key: str, changed: Any) -> None:
    assert with_overrides(settings, {key: 1}) == changed


@pytest.mark.parametrize(
    ("settings", "key", "message"),
    [
        ({"fit": {"epochs": 3}}, "fit.epochs.last", "fit.epochs.last: fit.epochs is a number and has no part 'last'."),
        ({"fit": True}, "fit.x", "fit.x: fit is true or false and has no part 'x'."),
        ({"a": [1, 2]}, "a.2", "a.2: a is a list of 2, so '2' must be a number from 0 to 1."),
        ({"a": [1, 2]}, "a.-1", "a.-1: a is a list of 2, so '-1' must be a number from 0 to 1."),
        ({"a": [1, 2]}, "a.²", "a.²: a is a list of 2, so '²' must be a number from 0 to 1."),
        ({"a": []}, "a.0", "a.0: a is an empty list and has no part '0'."),
        ({}, "a..b", "A key is names joined by single dots, for example fit.epochs, but got 'a..b'."),
        ({}, ".a", "A key is names joined by single dots, for example fit.epochs, but got '.a'."),
    ],
)
def test_an_override_that_leads_nowhere_says_at_which_key(settings: Any, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_overrides(settings, {key: 1})
    assert str(caught.value) == message


def test_a_number_too_large_for_a_float_is_infinite_and_so_refused_by_every_setting() -> None:
    assert read_yaml("1e999", "the text") == math.inf
