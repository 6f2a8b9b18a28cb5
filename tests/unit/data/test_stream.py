import itertools

import numpy as np
import pytest
import torch
from torch import Generator, Tensor

from conviction.data.standardize import Standardization
from conviction.data.stream import Batch, Draw, Stream

KEEP = Standardization((0.0,), (1.0 / 255,))


def stream_of(num_images: int, batch_size: int, rows: np.ndarray | None = None, **settings: object) -> Stream:
    """Pictures whose every pixel is their row's number, and whose label is ten times that."""
    images = np.broadcast_to(np.arange(num_images, dtype=np.uint8)[:, None, None, None], (num_images, 4, 3, 1)).copy()
    images.flags.writeable = False
    rows = np.arange(num_images) if rows is None else rows
    return Stream(images, 10 * np.arange(num_images), rows, KEEP, batch_size, **settings)  # type: ignore[arg-type]


def numbers(batch: Batch) -> list[int]:
    """The row numbers that a batch's pixels tell, having checked that its labels tell the same."""
    rows = batch.images[:, 0, 0, 0].round().long()
    assert (batch.images - rows[:, None, None, None]).abs().max() < 1e-4
    assert batch.labels.tolist() == [10 * row for row in rows.tolist()]
    return rows.tolist()


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def test_in_order_gives_the_rows_in_their_order() -> None:
    stream = stream_of(9, 4, np.array([1, 2, 3, 5, 7, 8]))
    assert [numbers(batch) for batch in stream.in_order()] == [[1, 2, 3, 5], [7, 8]]
    assert (len(stream), stream.num_batches) == (6, 2)


@pytest.mark.parametrize(("num_images", "batch_size"), [(10, 3), (12, 4), (2, 5), (1, 4), (100, 7), (3, 2)])
def test_shuffled_gives_every_row_once(num_images: int, batch_size: int) -> None:
    stream = stream_of(num_images, batch_size)
    batches = [numbers(batch) for batch in stream.shuffled(seeded(0))]
    assert sorted(itertools.chain(*batches)) == list(range(num_images))
    assert len(batches) == stream.num_batches


def test_only_the_streams_rows_are_given() -> None:
    rows = np.array([0, 4, 6, 7, 9])
    batches = [numbers(batch) for batch in stream_of(10, 2, rows).shuffled(seeded(3))]
    assert sorted(itertools.chain(*batches)) == rows.tolist()


def test_the_generator_decides_the_order() -> None:
    stream = stream_of(50, 8)
    first, again, other = ([numbers(b) for b in stream.shuffled(seeded(s))] for s in (1, 1, 2))
    assert first == again != other
    generator = seeded(1)
    epochs = [[numbers(batch) for batch in stream.shuffled(generator)] for _ in range(2)]
    assert epochs[0] == first
    assert epochs[1] != first


@pytest.mark.parametrize(
    ("num_images", "batch_size", "sizes"),
    [(9, 4, [4, 5]), (10, 4, [4, 4, 2]), (8, 4, [4, 4]), (5, 4, [5]), (1, 4, [1]), (4, 4, [4]), (3, 4, [3])],
)
def test_a_last_batch_of_one_joins_the_one_before(num_images: int, batch_size: int, sizes: list[int]) -> None:
    stream = stream_of(num_images, batch_size)
    assert [len(batch.labels) for batch in stream.in_order()] == sizes
    assert [len(batch.labels) for batch in stream.shuffled(seeded(0))] == sizes
    assert stream.num_batches == len(sizes)


def test_a_stream_of_nothing_has_no_batch() -> None:
    stream = stream_of(3, 2, np.zeros(0, np.int64))
    assert list(stream.in_order()) == []
    assert list(stream.shuffled(seeded(0))) == []
    assert stream.num_batches == 0


