"""What a case is, and the beginnings that many cases share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pictures import write_class_folders

Arguments = list[object]


@dataclass(frozen=True)
class Case:
    """`prepare` makes the fault in a folder and returns the command; the message must hold each of `says`."""

    family: str
    title: str
    kind: str
    says: tuple[str, ...]
    prepare: Callable[[Path], Arguments]


CASES: list[Case] = []


def case(
    family: str, title: str, kind: str, *says: str
) -> Callable[[Callable[[Path], Arguments]], Callable[[Path], Arguments]]:
    """Decorator that enters a case."""

    def enter(prepare: Callable[[Path], Arguments]) -> Callable[[Path], Arguments]:
        CASES.append(Case(family, title, kind, says, prepare))
        return prepare

    return enter


def command_case(family: str, title: str, kind: str, says: tuple[str, ...], *arguments: object) -> None:
    """A case that needs no preparation."""
    CASES.append(Case(family, title, kind, says, lambda folder: list(arguments)))


def digits_with(*assignments: str) -> Arguments:
    arguments: Arguments = ["train", "digits"]
    for assignment in assignments:
        arguments += ["--set", assignment]
    return arguments


def recipe_file(folder: Path, text: str) -> Arguments:
    path = folder / "mine.yaml"
    path.write_text(text)
    return ["train", path]


def photos(folder: Path, *assignments: str) -> Arguments:
    """Train on `folder/photos`."""
    arguments: Arguments = ["train", "simplecnn-artists", "--set", f"data.path={folder / 'photos'}"]
    for assignment in assignments:
        arguments += ["--set", assignment]
    return arguments


def two_classes(folder: Path) -> Path:
    return write_class_folders(folder / "photos", {"cat": 12, "dog": 12}, (60, 60))
