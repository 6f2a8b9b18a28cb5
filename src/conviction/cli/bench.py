"""`conviction bench`: what this machine does, and how near to it a training comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from conviction.cli.options import JsonOption, SetOption
from conviction.cli.output import (
    Column,
    percent,
    print_aside,
    print_json,
    print_lines,
    print_table,
    shown_bytes,
    shown_count,
    shown_duration,
)

if TYPE_CHECKING:
    from conviction.core.bench_record import BenchRecord, Rate, TrainingSpeed


def bench(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE]", help="A recipe, a preset or torchvision:NAME; the pictures are made up at random."
        ),
    ] = "convnet-cifar10",
    seconds: Annotated[float, typer.Option("--seconds", help="About how long to measure, from 1 to 3600.")] = 20.0,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="The batch size, fit.batch_size.")] = None,
    input_shape: Annotated[
        str | None, typer.Option("--input", metavar="CxHxW", help="The pictures' size, for example 3x64x64.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option("--classes", min=2, help="The number of classes; 10 where the recipe names none.")
    ] = None,
    assignments: SetOption = [],  # noqa: B006 - typer copies it
    as_json: JsonOption = False,
) -> None:
    """Measure this machine: matrix products, convolutions, memory, and how near to that a training comes.

    Needs no data. `--set fit.precision=float32`, `--set fit.threads=1` or `--set fit.device=cpu` measure otherwise.
    """
    from conviction import bench_machine
    from conviction.run.architecture import parse_shape
    from conviction.run.recipe import parse_overrides

    overrides = parse_overrides(assignments)
    if batch is not None:
        overrides["fit.batch_size"] = batch
    found = bench_machine(
        recipe,
        overrides,
        input_shape=parse_shape(input_shape) if input_shape else None,
        num_classes=classes,
        seconds=seconds,
        on_stage=lambda stage: print_aside(f"measuring {stage} …"),
    )
    if as_json:
        print_json(found.as_json())
        return
    _print_ceilings(found)
    print_lines(_describe_training(found))
    print_lines(["", f"Measured in {shown_duration(found.seconds)}."])
    for warning in found.warnings():
        print_aside(f"warning: {warning}")


_CEILING_COLUMNS = [
    Column("operation", "left"),
    Column("precision", "left"),
    Column("size", "left", rank=2),
    Column("a second"),
    Column("middle half", rank=1),
    Column("repetitions", rank=3),
]


def _print_ceilings(found: BenchRecord) -> None:
    about = found.environment
    cores, threads = about["cores"], about["threads"]
    print_lines(
        [
            f"{found.device_name}, {about['device']}, {cores} core{'s' * (cores > 1)}, "
            f"{threads} thread{'s' * (threads > 1)}, torch {about['packages']['torch']}"
        ]
    )
    rows = [
        (
            ceiling.shown_operation,
            f"{ceiling.precision}{' (emulated)' * ceiling.emulated}",
            ceiling.size,
            _shown_flops(ceiling.flops.median),
            f"{_shown_flops(ceiling.flops.lower_quartile)} … {_shown_flops(ceiling.flops.upper_quartile)}",
            str(ceiling.flops.count),
        )
        for ceiling in found.ceilings
    ]
    copying = found.memory_bytes_per_s
    low, middle, high = (
        shown_bytes(round(value)) for value in (copying.lower_quartile, copying.median, copying.upper_quartile)
    )
    rows.append(("copying memory, read + written", "", "", middle, f"{low} … {high}", str(copying.count)))
    print_table(_CEILING_COLUMNS, rows)


def _describe_training(found: BenchRecord) -> list[str]:
    from conviction.core.bench_record import SHARE_EXPLAINED

    training = found.training
    size = "×".join(map(str, training.input))
    return [
        f"{training.recipe}: {training.num_parameters:,} parameters, {size} pictures made up at random, batches of "
        f"{training.batch_size}, {training.precision}, {found.environment['memory_format'].replace('_', ' ')}",
        f"Training step  {_shown_images(training.step_images_per_s)}: forward, backward, optimiser, on one batch",
        f"Whole loop     {_shown_images(training.loop_images_per_s)}: with shuffling, augmentation, standardisation",
        f"Computations   {_shown_flops(training.flop_per_image)} for a picture in a step, "
        f"{_shown_flops(training.step_flops)} a second",
        f"Share          {percent(training.share_of_ceiling)} of the ceiling, "
        f"{_shown_flops(training.ceiling_flops)} a second of the {training.ceiling_operation}, in "
        f"{training.precision}",
        *_describe_matrix_share(training),
        "",
        SHARE_EXPLAINED,
    ]


def _describe_matrix_share(training: TrainingSpeed) -> list[str]:
    """Beside a ceiling that a convolution sets."""
    if training.ceiling_flops == training.matrix_flops:
        return []
    return [
        f"               {percent(training.share_of_matrix_product)} of the fastest matrix product, "
        f"{_shown_flops(training.matrix_flops)} a second"
    ]


def _shown_flops(flops: float) -> str:
    count = shown_count(round(flops))
    return f"{count}FLOP" if count[-1].isalpha() else f"{count} FLOP"


def _shown_images(rate: Rate) -> str:
    return (
        f"{rate.median:,.0f} images a second "
        f"(middle half {rate.lower_quartile:,.0f} … {rate.upper_quartile:,.0f} of {rate.count})"
    )
