"""`conviction inspect`: what a network is, before it is trained."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import (
    Column,
    percent,
    print_json,
    print_lines,
    print_table,
    shown_bytes,
    shown_count,
    shown_duration,
)

if TYPE_CHECKING:
    from conviction.core.architecture import Architecture, LayerRecord, ReceptiveField
    from conviction.nets.symbolic import SymbolicCounts
    from conviction.run.epoch_time import EpochTime

NetworksArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="NETWORK...",
        help="A recipe, a preset, torchvision:NAME, or module.py:function; several with --compare.",
    ),
]


# An option is a parameter to typer, and each is on its own.
def inspect(
    networks: NetworksArgument,
    input_shape: Annotated[
        str | None, typer.Option("--input", metavar="CxHxW", help="The pictures that it is given, for example 3x32x32.")
    ] = None,
    classes: Annotated[int | None, typer.Option("--classes", min=2, help="The number of classes.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="The batch size for the memory.")] = None,
    precision: Annotated[
        str | None,
        typer.Option("--precision", help="float32 or bfloat16, for the memory; by default the recipe's own."),
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Several networks side by side.")] = False,
    symbolic: Annotated[
        bool, typer.Option("--symbolic", help="Add weights and MACs as formulas in m, k, n, H, W, D.")
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--time", help="Estimate an epoch's time on this machine from a few steps of training.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check-time", help="With --time: run a real epoch too, and report the error.")
    ] = False,
    save_diagram: Annotated[
        str | None, typer.Option("--save-diagram", metavar="FILE", help="Draw the network as .svg or .png.")
    ] = None,
    save_fields: Annotated[
        str | None, typer.Option("--save-fields", metavar="FILE", help="Draw receptive fields over a picture.")
    ] = None,
    picture: Annotated[
        str | None, typer.Option("--picture", metavar="PICTURE", help="The picture for --save-fields.")
    ] = None,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Show a network's layers: sizes, weights, computations, memory and receptive fields. Nothing is trained."""
    from conviction import inspect as inspect_named
    from conviction.core.errors import ConfigError, UnknownName
    from conviction.run.architecture import formulas, parse_shape
    from conviction.run.recipe import parse_overrides

    alone = {"--symbolic": symbolic, "--time": estimate or check}
    alone |= {"--save-diagram": bool(save_diagram), "--save-fields": bool(save_fields)}
    _refuse_what_does_not_go_together(networks, compare, alone)
    if picture and not save_fields:
        raise ConfigError("--picture is the picture for --save-fields, which is missing.")
    if precision not in (None, "float32", "bfloat16"):
        raise UnknownName("precision", precision, ("float32", "bfloat16"))
    shape, overrides = parse_shape(input_shape) if input_shape else None, parse_overrides(assignments)
    found = []
    for name in networks:
        try:
            found.append(
                inspect_named(
                    name,
                    input_shape=shape,
                    num_classes=classes,
                    batch_size=batch,
                    precision=precision,  # type: ignore[arg-type]
                    overrides=overrides,
                )
            )
        except ConfigError as error:
            if not compare:
                raise
            raise ConfigError(f"{name}: {error.message}") from error
    if compare:
        _print_comparison(found, as_json)
        return
    name, written = networks[0], None
    if symbolic:
        written = formulas(name, input_shape=shape, num_classes=classes, overrides=overrides)
    timed = _time(name, overrides, check) if estimate or check else None
    saved = _save_pictures(found[0], save_diagram, save_fields, picture)
    _report(found[0], written, timed, saved, as_json)


def _refuse_what_does_not_go_together(networks: list[str], compare: bool, alone: dict[str, bool]) -> None:
    """Raises: ConfigError where several networks are given without --compare, or one's options with it."""
    from conviction.core.errors import ConfigError

    if len(networks) > 1 and not compare:
        raise ConfigError(f"Got {len(networks)} networks. To see several side by side, add --compare.")
    given = [option for option, value in alone.items() if value]
    if compare and given:
        raise ConfigError(f"--compare shows totals side by side; ask for {', '.join(given)} of one network at a time.")


