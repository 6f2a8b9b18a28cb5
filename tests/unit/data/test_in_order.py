from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from conviction.data.in_order import in_order


def test_results_come_in_the_order_of_what_was_given() -> None:
    def slow_first(number: int) -> int:
        time.sleep(0.002 * (number % 3 == 0))
        return 10 * number

    assert list(in_order(slow_first, range(50))) == [10 * number for number in range(50)]


def test_few_are_taken_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conviction.data.in_order.num_cores", lambda: 2)
    taken = []

    def given() -> Iterator[int]:
        for number in range(1000):
            taken.append(number)
            yield number

    results = in_order(lambda number: number, given())
    assert next(results) == 0
    assert len(taken) == 9
    results.close()  # type: ignore[attr-defined]


def test_work_is_done_in_threads() -> None:
    assert threading.get_ident() not in set(in_order(lambda _: threading.get_ident(), range(4)))


def test_a_fault_reaches_the_caller() -> None:
    def fail(number: int) -> int:
        raise ValueError(f"planted {number}")

    with pytest.raises(ValueError, match="planted 0"):
        list(in_order(fail, range(3)))
