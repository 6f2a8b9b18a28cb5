"""Work on all cores whose results come in the order of what was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from conviction.core.device import num_cores

_AHEAD_PER_CORE = 4
GivenT = TypeVar("GivenT")
DoneT = TypeVar("DoneT")


def in_order(work: Callable[[GivenT], DoneT], given: Iterable[GivenT]) -> Iterator[DoneT]:
    """What `work` makes of each, in threads.

    Few are under way at a time, as a photograph may take 150 MB.
    """
    under_way: deque[Future[DoneT]] = deque()
    with ThreadPoolExecutor(num_cores()) as workers:
        for one in given:
            under_way.append(workers.submit(work, one))
            if len(under_way) > _AHEAD_PER_CORE * num_cores():
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