def _report(
    found: Architecture, written: SymbolicCounts | None, timed: EpochTime | None, saved: dict[str, str], as_json: bool
) -> None:
    if as_json:
        more = {"symbolic": written.as_json()} if written else {}
        if timed:
            more["epoch_time"] = {**asdict(timed), "error": timed.error}
        print_json({**found.as_json(), **more, **saved})
        return
    _print_architecture(found)
    if written:
        _print_formulas(written, found)
    if timed:
        print_lines(_describe_time(timed))
    print_lines(f"{what.capitalize():<11} {path}" for what, path in saved.items())


def _time(name: str, overrides: dict[str, Any], check: bool) -> EpochTime:
    from conviction import load_recipe
    from conviction.core.errors import ConfigError, UnknownName
    from conviction.run.epoch_time import estimate_epoch

    try:
        recipe = load_recipe(name, overrides)
    except UnknownName as error:
        raise ConfigError(
            f"--time trains for a few steps, which takes a recipe, and {name!r} is a network without one."
        ) from error
    return estimate_epoch(recipe, check)


def _describe_time(timed: EpochTime) -> list[str]:
    lines = [
        f"Epoch       about {shown_duration(timed.seconds)} on this machine: {timed.num_steps:,} steps "
        f"{shown_duration(timed.train_s)}, validation {shown_duration(timed.validation_s)} "
        f"(from {timed.measured_steps} measured steps)"
    ]
    if timed.frozen_s is not None:
        once = (
            f"about {shown_duration(timed.frozen_s)} once, before the first epoch" if timed.frozen_s else "kept already"
        )
        real = "" if timed.real_frozen_s is None else f"; really {shown_duration(timed.real_frozen_s)}"
        lines.insert(0, f"Frozen      {once}{real}: what the frozen layers make of the pictures")
    if timed.real_s is not None and timed.error is not None:
        lines.append(f"Real epoch  {shown_duration(timed.real_s)}: the estimate is off by {100 * timed.error:+.1f} %")
    return lines


def _save_pictures(found: Architecture, diagram: str | None, fields: str | None, picture: str | None) -> dict[str, str]:
    """Draw what is asked for, and say where it lies."""
    from pathlib import Path

    saved = {}
    if diagram:
        from conviction.report.diagram import draw_diagram

        draw_diagram(found, Path(diagram))
        saved["diagram"] = diagram
    if fields:
        from conviction.report.fields_figure import draw_fields
        from conviction.run.architecture import example_picture

        draw_fields(found, example_picture(found.input, picture), Path(fields))
        saved["fields"] = fields
    return saved


def _print_architecture(found: Architecture) -> None:
    from conviction.core.architecture import CONVENTION

    print_lines([f"{found.name} for pictures of {_shown_shape(found.input)}"])
    print_table(_LAYER_COLUMNS, [_layer_cells(layer, found) for layer in found.layers])
    print_lines(_totals(found))
    notes = [f"note: {note}" for note in found.notes]
    print_lines(["", CONVENTION, _FIELDS_EXPLAINED, *notes])


_LAYER_COLUMNS = [
    Column("layer", "left"),
    Column("kind", "left", rank=3),
    Column("output"),
    Column("weights"),
    Column("how counted", "left", rank=8),
    Column("MACs"),
    Column("share\nof MACs", rank=5),
    Column("memory\na picture", rank=6),
    Column("receptive\nfield", rank=1),
    Column("stride", rank=2),
    Column("centre of\nthe first", rank=7),
    Column("if fully\nconnected", rank=9),
]
_FIELDS_EXPLAINED = (
    "Receptive field: pixels of the picture that one position depends on, ≤ where only a bound is known. Stride: how "
    "far it moves from one position to the next. Centre: of the first position's field, from the picture's corner."
)


def _layer_cells(layer: LayerRecord, found: Architecture) -> tuple[str, ...]:
    field = layer.receptive_field
    return (
        layer.name,
        layer.kind + (f" ({layer.note})" if layer.note else ""),
        _shown_shape(layer.output) if layer.output else "–",
        f"{layer.parameters:,}" if layer.parameters else "",
        layer.formula,
        shown_count(layer.macs) if layer.macs else "",
        percent(layer.macs / found.macs) if layer.macs else "",
        shown_bytes(layer.activation_bytes) if layer.activation_bytes else "",
        _shown_field(field) if layer.output is not None else "–",
        _shown_pair(field.stride_px),
        _shown_pair(field.start_px),
        shown_count(layer.dense_parameters) if layer.dense_parameters else "",
    )


