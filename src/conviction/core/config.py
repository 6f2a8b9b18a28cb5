"""Settings: frozen pydantic models, read from YAML, refused with the key's path, the rule and the right name."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from conviction.core.errors import ConfigError
from conviction.core.faults import explained

MAX_YAML_BYTES = 1_000_000


class Config(BaseModel):
    """Base of every settings class: immutable, and a key that it does not know is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, field: ValidationInfo) -> object:
        """Pydantic takes true for 1, in lists too."""
        parts = value if isinstance(value, list | tuple) else [value]
        if any(isinstance(part, bool) for part in parts):
            kinds = _kinds(cls.model_fields[field.field_name or ""].annotation)
            if bool not in kinds and kinds & {int, float}:
                raise PydanticCustomError("float_type" if float in kinds else "int_type", "a number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The plain types that an annotation is made of."""
    parts = typing.get_args(annotation)
    return {annotation} if not parts else {kind for part in parts for kind in _kinds(part)}


ConfigT = TypeVar("ConfigT", bound=BaseModel)


class _Loader(yaml.SafeLoader):
    """Safe YAML whose plain scalars are those of YAML 1.2, and whose repeated keys are errors.

    PyYAML follows YAML 1.1, where `1e-3` is a string, `no` is false and `010` is 8.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        mark: Any = event.start_mark
        # A few aliases of aliases unfold to gigabytes, and a tag asks for a type that no setting has.
        if isinstance(event, yaml.AliasEvent):
            raise yaml.constructor.ConstructorError(None, None, "aliases are not used in recipes", mark)
        if getattr(event, "tag", None) is not None:
            raise yaml.constructor.ConstructorError(None, None, "tags are not used in recipes", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be one word", key_node.start_mark)
            if key_node.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} stands twice", key_node.start_mark
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:null"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9]+$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


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
        raise ConfigError(f"{where} is not valid YAML{place}: {_problem(error)}.") from error


def _problem(error: Exception) -> str:
    if isinstance(error, yaml.reader.ReaderError):
        return f"it holds the unprintable character U+{error.character:04X}"
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, ValueError):
        return "it holds a number with too many digits"
    return str(getattr(error, "problem", None) or type(error).__name__)


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
    """Block style, with lists of scalars on one line."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_data(self, data: Any) -> Any:
        node = super().represent_data(data)
        if isinstance(node, yaml.CollectionNode):
            scalar = all(isinstance(part, yaml.ScalarNode) for part in node.value)
            node.flow_style = scalar and isinstance(node, yaml.SequenceNode)
        return node


def _represent_str(dumper: yaml.SafeDumper, text: str) -> Any:
    # Only double quotes have escapes: within the others a line break of any kind is read as a space.
    if re.search("[\n\r\x85\u2028\u2029]", text):
        style: str | None = '"'
    else:
        style = None if read_plain(text) == text else "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def read_plain(text: str) -> Any:
    """What `text` means as an unquoted YAML scalar; the text itself where it is no YAML."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - the loader is a SafeLoader
    except (yaml.YAMLError, RecursionError, ValueError):
        return text


_Dumper.add_representer(str, _represent_str)


def parse_assignment(text: str, text_keys: Collection[str] = ()) -> tuple[str, Any]:
    """`"optimizer.learning_rate=0.1"` to `("optimizer.learning_rate", 0.1)`; the value is read as YAML.

    For one of the `text_keys`, a path for example, the value is taken as it stands, unless it is `null` or in quotes.

    Raises: ConfigError.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise ConfigError(f"An override is written KEY=VALUE, for example fit.epochs=3, but got {text!r}.")
    if key in text_keys and value != "null" and value[:1] not in ("'", '"'):
        return key, value
    return key, read_yaml(value, f"The value of {key}")


def with_overrides(settings: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of `settings` with dotted keys replaced; a number in a key indexes a list.

    Raises: ConfigError where a key leads through something that has no parts.
    """
    changed = _copied(settings)
    for dotted, value in overrides.items():
        if not isinstance(dotted, str):
            raise ConfigError(f"An override's key is text, for example 'fit.epochs', but got {dotted!r}.")
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
    if "" in keys:
        raise ConfigError(f"A key is names joined by single dots, for example fit.epochs, but got {dotted!r}.")
    place = settings
    for depth, key in enumerate(keys):
        index = _index(place, key, dotted, at=".".join(keys[:depth]))
        if depth == len(keys) - 1:
            place[index] = _copied(value)
            return
        inner = place.get(index) if isinstance(place, dict) else place[index]
        # A bare name stands for a choice with every setting left as it is, and nothing for one yet to be written.
        if inner is None or isinstance(inner, str):
            place[index] = inner = {} if inner is None else {"name": inner}
        place = inner


def _index(place: Any, key: str, dotted: str, at: str) -> int | str:
    if isinstance(place, dict):
        return key
    if not isinstance(place, list):
        raise ConfigError(f"{dotted}: {at} is {_described(place)} and has no part {key!r}.")
    if not place:
        raise ConfigError(f"{dotted}: {at} is an empty list and has no part {key!r}.")
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(
            f"{dotted}: {at} is a list of {len(place)}, so {key!r} must be a number from 0 to {len(place) - 1}."
        )
    return int(key)


def _described(value: object) -> str:
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def parse(model: type[ConfigT], settings: Mapping[str, Any], where: str) -> ConfigT:
    """`settings` as a validated `model`; every fault of the input in one `ConfigError`, a line each."""
    try:
        return model.model_validate(settings)
    except ValidationError as error:
        lines = explained(error.errors(), settings, model)
        count = "" if len(lines) == 1 else f" ({len(lines)} faults)"
        raise ConfigError(f"{where} is refused{count}:\n" + "\n".join(f"  {line}" for line in lines)) from error
