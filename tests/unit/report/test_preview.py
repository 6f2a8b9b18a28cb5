"""Originals beside their variants: all are there, in one scale, and say what they are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conviction.core.errors import ConfigError
from conviction.report.preview import PreviewRow, draw_preview

RED, BLUE = (230, 20, 20), (20, 20, 220)


def flat(colour: tuple[int, ...], *shape: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (*shape, len(colour)))


def count_of(colour: tuple[int, int, int], path: Path) -> int:
    with Image.open(path) as picture:
        return int((np.asarray(picture.convert("RGB")) == colour).all(axis=2).sum())


def test_variants_stand_beside_the_original_in_its_scale(tmp_path: Path) -> None:
    """Of the original's four pixels a variant has one: a quarter of its area, three times."""
    row = PreviewRow("cat", flat(RED, 16, 16), flat(BLUE, 3, 8, 8))
    draw_preview([row, row], "title", tmp_path / "preview.png")
    original, variants = count_of(RED, tmp_path / "preview.png"), count_of(BLUE, tmp_path / "preview.png")
    assert original > 10_000
    # Frames hide some pixels of the smaller ones.
    assert variants == pytest.approx(original * 3 / 4, rel=0.06)
    draw_preview([row, row], "title", tmp_path / "preview.svg")
    drawn = ElementTree.parse(tmp_path / "preview.svg")
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}image"))) == 8


def test_sizes_stand_above_where_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "preview.svg"
    draw_preview([PreviewRow("cat", flat(RED, 16, 12), flat(BLUE, 1, 8, 8))], "title", path)
    assert "original, 16×12" in path.read_text()
    assert "augmented, 8×8, one epoch each" in path.read_text()
    draw_preview([PreviewRow("cat", flat(RED, 16, 12), flat(BLUE, 1, 16, 12))], "title", path)
    assert "16×12" not in path.read_text()


def test_labels_and_shares_are_said(tmp_path: Path) -> None:
    shares = ({"cat": 0.25, "dog $5": 0.75}, {"cat": 0.998, "dog $5": 0.002})
    row = PreviewRow("cat", flat((9,), 8, 8), flat((99,), 2, 8, 8), shares)
    draw_preview([row], "cats & dogs", tmp_path / "preview.svg")
    text = (tmp_path / "preview.svg").read_text()
    for part in ("cats &amp; dogs", "dog $5: 75 %", "cat: 25 %", "cat: 100 %", "original", "augmented, one epoch each"):
        assert part in text
    assert "dog $5: 0 %" not in text
    assert text.index("dog $5: 75 %") < text.index("cat: 25 %")


@pytest.mark.parametrize(
    ("shares", "lines"),
    [
        ({"cat": 1.0}, ["cat: 100 %"]),
        # Rounded each by itself, the three would make 99, and the next two 101.
        ({"cat": 1 / 3, "dog": 1 / 3, "ship": 1 / 3}, ["cat: 34 %", "dog: 33 %", "ship: 33 %"]),
        ({"cat": 0.625, "dog": 0.125, "ship": 0.25}, ["cat: 63 %", "ship: 25 %", "dog: 12 %"]),
        ({"dog": 0.002, "cat": 0.998}, ["cat: 100 %"]),
        ({"dog": 0.006, "cat": 0.994}, ["cat: 99 %", "dog: 1 %"]),
        ({"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.1}, ["a: 40 %", "b: 30 %", "c: 20 %", "d: 10 %"]),
        ({"e": 0.06, "a": 0.4, "b": 0.2, "c": 0.25, "d": 0.09}, ["a: 40 %", "c: 25 %", "b: 20 %", "others: 15 %"]),
    ],
)
def test_shares_add_up(shares: dict[str, float], lines: list[str], drawn: list[Figure], tmp_path: Path) -> None:
    row = PreviewRow("bird", flat(RED, 8, 8), flat(BLUE, 1, 8, 8), (shares,))
    draw_preview([row], "title", tmp_path / "preview.svg")
    (found,) = [text.get_text() for text in drawn[0].texts if "%" in text.get_text()]
    assert found.split("\n") == lines


def test_shares_of_many_classes_stand_clear_of_the_next_row(drawn: list[Figure], tmp_path: Path) -> None:
    shares = ({"cat": 0.4, "dog": 0.3, "ship": 0.2, "deer": 0.1}, {"cat": 1.0})
    draw_preview(
        [PreviewRow("bird", flat(RED, 8, 8), flat(BLUE, 2, 8, 8), shares)] * 2, "title", tmp_path / "preview.svg"
    )
    (figure,) = drawn
    lowest = min(text.get_window_extent().y0 for text in figure.texts[:-1] if "%" in text.get_text())
    assert lowest > 0
    first_row = [text for text in figure.texts if "%" in text.get_text()][:2]
    assert min(text.get_window_extent().y0 for text in first_row) > max(axes.bbox.y1 for axes in figure.axes[3:])


def test_long_titles_are_broken_between_settings(drawn: list[Figure], tmp_path: Path) -> None:
    """A sheet of one variant has room for 47 letters."""
    entries = [
        "random_crop (padding_px 4, outside reflect)",
        "gaussian_noise (p 1, deviation 0.05)",
        "invert (p 0.25), rotate (degrees 45, p 1, outside edge)",
        "a_single_entry_without_any_comma that is longer than a line by itself",
    ]
    title = "photos: 1 picture\n" + ", ".join(entries)
    draw_preview([PreviewRow("cat", flat(RED, 8, 8), flat(BLUE, 1, 8, 8))], title, tmp_path / "preview.svg")
    (figure,) = drawn
    assert figure._suptitle is not None
    assert figure._suptitle.get_text().split("\n") == [
        "photos: 1 picture",
        "random_crop (padding_px 4, outside reflect),",
        "gaussian_noise (p 1, deviation 0.05),",
        "invert (p 0.25), rotate (degrees 45, p 1,",
        "outside edge),",
        "a_single_entry_without_any_comma that is",
        "longer than a line by itself",
    ]
    extent = figure._suptitle.get_window_extent()
    assert 0 < extent.x0 < extent.x1 < figure.bbox.x1


@pytest.mark.parametrize("num_lines", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("num_rows", [1, 6, 20, 40])
def test_the_title_stands_just_above_heads_and_pictures(
    num_rows: int, num_lines: int, drawn: list[Figure], tmp_path: Path
) -> None:
    row = PreviewRow("cat", flat(RED, 8, 8), flat(BLUE, 2, 8, 8))
    draw_preview([row] * num_rows, "\n".join(["A title, of g lines"] * num_lines), tmp_path / "preview.svg")
    (figure,) = drawn
    assert figure._suptitle is not None
    title = figure._suptitle.get_window_extent()
    beside = [text for text in figure.texts if text is not figure._suptitle and text.get_text() != "cat"]
    heads = [text.get_window_extent() for text in beside]
    assert len(heads) == 2
    assert title.y1 < figure.bbox.y1
    highest = max(axes.bbox.y1 for axes in figure.axes)
    assert highest < min(head.y0 for head in heads)
    lowest = max(head.y1 for head in heads)
    # No head is overlapped, and no gap is wider than a line and a half.
    assert lowest < title.y0 < lowest + 0.26 * figure.dpi


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png or \.svg"):
        draw_preview([PreviewRow("cat", flat(RED, 8, 8), flat(BLUE, 1, 8, 8))], "title", tmp_path / "preview.gif")
