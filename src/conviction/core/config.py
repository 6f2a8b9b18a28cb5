"""Settings: frozen pydantic models, read from YAML, refused with the key's path, the rule and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from conviction.core.errors import ConfigError, did_you_mean, nearest

MAX_YAML_BYTES = 1_000_000


class Config(BaseModel):
    """Base of every settings class: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML whose numbers and booleans are those of YAML 1.2, and whose repeated keys are errors.

    PyYAML follows YAML 1.1, where `1e-3` is a string and `no` is false.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not used in recipes")
        return super().compose_node(parent, index)  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float", "tag:yaml.org,2002:int", "tag:yaml.org,2002:timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


_Loader.add_constructor("tag:yaml.org,2002:int", lambda loader, node: int(loader.construct_scalar(node)))


def read_yaml(text: str, where: str) -> Any:
    """The value that `text` spells; `where` names its origin in messages.

    Raises: ConfigError with line and column where the text is not YAML.
    """
    if len(text) > MAX_YAML_BYTES:
        raise ConfigError(f"{where} holds {len(text):,} characters; a recipe has at most {MAX_YAML_BYTES:,}.")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or type(error).__name__
        raise ConfigError(f"{where} is not valid YAML{place}: {problem}.") from error


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises: ConfigError where the file is absent, is not text, is not YAML, or holds something else.
    """
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_YAML_BYTES:,} bytes: not a recipe.")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"Cannot read {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text.") from error
    value = read_yaml(text, str(path))
    if not isinstance(value, dict):
        raise ConfigError(f"{path} must hold keys and values, but holds {_described(value)}.")
    return value


def write_yaml(value: Mapping[str, Any]) -> str:
    """YAML text that `read_yaml` reads back to the same value."""
    return yaml.dump(dict(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Block style, with short lists and mappings of scalars on one line."""

    def represent_data(self, data: Any) -> Any:
        node = super().represent_data(data)
        if isinstance(node, yaml.CollectionNode):
            parts = [part for item in node.value for part in (item if isinstance(item, tuple) else (item,))]
            scalar = all(isinstance(part, yaml.ScalarNode) for part in parts)
            node.flow_style = scalar and isinstance(node, yaml.SequenceNode)
        return node


def _represent_str(dumper: yaml.SafeDumper, text: str) -> Any:
    plain = read_plain(text) == text
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


def read_plain(text: str) -> Any:
    """What `text` means as an unquoted YAML scalar; the text itself where it is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader
    except yaml.YAMLError:
        return text


_Dumper.add_representer(str, _represent_str)


def parse_assignment(text: str) -> tuple[str, Any]:
    """`"optimizer.learning_rate=0.1"` to `("optimizer.learning_rate", 0.1)`; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"An override is written KEY=VALUE, for example fit.epochs=3, but got {text!r}.")
    return key.strip(), read_yaml(value, f"The value of {key.strip()}")


