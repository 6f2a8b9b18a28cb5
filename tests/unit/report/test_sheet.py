"""The sheet of example pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conviction.core.errors import ConfigError
from conviction.report.sheet import draw_sheet

COLOURS = {"red": (230, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


def flat(colour: tuple[int, ...], count: int, height: int = 8, width: int = 8) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (count, height, width, len(colour)))


def colours_in(path: Path) -> dict[tuple[int, int, int], int]:
    with Image.open(path) as picture:
        return {colour: count for count, colour in picture.convert("RGB").getcolors(10**6)}


def test_every_class_is_seen_as_often_as_it_has_pictures(tmp_path: Path) -> None:
    numbers = {"red": 4, "green": 2, "blue": 1}
    examples = {name: flat(COLOURS[name], number) for name, number in numbers.items()}
    draw_sheet(examples, numbers, "three", tmp_path / "sheet.png")
    found = colours_in(tmp_path / "sheet.png")
    one = found[COLOURS["blue"]]
    assert one > 5000
    assert found[COLOURS["green"]] == pytest.approx(2 * one, rel=0.03)
    assert found[COLOURS["red"]] == pytest.approx(4 * one, rel=0.03)


def test_classes_and_counts_stand_beside_their_pictures(tmp_path: Path) -> None:
    examples = {"cat $5 and $6": flat((9, 9, 9), 2), "dog": flat((99, 99, 99), 2)}
    counts = {"cat $5 and $6": 4321, "dog": 7}
    draw_sheet(examples, counts, "cats & dogs", tmp_path / "sheet.svg")
    drawn = (tmp_path / "sheet.svg").read_text()
    # matplotlib draws letters as outlines and writes the text beside them.
    for text in ("cat $5 and $6", "4,321", "<!-- dog -->", "<!-- 7 -->", "cats &amp; dogs"):
        assert text in drawn


def test_grey_pictures_are_grey_and_not_stretched_to_black_and_white(tmp_path: Path) -> None:
    draw_sheet({"a": flat((120,), 1), "b": flat((140,), 1)}, {"a": 1, "b": 1}, "grey", tmp_path / "sheet.png")
    found = colours_in(tmp_path / "sheet.png")
    assert found[120, 120, 120] > 5000
    assert found[140, 140, 140] > 5000


@pytest.mark.slow
@pytest.mark.parametrize("num_classes", [2, 17, 100])
@pytest.mark.parametrize("size_px", [(8, 8), (4, 60), (60, 4)])
def test_many_classes_and_odd_shapes(num_classes: int, size_px: tuple[int, int], tmp_path: Path) -> None:
    examples = {f"a class with a very long name {n}": flat((200, 10, 10), 3, *size_px) for n in range(num_classes)}
    draw_sheet(examples, dict.fromkeys(examples, 3), "many", tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert max(picture.size) < 4000
    assert colours_in(tmp_path / "sheet.png")[200, 10, 10] > 300 * min(num_classes, 60)


def test_a_long_title_has_room_over_few_pictures(tmp_path: Path) -> None:
    title = "a-long-name-of-an-archive.tar.xz: training split, 2 pictures of 2 classes, 8×8 pixels"
    draw_sheet({"a": flat((9, 9, 9), 1), "b": flat((9, 9, 9), 1)}, {"a": 1, "b": 1}, title, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        ink = np.asarray(picture.convert("L")) < 128
    columns = np.flatnonzero(ink[:40].any(axis=0))
    assert columns[0] > 10
    assert columns[-1] < ink.shape[1] - 10


def test_a_class_without_training_pictures(tmp_path: Path) -> None:
    examples = {"cat": flat((200, 10, 10), 2), "ghost": flat((0, 0, 0), 0)}
    draw_sheet(examples, {"cat": 2, "ghost": 0}, "one is empty", tmp_path / "sheet.svg")
    assert "<!-- ghost -->" in (tmp_path / "sheet.svg").read_text()


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"written as \.png or \.svg"):
        draw_sheet({"a": flat((1, 2, 3), 1)}, {"a": 1}, "", tmp_path / "sheet.pdf")


@pytest.mark.parametrize("num_classes", [1, 6, 16, 50, 60])
def test_the_title_stands_just_above_the_pictures(num_classes: int, drawn: list[Figure], tmp_path: Path) -> None:
    examples = {str(number): flat((9, 9, 9), 1) for number in range(num_classes)}
    draw_sheet(examples, dict.fromkeys(examples, 1), "first line\nand a second", tmp_path / "sheet.svg")
    (figure,) = drawn
    assert figure._suptitle is not None
    title = figure._suptitle.get_window_extent()
    highest = max(axes.bbox.y1 for axes in figure.axes)
    assert title.y1 < figure.bbox.y1
    assert highest < title.y0 < highest + 0.26 * figure.dpi
