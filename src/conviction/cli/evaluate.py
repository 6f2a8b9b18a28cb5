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
    as_json: JsonOption = False,
) -> None:
    """Name what is in pictures. Those that cannot be read are named too, and the exit code is then 2."""
    from conviction import Run
    from conviction.core.errors import DataError

    opened = Run.open(run)
    model = opened.model(weights)
    found, faults = [], []
    for picture in pictures:
        try:
            found.append((picture, model.predict(picture)[0]))
        except DataError as error:
            faults.append({"picture": picture, "message": error.message})
    if not found:
        raise DataError("\n".join(fault["message"] for fault in faults))
    if as_json:
        predictions = [{"picture": picture, **asdict(prediction)} for picture, prediction in found]
        document: dict[str, Any] = {"run": opened.id, "weights": weights, "predictions": predictions}
        document["unreadable"] = faults
        if faults:
            document["error"] = {"kind": DataError.kind, "message": "\n".join(fault["message"] for fault in faults)}
        print_json(document)
    else:
        rows = [(picture, prediction.label, percent(prediction.probability)) for picture, prediction in found]
        print_table([Column("picture", "left"), Column("class", "left"), Column("probability")], rows)
        for fault in faults:
            print_aside(f"Error: {fault['message']}")
    if faults:
        raise typer.Exit(2)
