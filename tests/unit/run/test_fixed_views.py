"""A fixed number of views of each picture, computed once by the frozen layers."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conviction import resume, train
from conviction.core.errors import ConfigError
from conviction.data.stream import Stream
from conviction.run import activation_store, cached_frozen
from conviction.run.recipe import load_recipe
from small_frozen import AUGMENTED, RECIPE, Stages, kept_sets, losses, prepared_for, trained, weights


def test_fixed_views_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    original = cached_frozen._Caching._frozen

    def watched(self: Any, images: torch.Tensor) -> torch.Tensor:
        seen.append(images.clone())
        return original(self, images)

    monkeypatch.setattr(cached_frozen._Caching, "_frozen", watched)
    monkeypatch.setattr(Stream, "shuffled", None)
    run, notes = trained({**AUGMENTED, "fit.fixed_views": 3, "fit.epochs": 4})
    data = run.summary.data
    # The validation pictures as they are, and three views of each training picture; first of all one picture is tried.
    assert sum(len(images) for images in seen) == 1 + data.num_validation + 3 * data.num_train
    assert f"{data.num_validation + 3 * data.num_train:,} pictures and views" in notes[0]
    assert len(kept_sets(tmp_path)) == 4


@pytest.mark.parametrize("num_views", [1, 3])
def test_views_that_are_all_alike_are_what_is_seen_without_the_cache(num_views: int) -> None:
    alike = {"augment": [{"name": "horizontal_flip", "p": 1.0}]}
    kept, _ = trained({"fit.fixed_views": num_views}, **alike)
    plain, _ = trained({"fit.cache_frozen": False}, **alike)
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-5)
    unaugmented, _ = trained({"fit.cache_frozen": False})
    assert losses(kept) != pytest.approx(losses(unaugmented), rel=1e-3)


def test_each_kept_view_is_one_of_its_own_picture(tmp_path: Path) -> None:
    settings = {**AUGMENTED, "fit.fixed_views": 2, "fit.epochs": 1}
    run, _ = trained(settings)
    prepared = prepared_for(settings)
    rows = np.sort(prepared.splits.train)
    kept = [np.load(folder / "values.npy") for folder in kept_sets(tmp_path)]
    views = [torch.from_numpy(values).permute(0, 3, 1, 2) for values in kept if len(values) == len(rows)]
    assert len(views) == 2
    # By a pixel in each direction or not at all: nine places that a picture may be moved to.
    padded = np.pad(prepared.pack.images[rows], ((0, 0), (1, 1), (1, 1), (0, 0)))
    block = run.network("last").blocks.block1.eval()
    closest = []
    for top, left in itertools.product(range(3), repeat=2):
        moved = torch.from_numpy(padded[:, top : top + 8, left : left + 8]).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = block(prepared.standardization(moved))
        closest.append(torch.stack([(values - expected).abs().amax(dim=(1, 2, 3)) for values in views]))
    distance, place = torch.stack(closest).min(dim=0)
    assert float(distance.max()) < 1e-5
    # All places are drawn, about as often as each other, and anew for the second view.
    counts = torch.stack([torch.bincount(each, minlength=9) for each in place])
    assert int(counts.min()) > len(rows) / 9 * 0.6
    assert float((place[0] == place[1]).float().mean()) == pytest.approx(1 / 9, abs=0.05)


def test_another_augmentation_gives_other_views(tmp_path: Path) -> None:
    trained({**AUGMENTED, "fit.fixed_views": 1, "fit.epochs": 1})
    first = kept_sets(tmp_path)
    assert len(first) == 2
    trained({**AUGMENTED, "augment": [{"name": "random_crop", "padding_px": 2}], "fit.fixed_views": 1, "fit.epochs": 1})
    # The pictures as they are, are the same.
    assert len(kept_sets(tmp_path)) == 3


def test_more_views_than_sets_are_kept_stay_nevertheless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(activation_store, "_MOST_KEPT", 2)
    settings = {**AUGMENTED, "fit.fixed_views": 4, "fit.epochs": 1}
    trained({"fit.epochs": 1})
    (others,) = kept_sets(tmp_path)
    first, _ = trained(settings)
    # The pictures as they are and four views; another training's set had to go.
    kept = kept_sets(tmp_path)
    assert (len(kept), others in kept) == (5, False)

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("computed anew")

    monkeypatch.setattr(cached_frozen._Caching, "_computed", refuse)
    second, notes = trained(settings)
    assert notes == []
    assert kept_sets(tmp_path) == kept
    assert (first.path / "history.jsonl").read_bytes() == (second.path / "history.jsonl").read_bytes()


@pytest.mark.parametrize(("memory_format", "stride"), [("channels_last", 1), ("contiguous", 64)])
def test_views_of_one_channel_have_the_memory_format(
    memory_format: str, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    strides: set[int] = set()
    original = cached_frozen._Caching._frozen

    def watched(self: Any, images: torch.Tensor) -> torch.Tensor:
        assert images.shape[1:] == (1, 8, 8)
        strides.add(images.stride(1))
        return original(self, images)

    monkeypatch.setattr(cached_frozen._Caching, "_frozen", watched)
    trained({**AUGMENTED, "fit.fixed_views": 2, "fit.epochs": 1, "fit.memory_format": memory_format})
    assert strides == {stride}


def test_views_are_the_same_in_a_resumed_run(tmp_path: Path) -> None:
    settings = {**AUGMENTED, "fit.fixed_views": 2, "fit.epochs": 3}
    whole, _ = trained(settings)
    halves, _ = trained({**settings, "fit.epochs": 1})
    recipe = halves.folder.recipe
    recipe.write_text(recipe.read_text().replace("epochs: 1", "epochs: 3"))
    summary = json.loads((halves.path / "run.json").read_text())
    (halves.path / "run.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    resumed = resume(halves)
    assert (whole.path / "history.jsonl").read_bytes() == (resumed.path / "history.jsonl").read_bytes()
    assert all(torch.equal(one, weights(whole)[name]) for name, one in weights(resumed).items())


def test_augmented_pictures_are_computed_in_each_epoch_and_a_note_says_so(tmp_path: Path) -> None:
    _, notes = trained({**AUGMENTED, "fit.epochs": 1})
    assert "fit.fixed_views=4 would draw four views" in notes[0]
    assert kept_sets(tmp_path) == []


def test_mixed_pictures_have_no_views() -> None:
    with pytest.raises(ConfigError, match="augment mixes pictures of two classes"):
        trained({"augment": ["mixup"], "fit.fixed_views": 2})


@pytest.mark.parametrize("missing", [{"network.freeze": None}, {"augment": []}, {"fit.cache_frozen": False}])
def test_views_need_frozen_layers_augmentation_and_the_cache(missing: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"fit\.fixed_views is for frozen layers"):
        load_recipe(RECIPE, {**AUGMENTED, "fit.fixed_views": 2, **missing})


def test_all_that_is_computed_is_one_stage(tmp_path: Path) -> None:
    def stages(**settings: Any) -> tuple[list[int], int]:
        watcher = Stages()
        data = train(RECIPE | settings, {**AUGMENTED, "fit.epochs": 1}, watcher=watcher).summary.data
        assert {name for name, _, _ in watcher.seen} <= {"frozen layers, pictures"}
        totals = {total for _, _, total in watcher.seen}
        assert len(totals) <= 1
        done = [num_done for _, num_done, _ in watcher.seen]
        assert done == sorted(set(done))
        return done, data.num_train

    fit = RECIPE["fit"]
    done, num_train = stages(fit={**fit, "fixed_views": 2})
    # 359 validation pictures, at most 128 at once.
    assert done[:3] == [128, 256, 359]
    assert done[-1] == 359 + 2 * num_train
    # Of three views two are there: what is left to compute is the third.
    done, _ = stages(fit={**fit, "fixed_views": 3})
    assert (done[0], done[-1]) == (128, num_train)
    assert stages(fit={**fit, "fixed_views": 3})[0] == []


def test_fixed_views_of_pictures_whose_size_changes_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fit\.progressive_sizes empty"):
        load_recipe(RECIPE, {**AUGMENTED, "fit.fixed_views": 2, "fit.progressive_sizes": [{"epochs": 1, "size_px": 6}]})
