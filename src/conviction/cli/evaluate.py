"""`conviction evaluate` and `conviction predict`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from conviction.cli.options import JsonOption, LedgerOption, RunArgument, WeightsOption
from conviction.cli.output import Column, percent, print_aside, print_json, print_lines, print_table, shown_score
from conviction.core.records import Score

if TYPE_CHECKING:
    from conviction import Run
    from conviction.core.records import Evaluation
    from conviction.run.model import Model


def evaluate(
    run: RunArgument = "latest",
    split: Annotated[str, typer.Option("--split", help="test, validation or train.")] = "test",
    weights: WeightsOption = "best",
    detail: Annotated[bool, typer.Option("--detail", help="Add macro F1, calibration, each class.")] = False,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a trained network on a split. Opening the test split is recorded in the ledger for good."""
    from conviction import Run

    opened = Run.open(run, ledger_url=ledger)
    evaluation = opened.evaluate(split, weights, detail)
    if as_json:
        print_json(_evaluation_json(evaluation))
        return
    print_lines(_describe(evaluation, opened))
    if detail:
        columns = [Column("class", "left"), Column(f"{split} accuracy"), Column("pictures")]
        print_table(columns, [_class_cells(evaluation, name) for name in evaluation.accuracy_by_class])


def _class_cells(evaluation: Evaluation, name: str) -> tuple[str, ...]:
    share, count = evaluation.accuracy_by_class[name], evaluation.count_by_class[name]
    return (name, "–", "0") if share is None else (name, percent(share), f"{round(share * count):,} of {count:,}")


def _evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    return asdict(evaluation)


def _describe(evaluation: Evaluation, run: Run) -> list[str]:
    from conviction.cli.train import describe_places

    low, high = evaluation.interval_95
    found = Score(evaluation.accuracy, evaluation.loss, evaluation.count)
    validation = next((r.validation for r in run.history if r.epoch == evaluation.epoch), None)
    lines = []
    if evaluation.split != "validation" and validation:
        lines.append(f"Validation  {shown_score(validation)} nats: {evaluation.weights} epoch, {evaluation.epoch}")
    lines.append(
        f"{evaluation.split.capitalize():<11} {shown_score(found)} nats; 95 % interval of the accuracy "
        f"{100 * low:.1f} to {100 * high:.1f} %"
    )
    if evaluation.one_view is not None:
        lines[-1] += f"; mean of {evaluation.num_views} views of each picture"
        lines.append(f"One view    {shown_score(evaluation.one_view)} nats")
    lines += [f"{_DETAIL_LABELS[name]:<27} {percent(value)}" for name, value in evaluation.detail.items()]
    if evaluation.split == "test":
        lines.append(_describe_openings(evaluation))
    return [*lines, *describe_places(run.path)]


_DETAIL_LABELS = {
    "macro_f1": "F1, mean over the classes",
    "expected_calibration_error": "Expected calibration error",
    "top_5_accuracy": "Top-5 accuracy",
}


def _describe_openings(evaluation: Evaluation) -> str:
    own, every = evaluation.openings, evaluation.test_set_openings
    text = f"Ledger      opening {own} of the test split by this run"
    if every > own:
        text += f", {every} of these test images by all runs"
    if every > 1:
        text += ". Each further look, and each choice made after one, makes the figure more flattering."
    return text


def predict(
    run: RunArgument,
    pictures: Annotated[list[str], typer.Argument(metavar="PICTURE...", help="Picture files.")],
    weights: WeightsOption = "best",
    dense: Annotated[bool, typer.Option("--dense", help="Slide over one larger picture; writes a heat map.")] = False,
    scale: Annotated[
        float | None, typer.Option("--scale", min=0.01, max=100, help="With --dense: resize it first, 2 doubles it.")
    ] = None,
    out: Annotated[str | None, typer.Option("--out", metavar="PNG", help="With --dense: where the map goes.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Name what is in pictures. Those that cannot be read are named too, and the exit code is then 2."""
    from conviction import Run
    from conviction.core.errors import ConfigError, DataError

    if not dense and (given := [name for name, value in (("--scale", scale), ("--out", out)) if value is not None]):
        raise ConfigError(f"{' and '.join(given)}: for the heat map of --dense, which is missing.")
    opened = Run.open(run)
    model = opened.model(weights)
    if dense:
        _predict_dense(opened, model, pictures, 1.0 if scale is None else scale, out, as_json)
        return
    found, faults = [], []
    for picture in pictures:
        try:
            found.append((picture, model.predict(picture)[0]))
        except DataError as error:
            faults.append({"picture": picture, "message": error.message})
    if not found:
        raise DataError("\n".join(fault["message"] for fault in faults))
    num_views = model.views.num_views
    if as_json:
        predictions = [{"picture": picture, **asdict(prediction)} for picture, prediction in found]
        document: dict[str, Any] = {
            "run": opened.id,
            "weights": weights,
            "num_views": num_views,
            "predictions": predictions,
            "unreadable": faults,
        }
        if faults:
            document["error"] = {"kind": DataError.kind, "message": "\n".join(fault["message"] for fault in faults)}
        print_json(document)
    else:
        rows = [(picture, prediction.label, percent(prediction.probability)) for picture, prediction in found]
        print_table([Column("picture", "left"), Column("class", "left"), Column("probability")], rows)
        if num_views > 1:
            print_lines([f"Each is the mean of {num_views} views of the picture."])
        for fault in faults:
            print_aside(f"Error: {fault['message']}")
    if faults:
        raise typer.Exit(2)


def _predict_dense(run: Run, model: Model, pictures: list[str], scale: float, out: str | None, as_json: bool) -> None:
    """The heat maps of the most likely classes, beside the picture."""
    from pathlib import Path

    from conviction.core.errors import ConfigError
    from conviction.report.heat_map import draw_heat_map

    if len(pictures) != 1:
        raise ConfigError(f"--dense takes one picture, but got {len(pictures)}.")
    found, pixels = model.dense_map(pictures[0], scale)
    shares = sorted(found.share_by_class().items(), key=lambda item: -item[1])
    path = Path(out) if out else run.path / "figures" / f"dense-{Path(pictures[0]).stem}.png"
    maps = [(name, found.probabilities[found.classes.index(name)]) for name, share in shares if share > 0]
    title = f"{Path(pictures[0]).name} seen by {run.id}, a position every {found.stride_px[0]} pixels"
    draw_heat_map(pixels, maps, found.stride_px, found.window_px, title, path)
    label, probability, (row, column) = found.strongest()
    document = {
        "run": run.id,
        "picture": pictures[0],
        "picture_px": list(found.picture_px),
        "map": list(found.size),
        "stride_px": list(found.stride_px),
        "window_px": list(found.window_px),
        "num_views": 1,
        "share_by_class": found.share_by_class(),
        "strongest": {"label": label, "probability": probability, "row": row, "column": column},
        "path": str(path.resolve()),
    }
    if as_json:
        print_json(document)
        return
    height, width = found.size
    averaged = model.views.num_views
    print_lines(
        [
            f"Map         {height}×{width} positions, one every {_by(found.stride_px)} pixels, each for a window of "
            f"{_by(found.window_px)} of the picture's {_by(found.picture_px)} pixels",
            f"Strongest   {label}, {percent(probability)}, at row {row}, column {column} of the map, counted from 0",
            "Most likely " + ", ".join(f"{name} at {percent(share)} of the positions" for name, share in shares[:3]),
            *([f"Views       one of each window; without --dense, {averaged} are averaged"] if averaged > 1 else []),
            f"Heat map    {path}",
        ]
    )


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}×{pair[1]}"
