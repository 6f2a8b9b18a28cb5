"""What lies behind frozen layers is timed on the activations of a few pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conviction.core.errors import StorageError
from conviction.nets.freezing import is_frozen
from conviction.run import cached_frozen
from conviction.run.cached_frozen import sampled_rest
from conviction.run.starting import build_trainer
from small_frozen import AUGMENTED, NoRoom, kept_sets, prepared_for, trained


def test_a_sample_of_activations_stands_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = 0
    original = cached_frozen._Caching._frozen

    def watched(self: Any, images: torch.Tensor) -> torch.Tensor:
        nonlocal seen
        seen += len(images)
        return original(self, images)

    monkeypatch.setattr(cached_frozen._Caching, "_frozen", watched)
    prepared = prepared_for({})
    whole = build_trainer(prepared)
    sampled, frozen_s = sampled_rest(whole, prepared, 10)
    # One is tried, ten warm up, ten are measured.
    assert seen == 21
    assert frozen_s is not None
    assert frozen_s > 0
    assert kept_sets(tmp_path) == []
    assert (sampled.train.num_batches, len(sampled.train)) == (whole.train.num_batches, len(whole.train))
    assert (sampled.validation.num_batches, len(sampled.validation)) == (3, len(whole.validation))
    # What is trained is the rest, on what the frozen layers make of these pictures.
    assert not any(is_frozen(layer) for layer in sampled.network.modules())
    batch = next(sampled.train.in_order())
    images = next(replace(whole.train, rows=sampled.train.rows, augment=None).in_order()).images
    with torch.inference_mode():
        expected = whole.network.eval()(images)
        torch.testing.assert_close(sampled.network.eval()(batch.images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("overrides", "num_plain", "num_views"),
    [
        ({}, 359 + 1079, 0),
        ({**AUGMENTED, "fit.fixed_views": 3}, 359, 3),
        ({**AUGMENTED, "fit.fixed_views": 3, "fit.measure_train_fixed": True}, 359 + 1079, 3),
    ],
)
def test_what_computing_once_takes_is_counted_by_pictures_and_views(
    overrides: dict[str, Any], num_plain: int, num_views: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = cached_frozen._Caching._timed

    def timed(self: Any, part: Any) -> tuple[np.ndarray, float]:
        return original(self, part)[0], 0.5 if part.view else 0.25

    monkeypatch.setattr(cached_frozen._Caching, "_timed", timed)
    prepared = prepared_for(overrides)
    _, frozen_s = sampled_rest(build_trainer(prepared), prepared, 10)
    assert frozen_s == 0.25 * num_plain + 0.5 * num_views * 1079


def test_what_is_kept_already_takes_no_time() -> None:
    trained({"fit.epochs": 1})
    prepared = prepared_for({"fit.epochs": 5})
    kept, frozen_s = sampled_rest(build_trainer(prepared), prepared, 10)
    assert frozen_s == 0
    rows = np.sort(kept.train.rows)
    assert len(np.unique(rows)) == len(rows) == 1079


@pytest.mark.parametrize(
    "overrides",
    [
        {"network.freeze": None},
        {"fit.cache_frozen": False},
        {"augment": ["horizontal_flip"]},
    ],
)
def test_where_nothing_is_kept_the_whole_network_is_timed(overrides: dict[str, Any]) -> None:
    prepared = prepared_for(overrides)
    whole = build_trainer(prepared)
    assert sampled_rest(whole, prepared, 10) == (whole, None)


def test_without_room_the_whole_network_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_frozen.shutil, "disk_usage", lambda folder: NoRoom)
    prepared = prepared_for({})
    whole = build_trainer(prepared)
    assert sampled_rest(whole, prepared, 10) == (whole, None)
    prepared = prepared_for({**AUGMENTED, "fit.fixed_views": 2})
    with pytest.raises(StorageError, match="to spare"):
        sampled_rest(build_trainer(prepared), prepared, 10)
