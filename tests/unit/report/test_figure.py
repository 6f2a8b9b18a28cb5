from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conviction.core.records import EpochRecord, Score
from conviction.report.figure import draw_curves, draw_filters, draw_learning_rate

TITLE = "20260101-120000-lenet5-$x_1$ · seed 0"
GAP = (204, 224, 245)


def history(
    num_epochs: int, fixed: bool = False, loss: Callable[[int], float] = lambda e: 2.3 / (1 + e)
) -> list[EpochRecord]:
    found = [EpochRecord(0, 0.1, Score(0.1, loss(0), 500), train_fixed=Score(0.1, 2.3, 4500) if fixed else None)]
    for epoch in range(1, num_epochs + 1):
        accuracy = 1 - 0.9 / (1 + epoch)
        train = Score(accuracy, 2 / (1 + epoch), 4500)
        found.append(
            EpochRecord(epoch, 0.1 * 0.9**epoch, Score(accuracy, loss(epoch), 500), train, train if fixed else None)
        )
    return found


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


class TestCurves:
    @pytest.mark.parametrize("fixed", [False, True])
    @pytest.mark.parametrize("num_epochs", [0, 1, 5, 60])
    def test_any_length_gives_a_picture(self, num_epochs: int, fixed: bool, tmp_path: Path) -> None:
        draw_curves(history(num_epochs, fixed), 0, TITLE, tmp_path / "curves.png")
        with Image.open(tmp_path / "curves.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (1200, 504))
        assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["curves.png"]

    def test_points_are_the_records(self, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(2, fixed=True), 2, TITLE, tmp_path / "curves.png")
        loss_axes, accuracy_axes = drawn[0].axes
        lines = [[line.get_xydata().tolist() for line in axes.lines] for axes in (loss_axes, accuracy_axes)]
        assert lines[0][0] == [[1, 1], [2, 2 / 3]]
        assert lines[0][1] == [[0, 2.3], [1, 1], [2, 2 / 3]]
        assert lines[0][2] == [[0, 2.3], [1, 1.15], [2, 2.3 / 3]]
        assert lines[1][2] == [pytest.approx(point) for point in ([0, 10], [1, 55], [2, 70])]
        assert {x for x, _ in lines[0][3]} == {2}

    def test_every_curve_says_its_split_and_its_count(self, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(3, fixed=True), 2, TITLE, tmp_path / "curves.png")
        assert legend(drawn[0]) == [
            "training, as it ran (n = 4,500)",
            "training, fixed weights (n = 4,500)",
            "validation (n = 500)",
            "best epoch: 2",
        ]
        draw_curves(history(0), 0, TITLE, tmp_path / "curves.png")
        assert legend(drawn[1]) == ["validation (n = 500)", "best epoch: 0"]

    def test_axes_have_names_and_units_and_begin_at_zero(self, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(3), 2, TITLE, tmp_path / "curves.png")
        assert [axes.get_ylabel() for axes in drawn[0].axes] == ["loss (nats per image)", "accuracy (%)"]
        assert [axes.get_xlabel() for axes in drawn[0].axes] == ["epoch (0: untrained)"] * 2
        assert [axes.get_ylim()[0] for axes in drawn[0].axes] == [0, 0]
        assert drawn[0].axes[1].get_ylim()[1] <= 101

    @pytest.mark.parametrize("num_epochs", [0, 1, 3, 60])
    def test_epochs_are_whole_numbers(self, num_epochs: int, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(num_epochs), 0, TITLE, tmp_path / "curves.png")
        for axes in drawn[0].axes:
            low, high = axes.get_xlim()
            assert all(tick == round(tick) for tick in axes.get_xticks() if low <= tick <= high)

    def test_a_leap_of_the_loss_leaves_the_rest_legible(self, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(4, loss=lambda epoch: 1e7 if epoch == 2 else 1.0), 1, TITLE, tmp_path / "curves.png")
        assert drawn[0].axes[0].get_yscale() == "log"
        assert "logarithmic" in drawn[0].axes[0].get_ylabel()
        draw_curves(history(4, loss=lambda epoch: 9.0 if epoch == 2 else 1.0), 1, TITLE, tmp_path / "curves.png")
        assert drawn[1].axes[0].get_yscale() == "linear"

    def test_a_loss_of_zero_and_an_accuracy_of_zero(self, tmp_path: Path) -> None:
        nothing = [EpochRecord(epoch, 0.0, Score(0.0, 0.0, 5), Score(0.0, 0.0, 5)) for epoch in range(3)]
        draw_curves(nothing, 0, TITLE, tmp_path / "curves.png")
        draw_learning_rate(nothing, TITLE, tmp_path / "learning_rate.png")
        assert (tmp_path / "curves.png").stat().st_size > 1000

    def test_a_name_is_no_formula(self, drawn: list[Figure], tmp_path: Path) -> None:
        draw_curves(history(1), 1, "$\\broken$", tmp_path / "curves.png")
        assert drawn[0].get_suptitle() == "$\\broken$"

    def test_the_same_records_give_the_same_bytes(self, tmp_path: Path) -> None:
        for name in ("first.png", "second.png"):
            draw_curves(history(3), 2, TITLE, tmp_path / name)
        assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


@pytest.mark.parametrize("num_epochs", [0, 1, 60])
def test_learning_rate(num_epochs: int, drawn: list[Figure], tmp_path: Path) -> None:
    draw_learning_rate(history(num_epochs), TITLE, tmp_path / "learning_rate.png")
    with Image.open(tmp_path / "learning_rate.png") as picture:
        assert picture.size == (660, 408)
    (line,) = drawn[0].axes[0].lines
    assert line.get_xydata().tolist() == [[0, 0.1], *[[e, 0.1 * 0.9**e] for e in range(1, num_epochs + 1)]]
    assert drawn[0].axes[0].get_ylim()[0] == 0


class TestFilters:
    @pytest.mark.parametrize("size_px", [1, 3, 28])
    @pytest.mark.parametrize("num_channels", [1, 3, 5])
    @pytest.mark.parametrize("num", [1, 6, 300])
    def test_any_number_gives_a_picture(self, num: int, num_channels: int, size_px: int, tmp_path: Path) -> None:
        before, after = np.random.default_rng(0).normal(size=(2, num, num_channels, size_px, size_px))
        draw_filters(before.astype(np.float32), after.astype(np.float32), TITLE, tmp_path / "filters.png")
        with Image.open(tmp_path / "filters.png") as picture:
            assert (picture.format, picture.size) == ("PNG", (1200, 648))

    def mosaics(self, drawn: list[Figure]) -> list[np.ndarray]:
        return [np.round(np.asarray(axes.images[0].get_array()) * 255) for axes in drawn[0].axes]

    def test_pixels_by_hand(self, drawn: list[Figure], tmp_path: Path) -> None:
        before = np.zeros((2, 3, 1, 2), np.float32)
        after = before.copy()
        after[0, :, 0, 0] = (2, 0, -2)
        after[1, :, 0, 1] = (0, 0.5, -1)
        draw_filters(before, after, TITLE, tmp_path / "filters.png")
        first, second = self.mosaics(drawn)
        # Two columns of two pixels, with a gap around each filter; a filter of zeros is grey throughout.
        assert first.shape == second.shape == (3, 7, 3)
        assert first[1].tolist() == [[*GAP], [128] * 3, [128] * 3, [*GAP], [128] * 3, [128] * 3, [*GAP]]
        assert second[1, 1].tolist() == [255, 128, 0]
        assert second[1, 5].tolist() == [128, 191, 0]
        assert (second[[0, 2]] == GAP).all()

    def test_other_numbers_of_channels_show_the_first(self, drawn: list[Figure], tmp_path: Path) -> None:
        filters = np.zeros((1, 2, 1, 1), np.float32)
        filters[0, :, 0, 0] = (-3, 7)
        draw_filters(filters, filters, TITLE, tmp_path / "filters.png")
        assert self.mosaics(drawn)[0][1, 1].tolist() == [0, 0, 0]
        assert "the first channel alone" in drawn[0].get_suptitle()

    def test_filters_stand_in_rows(self, drawn: list[Figure], tmp_path: Path) -> None:
        signs = np.array([1, -1, 1, -1, -1], np.float32).reshape(5, 1, 1, 1)
        draw_filters(signs, signs, TITLE, tmp_path / "filters.png")
        mosaic = self.mosaics(drawn)[0]
        assert mosaic.shape == (5, 7, 3)
        assert mosaic[1::2, 1::2, 0].tolist() == [[255, 0, 255], [0, 0, GAP[0]]]

    def test_what_is_left_out_is_said(self, drawn: list[Figure], tmp_path: Path) -> None:
        filters = np.ones((300, 1, 2, 2), np.float32)
        draw_filters(filters, filters, TITLE, tmp_path / "filters.png")
        assert self.mosaics(drawn)[0].shape == (16 * 3 + 1, 16 * 3 + 1, 3)
        assert "300 filters of 2×2×1, 256 of them shown; each on its own scale" in drawn[0].get_suptitle()


@pytest.mark.parametrize("scale", [1e-40, 1e-20, 1e30])
def test_tiny_and_huge_weights_stay_in_range(scale: float, drawn: list[Figure], tmp_path: Path) -> None:
    filters = (np.linspace(-1, 1, 9) * scale).astype(np.float32).reshape(1, 1, 3, 3)
    draw_filters(filters, filters, TITLE, tmp_path / "filters.png")
    shown = np.asarray(drawn[0].axes[0].images[0].get_array())[1:4, 1:4, 0]
    assert np.isfinite(shown).all()
    np.testing.assert_allclose(shown.flatten(), np.linspace(0, 1, 9), atol=1e-3)


def test_reports_open_without_torch() -> None:
    check = (
        "import sys, conviction.report.figure; print([name for name in ('torch', 'matplotlib') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
