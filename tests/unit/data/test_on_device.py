"""On the CPU in place of a GPU: what is copied, and that batches are the same."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Generator

from conviction.augment import build_augmentations
from conviction.augment.geometric import CropToConfig
from conviction.data.on_device import on_device
from conviction.data.standardize import Standardization
from conviction.data.stream import Stream
from conviction.run import prepared as run_prepared
from conviction.run.prepared import Machine, Prepared

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), np.uint8)
PICTURE_BYTES = 5 * 6 * 3
ROWS = np.array([7, 3, 11, 19, 4])


def test_only_the_given_rows_are_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conviction.data.on_device.rows_at_once", lambda images: 2)
    found = on_device(IMAGES, ROWS, CPU, free_bytes=10**6)
    assert found is not None
    assert np.array_equal(found.images.numpy(), IMAGES[[3, 4, 7, 11, 19]])
    assert np.array_equal(found.of(np.array([19, 3, 3])).numpy(), IMAGES[[19, 3, 3]])


@pytest.mark.parametrize(
    ("free_bytes", "fits"), [(5 * PICTURE_BYTES / 0.4, True), (5 * PICTURE_BYTES / 0.4 - 3, False)]
)
def test_they_take_four_tenths_of_what_is_free_at_most(free_bytes: float, fits: bool) -> None:
    assert (on_device(IMAGES, ROWS, CPU, int(free_bytes)) is not None) == fits


def test_no_rows_are_not_copied() -> None:
    assert on_device(IMAGES, ROWS[:0], CPU, 10**6) is None


def test_batches_are_the_same() -> None:
    augment = build_augmentations([CropToConfig(size_px=4)], (3, 5, 6), 20)
    standardization = Standardization((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    read = Stream(IMAGES, np.arange(20), ROWS, standardization, 2, augment, (4, 4))
    kept = replace(read, on_device=on_device(IMAGES, ROWS, CPU, 10**6))
    for one, other in (
        (read.in_order(), kept.in_order()),
        (read.shuffled(Generator().manual_seed(0)), kept.shuffled(Generator().manual_seed(0))),
    ):
        for expected, found in zip(one, other, strict=True):
            assert torch.equal(found.images, expected.images)
            assert found.images.stride() == expected.images.stride()
            assert torch.equal(found.labels, expected.labels)


@pytest.mark.parametrize(
    ("kind", "free_bytes", "is_kept"), [("cuda", 10**6, True), ("cuda", 10, False), ("cpu", 10**6, False)]
)
def test_training_keeps_its_pictures_on_a_gpu(
    kind: str, free_bytes: int, is_kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[torch.device, int]] = []

    def keep(images: np.ndarray, rows: np.ndarray, device: torch.device, free_bytes: int) -> object:
        asked.append((device, free_bytes))
        return on_device(images, rows, CPU, free_bytes)

    monkeypatch.setattr(run_prepared, "on_device", keep)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free_bytes, 10**9))
    device = torch.device(kind)
    prepared = SimpleNamespace(machine=Machine(device, "float32", 1))
    stream = Stream(IMAGES, np.arange(20), ROWS, Standardization((0.0,) * 3, (1.0,) * 3), 2)
    found = Prepared.on_device(prepared, stream)  # type: ignore[arg-type]
    assert (found.on_device is not None) == is_kept
    assert asked == ([(device, free_bytes)] if kind == "cuda" else [])
