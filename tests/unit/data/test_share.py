"""What each of several processes gets of a batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Generator

from conviction.augment import AUGMENTATIONS, build_augmentations
from conviction.data import stream as stream_module
from conviction.data.standardize import Standardization
from conviction.data.stream import Share, Stream

CENTRE = Standardization((0.5,) * 3, (1.0,) * 3)


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


@pytest.mark.parametrize("num_processes", [1, 2, 3, 5])
@pytest.mark.parametrize("augments", ["none", "moves", "colours"])
def test_shares_of_a_batch_are_parts_of_the_whole_one(augments: str, num_processes: int) -> None:
    configs = {
        "none": (),
        "moves": ({"name": "random_crop", "padding_px": 1}, {"name": "alternating_flip"}),
        "colours": ({"name": "horizontal_flip"}, {"name": "brightness"}, {"name": "mixup"}),
    }[augments]
    built = [AUGMENTATIONS[one["name"]].config.model_validate(one) for one in configs]
    images = np.random.default_rng(0).integers(0, 256, (11, 4, 6, 3)).astype(np.uint8)
    augment = build_augmentations(built, (3, 4, 6), 5) if built else None
    whole = Stream(images, np.arange(11) % 5, np.arange(11), CENTRE, 4, augment)
    expected = list(whole.shuffled(seeded(0), 2))
    shares = [replace(whole, share=Share(rank, num_processes)) for rank in range(num_processes)]
    for batch, *parts in zip(expected, *(share.shuffled(seeded(0), 2) for share in shares), strict=True):
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
        assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
        assert {part.place.num_images for part in parts if part.place} == {len(batch.labels)}


def test_a_share_reads_its_own_pictures_alone_where_they_only_move(monkeypatch: pytest.MonkeyPatch) -> None:
    num_read = []
    read = stream_module.read_rows
    monkeypatch.setattr(
        stream_module, "read_rows", lambda images, rows: num_read.append(len(rows)) or read(images, rows)
    )
    augment = build_augmentations([AUGMENTATIONS["horizontal_flip"].config()], (3, 4, 6), 5)
    images = np.zeros((8, 4, 6, 3), np.uint8)
    share = Stream(images, np.zeros(8, np.int64), np.arange(8), CENTRE, 8, augment, share=Share(1, 4))
    assert len(next(share.shuffled(seeded(0))).labels) == 2
    assert num_read == [2]
