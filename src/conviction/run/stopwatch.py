"""How long a piece of work takes, after it has been done often enough to be at its usual speed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

_LEAST_REPETITIONS, _WARMUP_CALLS = 3, 2
# The clock and, on a GPU, waiting for it take microseconds: shorter work is timed several times at once.
_SHORTEST_S = 0.005


def time_repeatedly(
    work: Callable[[], object],
    budget_s: float,
    wait: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Seconds that the work takes, once for each repetition, after a warm-up; at least three, then until `budget_s`.

    `wait` returns when a device has done all that it was given.
    """
    once_s = 0.0
    for _ in range(_WARMUP_CALLS):
        began = clock()
        work()
        wait()
        once_s = clock() - began
    at_once = max(1, math.ceil(_SHORTEST_S / once_s)) if once_s > 0 else 1
    found: list[float] = []
    spent_s = 0.0
    while len(found) < _LEAST_REPETITIONS or spent_s < budget_s:
        began = clock()
        for _ in range(at_once):
            work()
        wait()
        took_s = clock() - began
        spent_s += took_s
        found.append(took_s / at_once)
    return found
