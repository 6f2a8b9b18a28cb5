"""`conviction recipes`: list, show, schema."""

from __future__ import annotations

from typing import Annotated

import typer

from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import Column, print_json, print_lines, print_table, refuse_early_json

app = typer.Typer(help="The built-in recipes.", invoke_without_command=True)


@app.callback()
def recipes(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the built-in recipes."""
    if context.invoked_subcommand is not None:
        refuse_early_json(as_json, f"conviction recipes {context.invoked_subcommand}")
        return
    from conviction.recipes import recipe_names, recipe_summary

    listed = [(name, recipe_summary(name)) for name in recipe_names()]
    if as_json:
        print_json({"recipes": [{"name": name, "description": summary} for name, summary in listed]})
        return
    print_table([Column("recipe", "left"), Column("what it trains", "left")], listed)
    print_lines(["Train one: conviction train NAME.  See one whole: conviction recipes show NAME"])


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="A built-in recipe or a YAML file.")],
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Print a recipe with every setting written out; the output is itself a recipe."""
    from conviction.run.recipe import load_recipe, parse_overrides

    loaded = load_recipe(recipe, parse_overrides(assignments))
    if as_json:
        print_json(loaded.settings())
    else:
        print_lines([loaded.to_yaml().rstrip("\n")])


@app.command()
def schema(as_json: JsonOption = True) -> None:
    """Print the JSON schema of a recipe, for editors."""
    from conviction.run.recipe import recipe_schema

    print_json(recipe_schema())
