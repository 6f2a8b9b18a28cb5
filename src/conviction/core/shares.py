"""Work on many items, divided among threads each of which computes alone."""

from __future__ import annotations

import functools
import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

_LONGEST_START_S = 60


def in_shares(work: Callable[[slice], object], num_items: int, num_threads: int | None = None) -> None:
    """Let `work` do consecutive shares of so many items, one in each of torch's threads.

    Within it torch computes with one thread. Where torch itself divides a small operation, its threads wait for one
    another, hundreds of times in a batch. Inference mode and gradients are the caller's.
    """
    import torch

    num_shares = min(num_items, num_threads or torch.get_num_threads())
    if num_shares <= 1:
        work(slice(0, num_items))
        return
    is_inference, with_gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def alone(share: slice) -> None:
        # Each thread has these modes of its own.
        with torch.inference_mode(is_inference), torch.set_grad_enabled(with_gradients):
            work(share)

    bounds = [num_items * number // num_shares for number in range(num_shares + 1)]
    shares = [slice(*pair) for pair in itertools.pairwise(bounds)]
    list(_workers(num_shares).map(alone, shares))


@functools.lru_cache(maxsize=1)
def _workers(num_workers: int) -> ThreadPoolExecutor:
    import torch

    num_threads, all_are_there = torch.get_num_threads(), threading.Barrier(num_workers)

    def compute_alone() -> None:
        # Asked for, a thread first takes the number of all others; only then does it keep one of its own.
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_are_there.wait(_LONGEST_START_S)

    workers = ThreadPoolExecutor(num_workers, thread_name_prefix="share", initializer=compute_alone)
    try:
        list(workers.map(lambda _: None, range(num_workers)))
    except BaseException:
        # Where one cannot start, the others must not wait for it.
        all_are_there.abort()
        raise
    # Threads that start later take it from the last that was set anywhere.
    torch.set_num_threads(num_threads)
    return workers


if hasattr(os, "register_at_fork"):
    # A process that is forked has none of the threads.
    os.register_at_fork(after_in_child=_workers.cache_clear)
