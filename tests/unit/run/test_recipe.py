"""The recipe's own rules, beyond those of its stages."""

from typing import Any

from conviction.run.recipe import TEXT_KEYS, recipe_schema


def text_keys(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> set[str]:
    """The dotted keys below a schema whose value is any text."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    alternatives = [part for key in ("anyOf", "oneOf") for part in schema.get(key, ())]
    found = set().union(*(text_keys(part, definitions, prefix) for part in alternatives)) if alternatives else set()
    for key, part in schema.get("properties", {}).items():
        found |= text_keys(part, definitions, f"{prefix}.{key}" if prefix else key)
    if schema.get("type") == "string" and "const" not in schema and "enum" not in schema:
        found.add(prefix)
    return found


def test_the_keys_of_text_are_all_there_are() -> None:
    schema = recipe_schema()
    # Any text for the schema, but YAML reads no name of a preset or layer otherwise; `freeze` may be a number.
    names = {"network", "network.preset", "network.freeze"}
    assert text_keys(schema, schema["$defs"]) - names == TEXT_KEYS
