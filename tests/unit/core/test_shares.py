from __future__ import annotations

import itertools
import multiprocessing
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conviction.core.shares import _workers, in_shares


@given(num_items=st.integers(0, 50), num_threads=st.integers(1, 5))
def test_every_item_is_in_one_share(num_items: int, num_threads: int) -> None:
    found: list[list[int]] = []
    in_shares(lambda share: found.append(list(range(num_items))[share]), num_items, num_threads)
    assert sorted(itertools.chain.from_iterable(found)) == list(range(num_items))
    assert len(found) == max(1, min(num_items, num_threads))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_each_computes_alone_and_the_caller_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = []
        in_shares(lambda _: seen.append((threading.get_ident(), torch.get_num_threads())), 3)
        assert [num for _, num in seen] == [1, 1, 1]
        assert threading.get_ident() not in dict(seen)
        assert torch.get_num_threads() == 3
        later = []
        thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert later == [3]
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad, torch.enable_grad])
def test_modes_are_the_callers(mode: Callable[[], AbstractContextManager[None]]) -> None:
    seen: list[tuple[bool, bool]] = []
    with mode():
        expected = (torch.is_inference_mode_enabled(), torch.is_grad_enabled())
        whole = torch.zeros(4)
        # In place, which torch refuses for tensors of inference mode outside it.
        in_shares(lambda share: whole[share].add_(1), 4, num_threads=2)
        in_shares(lambda _: seen.append((torch.is_inference_mode_enabled(), torch.is_grad_enabled())), 4, num_threads=2)
    assert seen == [expected, expected]
    assert whole.tolist() == [1, 1, 1, 1]


def test_where_a_thread_cannot_start_nothing_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    start, begun = threading.Thread.start, []

    def second_fails(thread: threading.Thread) -> None:
        begun.append(thread)
        if len(begun) == 2:
            raise RuntimeError("can't start new thread")
        start(thread)

    _workers.cache_clear()
    monkeypatch.setattr(threading.Thread, "start", second_fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        in_shares(lambda _: None, 4, num_threads=2)
    monkeypatch.undo()
    begun[0].join(10)
    assert not begun[0].is_alive()
    in_shares(lambda _: None, 4, num_threads=2)


def test_a_fault_reaches_the_caller() -> None:
    def fail(share: slice) -> None:
        raise ValueError(share.start)

    with pytest.raises(ValueError, match=r"^0$"):
        in_shares(fail, 4, num_threads=2)


def _answer(connection: Connection) -> None:
    found: list[int] = []
    in_shares(lambda share: found.append(share.stop - share.start), 10, num_threads=2)
    connection.send(sorted(found))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
def test_after_a_fork_there_are_threads_too() -> None:
    in_shares(lambda _: None, 10, num_threads=2)
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    child = context.Process(target=_answer, args=(there,))
    child.start()
    assert here.poll(30), "the forked process waits for threads that it does not have"
    assert here.recv() == [5, 5]
    child.join(30)
    assert child.exitcode == 0
