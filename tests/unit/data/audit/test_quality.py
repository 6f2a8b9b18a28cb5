from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from conviction.data.audit.quality import MEASURES, Judgement, judge, measured


def of(levels: object) -> dict[str, float]:
    found = measured(Image.fromarray(np.array(levels, np.uint8)))
    return dict(zip(MEASURES, found.tolist(), strict=True))


class TestMeasured:
    def test_by_hand(self) -> None:
        # 10, nineteen 20s, 100: of 21 pixels, 5 % are 1.05 and 95 % are 19.95, so that both fall among the 20s.
        found = of([[10] + [20] * 19 + [100]])
        assert (found["lowest"], found["highest"]) == (10, 100)
        assert (found["level_5"], found["level_95"]) == (20, 20)
        mean = (10 + 19 * 20 + 100) / 21
        assert found["deviation"] == pytest.approx(
            (((10 - mean) ** 2 + 19 * (20 - mean) ** 2 + (100 - mean) ** 2) / 21) ** 0.5, rel=1e-5
        )

    def test_detail_by_hand(self) -> None:
        # Two inner pixels: 4·10 - 0 = 40 and 4·0 - 10 = -10: mean 15, deviation 25.
        assert of([[0] * 4, [0, 10, 0, 0], [0] * 4])["detail"] == 25

    @pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 2)])
    def test_no_detail_without_inner_pixels(self, shape: tuple[int, int]) -> None:
        assert of(np.arange(np.prod(shape)).reshape(shape))["detail"] == 0

    def test_large_pictures_are_judged_smaller(self) -> None:
        checkered = np.indices((1024, 1024)).sum(axis=0) % 2 * 255
        assert of(checkered)["detail"] < 10 < of(checkered[:256, :256])["detail"]


def judged(pictures: list[np.ndarray], sizes: list[tuple[int, int]] | None = None, num_test: int = 0) -> Judgement:
    """The judgement on pictures, of which the last `num_test` are test pictures."""
    measures = np.stack([measured(Image.fromarray(picture)) for picture in pictures])
    sizes_px = np.array(sizes or [picture.shape for picture in pictures])
    rows = np.arange(len(pictures))
    return judge(measures, sizes_px, rows[: len(rows) - num_test], rows)


def ordinary(number: int) -> list[np.ndarray]:
    return [np.random.default_rng(seed).integers(0, 256, (16, 16)).astype(np.uint8) for seed in range(number)]


def blurred(picture: np.ndarray) -> np.ndarray:
    small = Image.fromarray(picture).resize((3, 3), Image.Resampling.BOX)
    wide = np.asarray(small.resize(picture.shape[::-1], Image.Resampling.BICUBIC), np.float64)
    return np.clip(128 + 4 * (wide - 128), 0, 255).astype(np.uint8)


def test_ordinary_pictures_are_not_odd() -> None:
    found = judged(ordinary(100))
    assert not any(found.reasons.values())
    assert found.by_nature == {}


def test_each_kind() -> None:
    faults = [
        np.full((16, 16), 77, np.uint8),
        ordinary(1)[0] // 11,
        255 - ordinary(1)[0] // 20,
        blurred(ordinary(1)[0]),
        ordinary(1)[0][:8],
    ]
    found = judged(ordinary(200) + faults)
    assert {kind: sorted(rows) for kind, rows in found.reasons.items()} == {
        "empty": [200],
        "dark": [201],
        "bright": [202],
        "blurred": [203],
        "odd_size": [204],
    }
    assert found.reasons["empty"][200] == "is of one colour alone (grey level 77 of 255)"
    assert found.reasons["dark"][201].startswith("is very dark: 95 % of its pixels are at 2")
    assert found.reasons["odd_size"][204] == "is stored as 8×16 pixels, nearly all others as 16×16"


def test_of_test_pictures_one_colour_alone_is_told() -> None:
    faults = [np.full((16, 16), 77, np.uint8), ordinary(1)[0] // 11, blurred(ordinary(1)[0]), ordinary(1)[0][:8]]
    found = judged(ordinary(200) + faults, num_test=4)
    assert {kind: sorted(rows) for kind, rows in found.reasons.items() if rows} == {"empty": [200]}


def test_test_pictures_do_not_move_the_thresholds() -> None:
    pictures = [*ordinary(40), blurred(ordinary(1)[0])]
    assert judged(pictures) == judged(pictures + [blurred(one) for one in ordinary(60)], num_test=60)
    assert sorted(judged(pictures).reasons["blurred"]) == [40]


def test_what_is_common_describes_the_set() -> None:
    dark = [picture // 11 for picture in ordinary(30)]
    found = judged(ordinary(170) + dark)
    assert found.by_nature["dark"] == 30
    assert "dark" not in found.reasons
    # One in twenty is the most that is listed.
    found = judged(ordinary(190) + dark[:10])
    assert sorted(found.reasons["dark"]) == list(range(190, 200))


def test_empty_pictures_are_listed_however_many() -> None:
    found = judged([np.full((16, 16), 7, np.uint8)] * 30)
    assert len(found.reasons["empty"]) == 30
    assert found.reasons["dark"] == {}


def test_sizes_that_vary_are_judged_by_area_and_proportions() -> None:
    # The median area is that of 100×100; 4.4 times as much and 2.2 times as long are odd, 2 and 1.5 times are not.
    usual = [(90, 90), (100, 100), (110, 110)] * 20
    sizes = [*usual, (210, 210), (100, 220), (140, 140), (120, 80)]
    found = judged(ordinary(len(sizes)), sizes)
    assert sorted(found.reasons["odd_size"]) == [60, 61]
    assert found.reasons["odd_size"][60] == "is stored as 210×210 pixels; the usual area is that of 100×100"
