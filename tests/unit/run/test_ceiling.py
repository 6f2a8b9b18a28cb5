from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from conviction.run import ceiling
from conviction.run.ceiling import convolution_ceiling, matrix_ceiling, measure_ceilings, measure_copying, products_in

CPU = torch.device("cpu")


@pytest.fixture
def flop_in_two_seconds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Each piece of work is done once and said to take two seconds; torch counts its operations."""
    counted: list[int] = []

    def once(work: Callable[[], object], budget_s: float, wait: Callable[[], object]) -> list[float]:
        with FlopCounterMode(display=False) as counter:
            work()
        counted.append(counter.get_total_flops())
        return [2.0]

    monkeypatch.setattr(ceiling, "time_repeatedly", once)
    monkeypatch.setattr(ceiling, "_SIDES", {"cpu": (64, 128)})
    monkeypatch.setattr(ceiling, "_BATCHES", {"cpu": 2})
    monkeypatch.setattr(ceiling, "_COPIED_BYTES", {"cpu": 1000})
    return counted


def test_a_matrix_product(flop_in_two_seconds: list[int]) -> None:
    found = matrix_ceiling(CPU, "float32", 100.0)
    assert flop_in_two_seconds == [2 * 64**3, 2 * 128**3]
    assert found.flops.median == 128**3
    assert (found.size, found.layout, found.emulated) == ("128×128", "", False)


def test_a_product_that_would_take_too_long_is_left_out(flop_in_two_seconds: list[int]) -> None:
    # The larger one would take 16 s, and five times that is more than 79.
    assert matrix_ceiling(CPU, "float32", 79.0).size == "64×64"


@pytest.mark.parametrize("layout", ["NCHW", "channels_last"])
def test_a_convolution(layout: ceiling.Layout, flop_in_two_seconds: list[int]) -> None:
    found = convolution_ceiling(CPU, "bfloat16", layout, 1.0)
    assert flop_in_two_seconds == [2 * 2 * 256 * 16 * 16 * 256 * 9]
    assert found.flops.median == 2 * 256 * 16 * 16 * 256 * 9
    assert (found.layout, found.size) == (layout, "2×256×16×16")


def test_copying_counts_both_ways(flop_in_two_seconds: list[int]) -> None:
    assert measure_copying(CPU, 1.0).median == 1000


def test_every_precision_and_layout_is_measured(flop_in_two_seconds: list[int]) -> None:
    found = {(one.operation, one.precision, one.layout) for one in measure_ceilings(CPU, 1.0)}
    assert found == {
        (operation, precision, layout)
        for operation, layouts in (("matrix product", [""]), ("convolution", ["NCHW", "channels_last"]))
        for precision in ("float32", "bfloat16")
        for layout in layouts
    }


@pytest.mark.parametrize(("precision", "expected"), [("tf32", "tf32"), ("float32", "ieee"), ("bfloat16", "ieee")])
def test_the_rounding_of_products_is_put_back(precision: str, expected: str) -> None:
    places = (torch.backends.cuda.matmul, torch.backends.cudnn.conv)
    before = [place.fp32_precision for place in places]
    found: list[str] = []

    def fail() -> None:
        with products_in(precision):
            found.extend(place.fp32_precision for place in places)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert found == [expected, expected]
    assert [place.fp32_precision for place in places] == before