def with_overrides(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `settings` with dotted keys replaced; a number in a key indexes a list.

    Raises: ConfigError where a key leads through something that has no parts.
    """
    changed = _copied(settings)
    for dotted, value in overrides.items():
        _assign(changed, dotted, value)
    return dict(changed)


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_copied(part) for part in value]
    return value


def _assign(settings: Any, dotted: str, value: Any) -> None:
    keys = dotted.split(".")
    place = settings
    for depth, key in enumerate(keys):
        last = depth == len(keys) - 1
        at = ".".join(keys[:depth])
        if isinstance(place, list):
            if not key.isdigit() or int(key) >= len(place):
                raise ConfigError(
                    f"{dotted}: {at} is a list of {len(place)}, so {key!r} must be a number from 0 to {len(place) - 1}."
                )
            index: Any = int(key)
        elif isinstance(place, dict):
            index = key
        else:
            raise ConfigError(f"{dotted}: {at} is {_described(place)} and has no part {key!r}.")
        if last:
            place[index] = _copied(value)
        else:
            if isinstance(place, dict) and place.get(index) is None:
                place[index] = {}
            elif isinstance(place, dict) and isinstance(place[index], str):
                place[index] = {"name": place[index]}
            place = place[index]


def parse(model: type[ConfigT], settings: Mapping[str, Any], where: str) -> ConfigT:
    """`settings` as a validated `model`; every fault of the input in one `ConfigError`, a line each."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        lines = [_explained(detail, settings, model) for detail in error.errors()]
        count = "" if len(lines) == 1 else f" ({len(lines)} faults)"
        raise ConfigError(f"{where} is refused{count}:\n" + "\n".join(f"  {line}" for line in lines)) from error


def _explained(detail: ErrorDetails, settings: Any, model: type[BaseModel]) -> str:
    path = _path(detail["loc"], settings)
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == "extra_forbidden":
        known = _known_keys(detail["loc"], settings, model)
        return f"{path}: unknown key. {did_you_mean(path.rsplit('.', 1)[-1], known)}"
    if kind == "missing":
        return f"{path}: this key is needed and missing."
    if kind == "union_tag_invalid":
        known = re.findall(r"'([^']*)'", str(context.get("expected_tags", "")))
        return f"{path}: no choice named {str(context.get('tag'))!r}. {did_you_mean(str(context.get('tag')), known)}"
    if kind == "union_tag_not_found":
        return f"{path}: its `name` is missing."
    if kind in ("literal_error", "enum"):
        known = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        guess = nearest(str(value), known)
        hint = f" Did you mean {guess!r}?" if guess else ""
        return f"{path}: must be {context.get('expected')}, but got {value!r}.{hint}"
    if kind == "value_error":
        return f"{path}: {context.get('error', detail['msg'])}" if path else str(context.get("error"))
    return f"{path}: {_rule(detail['msg'])}, but got {value!r}."


def _rule(message: str) -> str:
    return re.sub(r"^Input should be", "must be", message).rstrip(".")


def _path(location: tuple[int | str, ...], settings: Any) -> str:
    """The location in the user's own words: pydantic puts the chosen `name` of a union into it."""
    keys: list[str] = []
    place = settings
    for index, key in enumerate(location):
        if isinstance(place, Mapping) and key not in place and index < len(location) - 1:
            continue
        if isinstance(place, str) and key == place:
            continue
        keys.append(str(key))
        if isinstance(place, Mapping):
            place = place.get(key)
        elif isinstance(place, list | tuple) and isinstance(key, int) and key < len(place):
            place = place[key]
        else:
            place = None
    return ".".join(keys)


def _known_keys(location: tuple[int | str, ...], settings: Any, model: type[BaseModel]) -> list[str]:
    """The keys that would have been right beside the unknown one, read from the model's JSON schema."""
    schema: Any = model.model_json_schema()
    definitions = schema.get("$defs", {})
    for key in location[:-1]:
        schema = _descend(schema, key, definitions)
    return sorted(_properties(schema, definitions))


def _resolved(schema: Any, definitions: Mapping[str, Any]) -> Any:
    while isinstance(schema, Mapping) and "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    return schema


def _descend(schema: Any, key: int | str, definitions: Mapping[str, Any]) -> Any:
    schema = _resolved(schema, definitions)
    if "discriminator" in schema and key in schema["discriminator"]["mapping"]:
        return {"$ref": schema["discriminator"]["mapping"][key]}
    for option in (schema, *schema.get("anyOf", ()), *schema.get("oneOf", ())):
        option = _resolved(option, definitions)
        if "discriminator" in option and key in option["discriminator"]["mapping"]:
            return {"$ref": option["discriminator"]["mapping"][key]}
        if isinstance(key, int) and "items" in option:
            return option["items"]
        if key in option.get("properties", {}):
            return option["properties"][key]
    return schema


def _properties(schema: Any, definitions: Mapping[str, Any]) -> set[str]:
    schema = _resolved(schema, definitions)
    found = set(schema.get("properties", {}))
    for option in schema.get("anyOf", ()):
        found |= _properties(option, definitions)
    return found


def _described(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)
