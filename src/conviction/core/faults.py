"""What pydantic found wrong with the settings, in the user's own words: the key's path, the rule, the nearest name."""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from conviction.core.errors import did_you_mean, nearest


def explained(detail: ErrorDetails, settings: Any, model: type[BaseModel]) -> str:
    """One line on one fault that pydantic found when it read `settings` as `model`."""
    path, known_keys = _traced(detail, settings, model)
    at = f"{path}: " if path else ""
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{at}unknown key. {did_you_mean(path.rsplit('.', 1)[-1], known_keys)}"
    if kind == "missing":
        return f"{at}this key is needed and missing."
    if kind == "union_tag_invalid":
        tag = str(context["tag"])
        return f"{at}no choice named {tag!r}. {did_you_mean(tag, _quoted(context['expected_tags']))}"
    if kind == "union_tag_not_found":
        return f"{at}its `name` is missing."
    shown = _shown.repr(detail["input"])
    if kind in ("literal_error", "enum"):
        guess = nearest(str(detail["input"]), _quoted(context["expected"]))
        hint = f" Did you mean {guess!r}?" if guess else ""
        return f"{at}must be {context['expected']}, but got {shown}.{hint}"
    if kind == "value_error":
        return f"{at}{context['error']}"
    rule = re.sub(r"^Input should be", "must be", detail["msg"]).rstrip(".")
    return f"{at}{rule}, but got {shown}."


_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = 120


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _traced(detail: ErrorDetails, settings: Any, model: type[BaseModel]) -> tuple[str, list[str]]:
    """The fault's path as the user wrote it, and the keys that are right beside its last one.

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
    return ".".join(keys), sorted({name for option in beside for name in option.get("properties", {})})


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
