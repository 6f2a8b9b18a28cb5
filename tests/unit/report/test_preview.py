"""Originals beside their variants: all are there, in one scale, and say what they are."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conviction.core.errors import ConfigError
from conviction.report.figure import DPI
from conviction.report.preview import PreviewRow, draw_preview, fitting_variants

RED, BLUE = (230, 20, 20), (20, 20, 220)


def flat(colour: tuple[int, ...], *shape: int) -> np.ndarray:
    return np.broadcast_to(np.uint8(colour), (*shape, len(colour)))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def drawn_pixels(path: Path, figure: Figure) -> list[np.ndarray]:
    """What the sheet shows where its pictures are, without the frame around each."""
    with Image.open(path) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    found = []
    for axes in figure.axes:
        left, bottom, right, top = (round(side * DPI / figure.dpi) for side in axes.bbox.extents)
        found.append(pixels[len(pixels) - top + 1 : len(pixels) - bottom - 1, left + 1 : right - 1])
    return found


@pytest.mark.parametrize(
    ("original_px", "variant_px", "factors"),
    [
        ((32, 32), (32, 32), (4, 4)),
        ((28, 28), (24, 24), (4, 5)),
        ((8, 8), (8, 8), (16, 16)),
        ((224, 224), (224, 224), (1, 1)),
        ((256, 256), (64, 64), (1, 4)),
        ((48, 20), (20, 48), (2, 2)),
        ((150, 60), (40, 40), (1, 3)),
    ],
)
def test_every_pixel_is_drawn_as_it_is_or_enlarged_by_a_whole_factor(
    original_px: tuple[int, int],
    variant_px: tuple[int, int],
    factors: tuple[int, int],
    drawn: list[Figure],
    tmp_path: Path,
) -> None:
    row = PreviewRow("cat", noise(*original_px, 3), noise(3, *variant_px, 3))
    path = tmp_path / "preview.png"
    draw_preview([row, row], "title", path)
    pictures = [row.original, *row.variants] * 2
    scales = [factors[0], *[factors[1]] * 3] * 2
    for picture, factor, found in zip(pictures, scales, drawn_pixels(path, drawn[0]), strict=True):
        expected = picture.repeat(factor, axis=0).repeat(factor, axis=1)[1:-1, 1:-1]
        assert np.array_equal(found, expected)
    for (height, width), factor in zip((original_px, variant_px), factors, strict=True):
        scale = f", enlarged {factor} times" if factor > 1 else ""
        assert any(f"\n{height}×{width}{scale}" in f"{text.get_text()}\n" for text in drawn[0].texts)


@pytest.mark.parametrize(
    ("side_px", "num_variants", "drawn_px", "scale"),
    [(32, 30, 96, ", enlarged 3 times"), (28, 30, 84, ", enlarged 3 times"), (224, 30, 96, ", reduced")],
)
def test_many_variants_are_drawn_smaller(
    side_px: int, num_variants: int, drawn_px: int, scale: str, drawn: list[Figure], tmp_path: Path
) -> None:
    row = PreviewRow("cat", noise(side_px, side_px, 1), noise(num_variants, side_px, side_px, 1))
    draw_preview([row], "title", tmp_path / "preview.png")
    assert {round(axes.bbox.width * DPI / drawn[0].dpi) for axes in drawn[0].axes} == {drawn_px}
    assert any(text.get_text() == f"original\n{side_px}×{side_px}{scale}" for text in drawn[0].texts)


@pytest.mark.parametrize(
    ("longest_px", "expected"), [(8, 8), (32, 8), (128, 8), (224, 8), (256, 7), (300, 6), (512, 3), (4000, 3)]
)
def test_by_default_sheets_of_large_pictures_are_not_too_wide(longest_px: int, expected: int, tmp_path: Path) -> None:
    """(2400 − 80 − 20 − 14) // (300 + 8) is 7: an original and six variants."""
    num = fitting_variants(longest_px, ["cat"])
    assert num == expected
    row = PreviewRow("cat", noise(longest_px, 4, 1), noise(num, 4, longest_px, 1))
    draw_preview([row], "title", tmp_path / "preview.png")
    with Image.open(tmp_path / "preview.png") as picture:
        assert picture.width <= 2400


def test_every_picture_is_in_an_svg(tmp_path: Path) -> None:
    row = PreviewRow("cat", flat(RED, 16, 16), flat(BLUE, 3, 8, 8))
    draw_preview([row, row], "title", tmp_path / "preview.svg")
    found = ElementTree.parse(tmp_path / "preview.svg")
    assert len(list(found.iter("{http://www.w3.org/2000/svg}image"))) == 8


@pytest.mark.parametrize("label", ["1", "a class with a rather long name"])
@pytest.mark.parametrize("num_variants", [1, 8, 30])
@pytest.mark.parametrize(("original_px", "variant_px"), [(32, 24), (256, 64), (8, 8)])
def test_heads_stand_clear_of_each_other(
    original_px: int, variant_px: int, num_variants: int, label: str, drawn: list[Figure], tmp_path: Path
) -> None:
    original, variants = noise(original_px, original_px, 1), noise(num_variants, variant_px, variant_px, 1)
    draw_preview([PreviewRow(label, original, variants)], "title", tmp_path / "preview.svg")
    first, second = (text.get_window_extent() for text in drawn[0].texts[:2])
    assert 0 < first.x0 < first.x1 < second.x0 < second.x1 < drawn[0].bbox.x1


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
    """A sheet of one variant has room for 48 letters."""
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
        "a_single_entry_without_any_comma that is longer",
        "than a line by itself",
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
