"""A registry is a dict and a decorator: help pages, documentation tables and contract tests read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from conviction.core.config import Config
from conviction.core.errors import UnknownName

BuilderT = TypeVar("BuilderT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Entry(Generic[BuilderT]):
    """One choice: its name, what builds it, the settings it takes, one line of summary, its source."""

    name: str
    build: BuilderT
    config: type[Config]
    summary: str
    reference: str


class Registry(Generic[BuilderT]):
    """Named choices of one kind; `what` is the word that messages use for one of them."""

    def __init__(self, what: str) -> None:
        self.what = what
        self._entries: dict[str, Entry[BuilderT]] = {}

    def register(
        self, name: str, config: type[Config], summary: str, reference: str = ""
    ) -> Callable[[BuilderT], BuilderT]:
        """Decorator that enters a builder under `name`; a name taken twice is our own bug."""

        def enter(build: BuilderT) -> BuilderT:
            assert name not in self._entries, f"{self.what} {name!r} is registered twice"
            assert config.model_fields["name"].default == name, f"{config.__name__}.name is not {name!r}"
            self._entries[name] = Entry(name, build, config, summary, reference)
            return build

        return enter

    def __getitem__(self, name: str) -> Entry[BuilderT]:
        """Raises `UnknownName` with the nearest known name."""
        if name not in self._entries:
            raise UnknownName(self.what, name, self._entries)
        return self._entries[name]

    def __iter__(self) -> Iterator[Entry[BuilderT]]:
        return iter(self._entries.values())

    def names(self) -> list[str]:
        """The names in the order in which they were registered."""
        return list(self._entries)


@dataclass(frozen=True)
class OneOf:
    """Field annotation: the value is one of a registry's configs, chosen by its `name`.

    The union is built from the registry when the recipe's schema is, so that a new entry needs no second list.
    A bare string stands for the entry of that name with every setting left as it is; `shorthands` are further strings,
    and those that match `pattern`, which a validator of the field's own spells out.
    """

    registry: Registry[Any]
    shorthands: tuple[str, ...] = ()
    pattern: str | None = None

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices: dict[Any, CoreSchema] = {entry.name: handler.generate_schema(entry.config) for entry in self.registry}
        union = core_schema.tagged_union_schema(choices, discriminator="name")
        return core_schema.no_info_before_validator_function(_spell_out, union)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        matching = [] if self.pattern is None else [{"type": "string", "pattern": self.pattern}]
        return {"anyOf": [{"enum": [*self.registry.names(), *self.shorthands]}, *matching, handler(schema)]}


def _spell_out(value: object) -> object:
    return {"name": value} if isinstance(value, str) else value