def _shown_shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _shown_field(field: ReceptiveField) -> str:
    if field.size_px is None:
        return "unknown"
    sides = sorted(set(field.size_px))
    size = str(sides[0]) if len(sides) == 1 else "×".join(map(str, field.size_px))
    return f"≤ {size}" if field.status == "UPPER BOUND" else size


def _shown_pair(pair: tuple[Any, Any] | None) -> str:
    if pair is None or pair == (None, None):
        return "–"
    shown = ["–" if side is None else f"{side:g}" for side in pair]
    return shown[0] if shown[0] == shown[1] else "×".join(shown)


def _totals(found: Architecture) -> list[str]:
    frozen = found.parameters - found.trainable_parameters
    lines = [
        f"Weights     {found.parameters:,}" + (f", {frozen:,} of them frozen" if frozen else ""),
        f"MACs        {found.macs:,} a picture" + ("" if found.is_complete else ", and those of what is unknown"),
    ]
    if found.num_training_pictures:
        ratio = found.parameters / found.num_training_pictures
        lines.append(f"Data        {ratio:,.1f} weights for each of {found.num_training_pictures:,} training pictures")
    if found.memory:
        memory = found.memory
        lines.append(
            f"Memory      {shown_bytes(memory.training_bytes)} for a training step of {memory.batch_size} pictures "
            f"(weights {shown_bytes(memory.weights_bytes)}, gradients {shown_bytes(memory.gradients_bytes)}, "
            f"{memory.optimizer} {shown_bytes(memory.optimizer_bytes)}, maps {shown_bytes(memory.saved_bytes)}), "
            f"{shown_bytes(memory.inference_bytes)} to predict them, in {memory.precision}"
        )
    return lines


def _print_formulas(written: SymbolicCounts, found: Architecture) -> None:
    told = written.as_json()
    counted = written.counted()
    lines = [
        "",
        "As formulas, for every size:",
        "  where " + ", ".join(f"{s.letter} = {s.value} ({s.meaning})" for s in written.symbols),
        *(f"  {name} = {formula}" for name, formula in told["sizes"].items()),
        f"  weights = {told['weights']}",
        f"  MACs    = {told['macs']}",
        "Where every size divides without rounding:",
        f"  weights = {told['weights_if_divisible']}",
        f"  MACs    = {told['macs_if_divisible']}",
        f"With these numbers the formulas give {counted[0]:,} weights and {counted[1]:,} MACs, "
        + ("as counted above." if counted == (found.parameters, found.macs) else "NOT as counted above: report this."),
    ]
    print_lines(lines)


def _print_comparison(found: list[Architecture], as_json: bool) -> None:
    if as_json:
        print_json({"networks": [architecture.as_json() for architecture in found]})
        return
    rows = [
        ("pictures", *(_shown_shape(one.input) for one in found)),
        ("weights", *(f"{one.parameters:,}" for one in found)),
        ("MACs a picture", *(f"{one.macs:,}" for one in found)),
        ("layers with weights", *(str(sum(layer.parameters > 0 for layer in one.layers)) for one in found)),
        ("largest field in a map", *(_largest_field(one) for one in found)),
        ("training step", *(shown_bytes(one.memory.training_bytes) if one.memory else "–" for one in found)),
        ("prediction", *(shown_bytes(one.memory.inference_bytes) if one.memory else "–" for one in found)),
        ("batch size", *(str(one.memory.batch_size) if one.memory else "–" for one in found)),
    ]
    print_table([Column("", "left"), *(Column(one.name) for one in found)], rows)


def _largest_field(found: Architecture) -> str:
    """The largest field of a layer whose positions still see different parts of the picture."""
    moving = [
        layer.receptive_field
        for layer in found.layers
        if layer.receptive_field.stride_px and layer.receptive_field.stride_px != (None, None)
    ]
    return _shown_field(max(moving, key=lambda field: field.size_px or (0, 0))) if moving else "–"