@pytest.mark.parametrize("num_channels", [1, 3])
def test_batches_are_channels_last(num_channels: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, num_channels), np.uint8)
    standardization = Standardization((0.0,) * num_channels, (1.0,) * num_channels)
    stream = Stream(images, np.arange(6), np.arange(6), standardization, 4, lambda x, y, _: (x.flip(-1), y))
    for batch in (*stream.in_order(), *stream.shuffled(seeded(0))):
        assert batch.images.shape[1:] == (num_channels, 5, 4)
        assert batch.images.dtype == torch.float32
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
    first = next(iter(stream.in_order()))
    assert torch.allclose(first.images.permute(0, 2, 3, 1), torch.from_numpy(images[:4]) / 255)


@pytest.mark.parametrize("num_channels", [1, 3])
@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
def test_torch_computes_in_the_memory_format_of_a_stream(num_channels: int, memory_format: torch.memory_format) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4, num_channels), dtype=np.uint8)
    images.flags.writeable = False
    standardization = Standardization((0.0,) * num_channels, (1.0,) * num_channels)
    stream = Stream(images, np.arange(6), np.arange(6), standardization, 6, memory_format=memory_format)
    (batch,) = stream.in_order()
    np.testing.assert_allclose(batch.images.permute(0, 2, 3, 1).numpy(), images / 255, atol=1e-6)
    convolution = torch.nn.Conv2d(num_channels, 8, 3, padding=1)
    assert convolution(batch.images).is_contiguous(memory_format=memory_format)


def test_shuffled_batches_alone_are_augmented() -> None:
    def doubled(images: Tensor, labels: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        return images * 2, torch.nn.functional.one_hot(labels, int(labels.max()) + 1).float()

    stream = stream_of(6, 3, augment=doubled)
    batches = list(stream.shuffled(seeded(0)))
    seen = sorted(int(value) for batch in batches for value in batch.images[:, 0, 0, 0].round())
    assert seen == [0, 2, 4, 6, 8, 10]
    assert all(torch.equal(batch.targets.argmax(dim=1), batch.labels) for batch in batches)
    assert [numbers(batch) for batch in stream.in_order()] == [[0, 1, 2], [3, 4, 5]]
    assert all(batch.targets is batch.labels for batch in stream.in_order())


def test_augmentations_are_told_generator_epoch_and_rows() -> None:
    told: list[tuple[int, list[int]]] = []

    def random_level(images: Tensor, labels: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        assert draw.rows is not None
        told.append((draw.epoch, draw.rows.tolist()))
        return torch.randint(0, 256, images.shape, generator=draw.generator, dtype=torch.uint8), labels

    stream = stream_of(8, 4, augment=random_level)
    first, again, other = (torch.cat([b.images for b in stream.shuffled(seeded(s), 3)]) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert {epoch for epoch, _ in told} == {3}
    assert sorted(told[0][1] + told[1][1]) == list(range(8))


def test_the_pictures_stay_as_they_are() -> None:
    stream = stream_of(6, 3, augment=lambda images, labels, _: (images.add_(7), labels))
    list(stream.shuffled(seeded(0)))
    assert stream.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]


def test_pictures_that_are_not_shuffled_are_cut_from_their_middle() -> None:
    images = np.arange(2 * 5 * 4, dtype=np.uint8).reshape(2, 5, 4, 1)
    stream = Stream(images, np.arange(2), np.arange(2), Standardization((0.0,), (1 / 255,)), 2, crop_px=(2, 2))
    [batch] = stream.in_order()
    # Of three rows too many, two lie above: half of an odd number goes to the even one.
    assert batch.images[0, 0].round().int().tolist() == [[9, 10], [13, 14]]
    assert next(iter(stream.shuffled(seeded(0)))).images.shape == (2, 1, 5, 4)


def test_a_memory_map_is_read_without_a_warning(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("map") / "images.npy"
    np.save(path, stream_of(5, 2).images)
    mapped = np.load(path, mmap_mode="r")
    stream = Stream(mapped, 10 * np.arange(5), np.arange(5), KEEP, 2)
    assert [numbers(batch) for batch in stream.in_order()] == [[0, 1], [2, 3, 4]]
