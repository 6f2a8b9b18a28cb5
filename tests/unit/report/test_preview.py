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


def test_long_titles_are_broken_into_lines(tmp_path: Path) -> None:
    title = "photos: 1 picture\n" + "random_crop (padding_px 4, outside black), " * 5
    draw_preview([PreviewRow("cat", flat(RED, 8, 8), flat(BLUE, 1, 8, 8))], title, tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.width < 600
        assert picture.height > 250


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
