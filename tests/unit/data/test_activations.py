"""Streams of activations give the rows that a stream of pictures would give, in its order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from conviction.data.activations import Activations, ActivationStream, as_rows
from conviction.data.standardize import Standardization
from conviction.data.stream import Stream

# Of a pack of 12 rows, these are the split's, in its own order.
ROWS = np.array([9, 2, 7, 4, 0, 11, 5])
LABELS = np.arange(12) * 10
IMAGES = np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1)
AS_IT_IS = Standardization((0.0,), (1.0 / 255,))


def stream_of(num_views: int = 0, first_views: np.ndarray | None = None) -> ActivationStream:
    """The activation of row r is r, and that of its view v is r + 100·v."""
    rows = np.sort(ROWS)
    plain = Activations(rows[:, None].astype(np.float32), rows)
    views = tuple(Activations(plain.values + 100 * view, rows) for view in range(num_views))
    return ActivationStream(IMAGES, LABELS, ROWS, AS_IT_IS, 3, plain=plain, views=views, first_views=first_views)


def values(stream: Stream, epoch: int | None = None) -> list[float]:
    generator = torch.Generator().manual_seed(epoch or 0)
    batches = stream.in_order() if epoch is None else stream.shuffled(generator, epoch)
    return [round(value) for batch in batches for value in batch.images.flatten().tolist()]


def test_the_order_is_that_of_the_pictures() -> None:
    pictures = Stream(IMAGES, LABELS, ROWS, AS_IT_IS, 3)
    assert values(stream_of()) == values(pictures) == ROWS.tolist()
    assert values(stream_of(), 4) == values(pictures, 4) != ROWS.tolist()
    # 7 rows in batches of 3: the last one joins the batch before.
    assert [len(batch.images) for batch in stream_of().in_order()] == [3, 4]


def test_labels_go_with_their_rows() -> None:
    for batch in stream_of().shuffled(torch.Generator().manual_seed(1)):
        assert (batch.images.flatten() * 10).tolist() == batch.labels.tolist() == batch.targets.tolist()


def test_each_picture_shows_each_view_once_in_as_many_epochs() -> None:
    first = np.array([0, 1, 2, 0, 1, 2, 0])
    stream = stream_of(3, first)
    seen: dict[int, list[int]] = {row: [] for row in ROWS.tolist()}
    for epoch in (1, 2, 3):
        for value in values(stream, epoch):
            seen[int(value) % 100].append(int(value) // 100)
    expected = [[(start + epoch) % 3 for epoch in (1, 2, 3)] for start in first.tolist()]
    assert list(seen.values()) == expected


@pytest.mark.parametrize("num_views", [0, 3])
@pytest.mark.parametrize("epoch", [None, 2])
def test_what_comes_next_is_asked_for(num_views: int, epoch: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        "conviction.data.activations.read_ahead", lambda values, rows: asked.extend(values[rows].flatten().tolist())
    )
    stream = replace(stream_of(num_views, np.array([0, 1, 2, 0, 1, 2, 0])), batch_size=2)
    generator = torch.Generator().manual_seed(0)
    expected: list[float] = []
    for number, batch in enumerate(stream.in_order() if epoch is None else stream.shuffled(generator, epoch)):
        wanted = sorted(batch.images.flatten().tolist())
        # The last batch has taken in a picture that was left over.
        assert number == 0 or set(expected) <= set(wanted)
        assert number == 0 or len(wanted) - len(expected) in (0, 1)
        expected = list(asked)
        asked.clear()
    assert number == 2
    assert expected == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 5), (4, 3, 2, 5)])
def test_what_is_kept_comes_back_to_the_last_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    given = torch.randn(shape).to(dtype)
    found = Activations(as_rows(given), np.array([3, 5, 6, 9])).of(np.array([6, 3]))
    wanted: Tensor = given[[2, 0]] if len(shape) == 4 else given[[2, 0]][:, :, None, None]
    assert found.dtype == dtype
    assert torch.equal(found, wanted)
