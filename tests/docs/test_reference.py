"""Pages of docs/reference that are written from the code; `make docs` writes them anew."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from conviction.augment import AUGMENTATIONS
from conviction.cli.main import app
from conviction.core.registry import Registry
from conviction.data.source import SOURCES
from conviction.data.standardize import STANDARDIZATIONS
from conviction.fit.lookahead import LookaheadConfig
from conviction.fit.loss import LOSSES
from conviction.fit.optimizer import OPTIMIZERS
from conviction.fit.schedule import SCHEDULES
from conviction.nets import NETWORKS, PRESETS
from conviction.run.recipe import Recipe

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
CHOICES: dict[str, Registry[Any]] = {
    "data": SOURCES,
    "standardize": STANDARDIZATIONS,
    "augment": AUGMENTATIONS,
    "network": NETWORKS,
    "loss": LOSSES,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}


def _commands() -> Iterator[tuple[str, Any]]:
    def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
        yield path, command
        for name, below in getattr(command, "commands", {}).items():
            yield from walk(below, f"{path} {name}")

    return walk(typer.main.get_command(app), "conviction")


def commands_page() -> str:
    lines = ["# Commands", "", "Written from the program; every command takes `--help`."]
    for path, command in _commands():
        lines += ["", f"## `{path}`", "", (command.help or command.callback.__doc__ or "").strip()]
        rows = []
        for parameter in command.params:
            if parameter.name == "help":
                continue
            names = ", ".join(f"`{name}`" for name in getattr(parameter, "opts", []) if name.startswith("-"))
            shown = names or f"`{parameter.metavar or parameter.name.upper()}`"
            rows.append(f"| {shown} | {(getattr(parameter, 'help', None) or '').strip()} |")
        if rows:
            lines += ["", "| argument or option | meaning |", "|---|---|", *rows]
    return "\n".join(lines) + "\n"


def _settings_table(schema: dict[str, Any]) -> list[str]:
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for name, about in schema.get("properties", {}).items():
        if name == "name":
            continue
        default = "needed" if name in schema.get("required", ()) else f"`{about.get('default')}`"
        rows.append(f"| `{name}` | {default} | {_meaning(about)} |")
    return rows if len(rows) > 2 else []


def _meaning(about: dict[str, Any]) -> str:
    options = about.get("enum") or [c for o in about.get("anyOf", ()) for c in o.get("enum", ())]
    return ". ".join(filter(None, [about.get("description", ""), ", ".join(f"`{option}`" for option in options)]))


def choices_page() -> str:
    lines = [
        "# Choices in a recipe",
        "",
        "Written from the registries; `conviction recipes schema` has it for editors.",
    ]
    for key, registry in CHOICES.items():
        lines += ["", f"## `{key}`"]
        for entry in registry:
            source = f" Source: {entry.reference}." if entry.reference else ""
            lines += ["", f"### `{entry.name}`", "", f"{entry.summary}.{source}"]
            table = _settings_table(entry.config.model_json_schema())
            lines += ["", *table] if table else []
    lines += ["", "## Presets of `network`", "", "| preset | what it is | source |", "|---|---|---|"]
    lines += [f"| `{name}` | {preset.summary} | {preset.reference} |" for name, preset in PRESETS.items()]
    for name, title in (("BlockConfig", "A block"), ("PoolingConfig", "Pooling"), ("DenseConfig", "A dense layer")):
        schema = NETWORKS["blocks"].config.model_json_schema()["$defs"][name]
        lines += ["", f"## {title}", "", *_settings_table(schema)]
    lines += [
        "",
        "## Lookahead",
        "",
        "`lookahead` of any optimiser.",
        "",
        *_settings_table(LookaheadConfig.model_json_schema()),
    ]
    for key in ("split", "stopping", "fit"):
        definition = Recipe.model_fields[key].annotation
        assert definition is not None
        lines += ["", f"## `{key}`", "", *_settings_table(definition.model_json_schema())]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(("name", "page"), [("commands.md", commands_page), ("choices.md", choices_page)])
def test_page_is_up_to_date(name: str, page: Callable[[], str]) -> None:
    expected = page()
    if os.environ.get("UPDATE_DOCS"):
        (REFERENCE / name).write_text(expected, encoding="utf-8")
    assert (REFERENCE / name).read_text(encoding="utf-8") == expected, "make docs writes it anew"


def test_every_entry_says_what_it_is() -> None:
    for registry in CHOICES.values():
        for entry in registry:
            assert entry.summary
            assert not entry.summary.endswith(".")


def test_the_guide_names_every_augmentation() -> None:
    page = (REFERENCE.parent / "guide" / "augmentation.md").read_text(encoding="utf-8")
    tables = "".join(line for line in page.splitlines() if line.startswith("| `"))
    assert {entry.name for entry in AUGMENTATIONS if f"`{entry.name}`" not in tables} == {"torchvision"}


def test_every_option_has_a_help_text() -> None:
    for path, command in _commands():
        assert command.help or command.callback.__doc__, path
        for parameter in command.params:
            assert getattr(parameter, "help", None), f"{path}: {parameter.name}"


def test_every_registry_of_the_recipe_is_documented() -> None:
    named = {name for name in Recipe.model_fields if name in Recipe.model_json_schema()["properties"]}
    plain = {"format", "name", "description", "seed", "split", "stopping", "test_time", "fit"}
    assert named - plain == set(CHOICES)
