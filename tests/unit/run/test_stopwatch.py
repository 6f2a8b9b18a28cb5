"""Times of a clock that only the work moves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from conviction.run.stopwatch import time_repeatedly


class Bench:
    """Work whose durations are written down beforehand; the last one goes on for ever."""

    def __init__(self, *durations_s: float) -> None:
        self.now_s, self.calls, self.waits = 0.0, 0, 0
        self._durations: Iterator[float] = iter(durations_s)
        self._last = durations_s[-1]

    def work(self) -> None:
        self.calls += 1
        self.now_s += next(self._durations, self._last)

    def wait(self) -> None:
        self.waits += 1

    def time(self, budget_s: float) -> list[float]:
        return time_repeatedly(self.work, budget_s, self.wait, lambda: self.now_s)


def test_the_first_two_calls_warm_up() -> None:
    assert Bench(90.0, 50.0, 1.0, 2.0, 4.0).time(0.0) == [1.0, 2.0, 4.0]


def test_it_goes_on_until_the_time_is_spent() -> None:
    bench = Bench(0.5)
    assert bench.time(3.9) == [0.5] * 8
    assert bench.waits == bench.calls == 10


def test_short_work_is_timed_several_times_at_once() -> None:
    # 5 ms hold 20 calls of a quarter of a millisecond.
    bench = Bench(0.00025)
    found = bench.time(0.0)
    assert found == [pytest.approx(0.00025)] * 3
    assert bench.calls == 2 + 3 * 20
    # Waiting for the device once for each call would be timed with it.
    assert bench.waits == 2 + 3


def test_a_clock_that_stands_still_ends_too() -> None:
    assert Bench(0.0).time(0.0) == [0.0, 0.0, 0.0]
