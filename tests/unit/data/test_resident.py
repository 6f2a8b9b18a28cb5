"""How much of a mapped file stays in memory, as the system counts it."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Generator

from conviction.core.errors import DataError
from conviction.data import resident
from conviction.data.pack import load_pack
from conviction.data.resident import read_ahead, read_rows, release, rows_at_once
from conviction.data.source.folder import FolderConfig
from conviction.data.standardize import Standardization, channel_statistics
from conviction.data.stream import Stream
from pictures import write_picture

SMAPS = Path("/proc/self/smaps")
pytestmark = pytest.mark.skipif(not SMAPS.exists(), reason="only Linux says how much of a map is resident")
NUM, SIDE_PX = 120, 128
PICTURE_BYTES = SIDE_PX * SIDE_PX * 3
# Around a page that is read the system maps fifteen others.
AROUND_BYTES = 1 << 17


def resident_bytes(name: str) -> int:
    """Of all maps of files whose path ends so."""
    found, counts = 0, False
    for line in SMAPS.read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            counts = line.endswith(name)
        elif counts and line.startswith("Rss:"):
            found += 1024 * int(line.split()[1])
    return found


@pytest.fixture
def mapped(tmp_path: Path) -> np.ndarray:
    path = tmp_path / "mapped.npy"
    np.save(path, np.random.default_rng(0).integers(0, 256, (NUM, SIDE_PX, SIDE_PX, 3), np.uint8))
    return np.load(path, mmap_mode="r")


def pass_over(images: np.ndarray) -> int:
    """What is resident after an epoch and the statistics."""
    labels, rows = np.zeros(len(images), np.int64), np.arange(len(images))
    stream = Stream(images, labels, rows, Standardization((0.0,) * 3, (1.0,) * 3), 8)
    seen = sum(len(batch.images) for batch in stream.shuffled(Generator().manual_seed(0)))
    assert seen == len(images)
    channel_statistics(images, rows)
    return resident_bytes("mapped.npy")


def test_a_small_map_stays_whole(mapped: np.ndarray) -> None:
    assert pass_over(mapped) >= NUM * PICTURE_BYTES


def test_of_a_large_map_nothing_stays(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_LARGE_BYTES", 1 << 20)
    assert pass_over(mapped) <= AROUND_BYTES


@pytest.mark.slow
def test_while_a_large_pack_is_built_little_of_it_is_resident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_LARGE_BYTES", 1 << 20)
    monkeypatch.setattr(resident, "_CHUNK_BYTES", 8 * PICTURE_BYTES)
    monkeypatch.setattr("conviction.data.pack._CHUNK", 1)
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(NUM // 2):
            write_picture(tmp_path / "photos" / label / f"{number}.png", (SIDE_PX, SIDE_PX), number)
    seen = []
    pack = load_pack(
        FolderConfig(path=str(tmp_path / "photos")), lambda done, total: seen.append(resident_bytes("images.npy"))
    )
    assert len(seen) == NUM
    assert max(seen) <= 8 * PICTURE_BYTES + AROUND_BYTES
    for path, image in zip(pack.paths, pack.images, strict=True):
        assert np.array_equal(image, np.asarray(Image.open(tmp_path / "photos" / path)))


def test_rows_are_copies_with_the_maps_values(mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = np.array(mapped)
    monkeypatch.setattr(resident, "_LARGE_BYTES", 1)
    for rows in (np.array([5, 0, 5]), slice(3, 9)):
        found = read_rows(mapped, rows)
        assert not np.shares_memory(found, mapped)
        assert np.array_equal(found, expected[rows])


@pytest.mark.parametrize("num_rows", [0, 1, 2, 3, 50])
def test_large_rows_are_read_in_threads(num_rows: int) -> None:
    images = np.random.default_rng(1).integers(0, 256, (20, 150, 150, 3), np.uint8)
    rows = np.random.default_rng(2).integers(0, 20, num_rows)
    found = read_rows(images, rows)
    assert np.array_equal(found, images[rows])
    assert not np.shares_memory(found, images)


def test_what_was_written_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_LARGE_BYTES", 1)
    images = np.lib.format.open_memmap(tmp_path / "new.npy", mode="w+", dtype=np.uint8, shape=(4, 64, 64, 3))
    images[2] = 7
    release(images)
    images[3] = 9
    images.flush()
    assert np.load(tmp_path / "new.npy")[:, 0, 0, 0].tolist() == [0, 0, 7, 9]


def test_rows_at_once() -> None:
    assert rows_at_once(np.zeros((1, 32, 32, 3), np.uint8)) == 256
    assert rows_at_once(np.zeros((1, 1024, 1024, 3), np.uint8)) == 5
    assert rows_at_once(np.zeros((0, 8192, 8192, 3), np.uint8)) == 256
    assert rows_at_once(np.zeros((1, 8192, 8192, 1), np.uint8)) == 1


def test_arrays_in_memory_have_nothing_to_release() -> None:
    images = np.arange(12, dtype=np.uint8).reshape(3, 2, 2, 1)
    assert read_rows(images, np.array([2]))[0, 1, 1, 0] == 11
    assert torch.from_numpy(read_rows(images, slice(0, 1))).sum() == 6


@pytest.fixture
def large_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resident, "_LARGE_ROW_BYTES", 1)


@pytest.mark.usefixtures("large_rows", "two_threads")
@pytest.mark.parametrize("order", ["forwards", "backwards", "part of a map", "in memory", "deleted"])
def test_large_rows_are_those_asked_for(order: str, mapped: np.ndarray) -> None:
    rows, images = np.random.default_rng(1).permutation(NUM - 20), mapped
    if order == "backwards":
        images = mapped[::-1]
    elif order == "part of a map":
        images = mapped[20:]
    elif order == "in memory":
        images = np.array(mapped)
    elif order == "deleted":
        assert isinstance(mapped, np.memmap)
        Path(str(mapped.filename)).unlink()
    assert np.array_equal(read_rows(images, rows), np.array(images)[rows])
    assert read_rows(images, rows[:0]).shape == (0, SIDE_PX, SIDE_PX, 3)


@pytest.mark.usefixtures("large_rows", "two_threads")
def test_of_a_file_that_was_cut_off_nothing_is_made_up(mapped: np.ndarray) -> None:
    assert isinstance(mapped, np.memmap)
    os.truncate(mapped.filename, mapped.offset + 5 * PICTURE_BYTES - 1)
    assert read_rows(mapped, np.array([3])).shape == (1, SIDE_PX, SIDE_PX, 3)
    with pytest.raises(DataError, match=r"mapped\.npy was cut off while it was read\. The next start makes it anew\."):
        read_rows(mapped, np.array([3, 4]))


def advised(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Which bytes the system is asked to read ahead; it reads them."""
    found: list[tuple[int, int]] = []
    original = os.posix_fadvise

    def advise(file: int, start: int, count: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        original(file, start, count, advice)
        found.append((start, count))

    monkeypatch.setattr(resident.os, "posix_fadvise", advise)
    return found


def test_the_next_batch_of_a_large_map_is_asked_for_while_one_is_used(
    mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resident, "_LARGE_BYTES", 1 << 20)
    found = advised(monkeypatch)
    assert isinstance(mapped, np.memmap)
    labels, rows = np.arange(NUM), np.arange(NUM)
    stream = Stream(mapped, labels, rows, Standardization((0.0,) * 3, (1.0,) * 3), 50)
    asked: list[list[int]] = []
    used: list[list[int]] = []
    for batch in stream.shuffled(Generator().manual_seed(0)):
        assert all(count == PICTURE_BYTES for _, count in found)
        asked.append([(start - mapped.offset) // PICTURE_BYTES for start, _ in found])
        used.append(batch.labels.tolist())
        found.clear()
    assert [len(each) for each in used] == [50, 50, 20]
    assert asked == [*used[1:], []]


def test_small_maps_and_arrays_in_memory_are_not_read_ahead(
    mapped: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = advised(monkeypatch)
    read_ahead(mapped, np.arange(3))
    monkeypatch.setattr(resident, "_LARGE_BYTES", 0)
    read_ahead(np.array(mapped), np.arange(3))
    read_ahead(mapped, np.arange(0))
    assert found == []
    assert isinstance(mapped, np.memmap)
    Path(str(mapped.filename)).unlink()
    read_ahead(mapped, np.arange(3))
    assert found == []
    monkeypatch.delattr(resident.os, "posix_fadvise")
    read_ahead(mapped, np.arange(3))
