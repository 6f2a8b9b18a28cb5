"""What pydantic found wrong with the settings, in the user's own words: the key's path, the rule, the nearest name."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from conviction.core.errors import did_you_mean, nearest


def explained(found: Sequence[ErrorDetails], settings: Any, model: type[BaseModel]) -> list[str]:
    """A line for each place where pydantic found a fault when it read `settings` as `model`.

    A value that several alternatives refuse is one fault with several rules: `must be a whole number, or 'same'`.
    """
    lines: list[str | _Refusal] = []
    refusals: dict[tuple[str, str], _Refusal] = {}
    for detail in found:
        path, known_keys, choices = _traced(detail, settings, model)
        at = f"{path}: " if path else ""
        if sentence := _sentence(detail, path, known_keys, choices):
            lines.append(f"{at}{sentence}")
            continue
        shown = _spelled(detail["input"])
        if (at, shown) not in refusals:
            refusals[at, shown] = _Refusal(at, shown)
            lines.append(refusals[at, shown])
        refusals[at, shown].rules.append(_rule(detail))
    return [str(line) for line in lines]


@dataclass
class _Refusal:
    """A value, and the rules that it breaks, one for each alternative."""

    at: str
    shown: str
    rules: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        guess = nearest(self.shown.strip("'"), [name for rule in self.rules for name in _quoted(rule)])
        hint = f" Did you mean {guess!r}?" if guess else ""
        return f"{self.at}must be {', or '.join(dict.fromkeys(self.rules))}, but got {self.shown}.{hint}"


def _sentence(detail: ErrorDetails, path: str, known_keys: list[str], choices: list[str]) -> str:
    """What is wrong where it is not a value that breaks a rule; empty otherwise."""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"unknown key. {did_you_mean(path.rsplit('.', 1)[-1], known_keys)}"
    if kind == "invalid_key":
        return "a key must be text."
    if kind == "missing" and isinstance(detail["loc"][-1], int):
        return f"must be a list of {detail['loc'][-1] + 1}, but got {_spelled(detail['input'])}."
    if kind == "missing":
        return "this key is needed and missing."
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        return f"no choice named {tag!r}. {did_you_mean(tag, _quoted(context['expected_tags']))}"
    if kind == "union_tag_not_found":
        return f"its `name` is missing. Known: {', '.join(choices)}."
    if kind == "value_error":
        return str(context["error"])
    return ""


_RULES = {
    "int": "a whole number",
    "float": "a number",
    "finite_number": "a finite number",
    "bool": "true or false",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "keys and values",
    "model": "keys and values",
    "model_attributes": "a name, or keys and values",
    "greater_than_equal": "at least {ge}",
    "greater_than": "greater than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "string_too_short": "text of {min_length} characters or more",
    "string_too_long": "text of at most {max_length} characters",
    "too_short": "a list of {min_length} or more",
    "too_long": "a list of at most {max_length}",
    "literal_error": "{expected}",
}


def _rule(detail: ErrorDetails) -> str:
    """What the value must be, as it goes on behind `must be`."""
    kind = re.sub("_(type|parsing|parsing_size|from_float|unicode)$", "", detail["type"])
    if kind in _RULES:
        return _RULES[kind].format(**{name: _plain(bound) for name, bound in detail.get("ctx", {}).items()})
    return re.sub(r"^Input should be", "", detail["msg"]).strip().rstrip(".")


def _plain(bound: object) -> object:
    """Pydantic gives the bound of a number as 0.0 where the rule says 0."""
    return int(bound) if isinstance(bound, float) and bound.is_integer() else bound


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120


def _spelled(value: object) -> str:
    """The value as YAML spells it, shortened."""
    words = {None: "nothing", True: "true", False: "false"}
    return words[value] if value is None or isinstance(value, bool) else _shown.repr(value)


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _traced(detail: ErrorDetails, settings: Any, model: type[BaseModel]) -> tuple[str, list[str], list[str]]:
    """The fault's path as the user wrote it, the keys that are right beside its last one, the choices in its place.

    Pydantic's location also names the branch of a union that it was reading, which stands nowhere in the settings.
    """
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})
    place, beside = settings, [schema]
    keys: list[str] = []
    options = _options(schema, definitions)
    for key in detail["loc"]:
        chosen = [option["discriminator"]["mapping"][key] for option in options if _is_tag(key, option)]
        if chosen:
            options = _options({"$ref": chosen[0]}, definitions)
            continue
        if not _is_key(key, place) and not any(key in option.get("properties", {}) for option in options):
            continue
        keys.append(str(key))
        beside = options
        options = [found for option in options for found in _options(_part(option, key), definitions)]
        place = place[key] if _is_key(key, place) else None
    choices = [name for option in options for name in option.get("discriminator", {}).get("mapping", {})]
    return ".".join(keys), sorted({name for option in beside for name in option.get("properties", {})}), choices


def _is_tag(key: int | str, option: Mapping[str, Any]) -> bool:
    return key in option.get("discriminator", {}).get("mapping", {})


def _is_key(key: int | str, place: Any) -> bool:
    if isinstance(place, Mapping):
        return key in place
    return isinstance(place, list | tuple) and isinstance(key, int) and key < len(place)


def _options(schema: Any, definitions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What a JSON schema allows in its place, references followed and alternatives laid side by side."""
    while "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return [schema, *(found for option in schema.get("anyOf", ()) for found in _options(option, definitions))]


def _part(schema: Mapping[str, Any], key: int | str) -> Any:
    """The schema of the value at `key` below `schema`; an empty one where that is not stated."""
    if isinstance(key, int):
        before = schema.get("prefixItems", ())
        found = before[key] if key < len(before) else schema.get("items", {})
    else:
        found = schema.get("properties", {}).get(key, schema.get("additionalProperties", {}))
    return found if isinstance(found, Mapping) else {}
