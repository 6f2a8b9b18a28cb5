"""Run folders that are missing, damaged, or in a state that forbids the request."""

from __future__ import annotations

import json
from pathlib import Path

from bad_input.case import Arguments, case, command_case, two_classes
from pictures import write_picture


def trained(folder: Path, epochs: int = 1, **settings: object) -> Path:
    """A finished run on a few digits-sized pictures, made in this process."""
    from conviction import train

    return train("digits", {"fit.epochs": epochs, "network": "perceptron", **settings}).path


command_case("Run", "no run at all", "run", ("There is no run", "conviction train digits"), "evaluate")


@case("Run", "run that is nearly right", "run", "No run named", "conviction runs")
def _unknown_run(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "2020-01-01-digits"]


@case("Run", "part of a name that means several runs", "run", "means 2 runs")
def _ambiguous(folder: Path) -> Arguments:
    prefix = trained(folder).name[:10]
    trained(folder)
    return ["evaluate", prefix]


def crashed(folder: Path) -> Path:
    path = trained(folder)
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "status": "running"}))
    return path


@case("Run", "damaged checkpoint", "run", "checkpoint.safetensors is damaged")
def _damaged_checkpoint(folder: Path) -> Arguments:
    path = crashed(folder)
    content = bytearray((path / "checkpoint.safetensors").read_bytes())
    content[-1000] ^= 1
    (path / "checkpoint.safetensors").write_bytes(content)
    return ["resume", path]


@case("Run", "resuming what diverged", "run", "diverged, and going on would repeat it", "optimizer.learning_rate=")
def _diverged(folder: Path) -> Arguments:
    path = trained(folder)
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "status": "diverged", "message": "The loss became nan."}))
    return ["resume", path]


@case("Run", "truncated weights", "run", "best.safetensors is damaged")
def _truncated_weights(folder: Path) -> Arguments:
    path = trained(folder)
    content = (path / "best.safetensors").read_bytes()
    (path / "best.safetensors").write_bytes(content[: len(content) // 2])
    return ["evaluate", path]


@case("Run", "weights that are missing", "run", "best.safetensors is missing")
def _missing_weights(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "best.safetensors").unlink()
    return ["evaluate", path]


@case("Run", "damaged run.json", "run", "run.json is damaged")
def _damaged_summary(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "run.json").write_text('{"run": ')
    return ["runs", "show", path]


@case("Run", "damaged model.json", "run", "model.json is damaged", "preprocessing.color", "'rgb' or 'grey'")
def _damaged_model(folder: Path) -> Arguments:
    path = trained(folder)
    (path / "model.json").write_text((path / "model.json").read_text().replace('"grey"', '"gray"'))
    write_picture(folder / "1.png")
    return ["predict", path, folder / "1.png"]


@case("Run", "preprocessing that is missing", "run", "preprocessing.safetensors is missing")
def _missing_preprocessing(folder: Path) -> Arguments:
    path = trained(folder, standardize="zca")
    (path / "preprocessing.safetensors").unlink()
    write_picture(folder / "1.png")
    return ["predict", path, folder / "1.png"]


@case(
    "Run", "preprocessing of another run", "run", "does not belong to model.json", "not those that the model was saved"
)
def _foreign_preprocessing(folder: Path) -> Arguments:
    path, other = trained(folder, standardize="zca"), trained(folder, standardize="zca", seed=1)
    (path / "preprocessing.safetensors").write_bytes((other / "preprocessing.safetensors").read_bytes())
    write_picture(folder / "1.png")
    return ["predict", path, folder / "1.png"]


@case("Run", "run of a newer version", "newer_format", "format 99", "update Conviction")
def _newer_run(folder: Path) -> Arguments:
    path = trained(folder)
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "format": 99}))
    return ["runs", "show", path]


@case("Run", "pictures that changed since the run began", "run", "changed since", "would mix training with test")
def _changed_pictures(folder: Path) -> Arguments:
    from conviction import train

    two_classes(folder)
    path = train("simplecnn-artists", {"data.path": str(folder / "photos"), "fit.epochs": 1}).path
    summary = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    write_picture(folder / "photos" / "cat" / "new.png", (60, 60))
    return ["resume", path]


@case("Run", "split file that changed since the run was trained", "run", "The division of photos", "split.csv holds")
def _changed_division(folder: Path) -> Arguments:
    from conviction import train

    two_classes(folder)
    first = train("simplecnn-artists", {"data.path": str(folder / "photos"), "fit.epochs": 1})
    division = folder / "division.csv"
    division.write_text((first.path / "split.csv").read_text())
    run = train(
        "simplecnn-artists", {"data.path": str(folder / "photos"), "fit.epochs": 1, "split.file": str(division)}
    )
    lines = division.read_text().splitlines()
    swapped = [lines[0], *(line.replace(",test", ",?").replace(",validation", ",test") for line in lines[1:])]
    division.write_text("\n".join(swapped).replace(",?", ",validation") + "\n")
    return ["evaluate", run.path]


@case("Run", "unknown split", "unknown_name", "No split named 'tset'", "Did you mean 'test'?")
def _unknown_split(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "--split", "tset"]


@case("Run", "unknown weights", "unknown_name", "No weights named 'bset'", "Did you mean 'best'?")
def _unknown_weights(folder: Path) -> Arguments:
    trained(folder)
    return ["evaluate", "--weights", "bset"]


@case("Run", "picture to predict that is not there", "data", "Cannot read", "nowhere.png")
def _missing_picture(folder: Path) -> Arguments:
    trained(folder)
    return ["predict", "latest", "nowhere.png"]


@case("Run", "comparison of one run", "config", "two runs at least")
def _compare_one(folder: Path) -> Arguments:
    return ["runs", "compare", trained(folder)]


@case("Run", "deletion that nobody can confirm", "config", "--yes")
def _delete_unasked(folder: Path) -> Arguments:
    return ["runs", "delete", trained(folder)]
