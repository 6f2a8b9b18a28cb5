"""Training on kept activations is training on the pictures: the same history, the same weights."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conviction import resume, train
from conviction.cli.train import describe_end
from conviction.core.errors import StorageError
from conviction.data.stream import Batch
from conviction.fit.loop import Trainer
from conviction.run import activation_store, cached_frozen
from conviction.run.recipe import load_recipe
from pictures import write_class_folders, write_picture
from small_disk import make_read_only, small_disk
from small_frozen import AUGMENTED, RECIPE, NoRoom, Notes, Stages, kept_sets, losses, trained, weights


@pytest.mark.parametrize("freeze", [1, 2, "blocks.block2.convolution", "all_but_head"])
def test_the_same_history_and_weights_as_without_the_cache(freeze: int | str, tmp_path: Path) -> None:
    kept, notes = trained({"network.freeze": freeze, "fit.measure_train_fixed": True})
    plain, _ = trained({"network.freeze": freeze, "fit.measure_train_fixed": True, "fit.cache_frozen": False})
    assert len(kept_sets(tmp_path)) == 1
    # 1,797 digits, of which the test split, a fifth of each class, is not touched.
    num_used = kept.summary.data.num_train + kept.summary.data.num_validation
    assert num_used == 1797 - kept.summary.data.num_test
    assert f"{num_used:,} pictures" in notes[0]
    # Before the first epoch there is no training loss: 2 figures, then 3 for each of 2 epochs.
    assert len(losses(kept)) == 2 + 2 * 3
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-5)
    expected = weights(plain)
    for name, tensor in weights(kept).items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-4, atol=1e-5)
    found, right = kept.evaluate("validation"), kept.best
    assert right is not None
    # The whole network on the pictures says what the rest said of the activations.
    assert found.loss == pytest.approx(right.validation.loss, rel=1e-5)


def test_biases_stop_training_when_they_do_without_the_cache() -> None:
    blocks = [{"filters": 8, "pooling": {}}, {"filters": 8, "bias_epochs": 1}]
    settings = {"network": {"blocks": blocks, "freeze": 1}, "fit.epochs": 3}
    kept, _ = trained(settings)
    plain, _ = trained({**settings, "fit.cache_frozen": False})
    name = "blocks.block2.convolution.bias"
    once, _ = trained({**settings, "fit.epochs": 1, "schedule": {"name": "constant"}})
    assert torch.equal(weights(kept)[name], weights(once)[name])
    torch.testing.assert_close(weights(kept)[name], weights(plain)[name], rtol=1e-4, atol=1e-6)
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-5)


def test_frozen_weights_and_statistics_are_the_same_bits_after_training(tmp_path: Path) -> None:
    start = tmp_path / "start.pth"
    first, _ = trained({"network.freeze": None, "fit.epochs": 1})
    torch.save(weights(first, "best"), start)
    run, notes = trained({"network.weights": str(start)})
    assert notes[0] == f"All weights come from {start}."
    before = torch.load(start, weights_only=True)
    after = weights(run)
    frozen = {name for name in after if name.startswith("blocks.block1.")}
    assert any("running_mean" in name for name in frozen)
    for name, tensor in after.items():
        assert torch.equal(tensor, before[name]) == (name in frozen), name


def test_a_second_training_computes_nothing_of_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _ = trained()

    def refuse(*arguments: Any) -> Any:
        raise AssertionError("computed anew")

    monkeypatch.setattr(cached_frozen._Caching, "_computed", refuse)
    second, notes = trained()
    assert notes == []
    assert (first.path / "history.jsonl").read_bytes() == (second.path / "history.jsonl").read_bytes()
    # Others are computed anew: other weights, another precision.
    for changed in ({"seed": 4}, {"fit.precision": "bfloat16"}, {"standardize": "per_image"}):
        with pytest.raises(AssertionError, match="computed anew"):
            trained(changed)
    monkeypatch.setattr(torch, "__version__", "another")
    with pytest.raises(AssertionError, match="computed anew"):
        trained()


def test_changed_pictures_are_computed_anew(tmp_path: Path) -> None:
    folder = write_class_folders(tmp_path / "pictures", {"dark": 20, "light": 20})
    settings = {"data": {"name": "folder", "path": str(folder)}}
    first, _ = trained(**settings)
    changed = folder / "dark" / "dark-003.png"
    write_picture(changed, shade=250)
    second, _ = trained(**settings)
    plain, _ = trained({"fit.cache_frozen": False}, **settings)
    assert len(kept_sets(tmp_path)) == 2
    assert losses(second) == pytest.approx(losses(plain), rel=1e-5)
    assert losses(second) != pytest.approx(losses(first), rel=1e-5)


def test_bfloat16_is_kept_as_it_is(tmp_path: Path) -> None:
    kept, _ = trained({"fit.precision": "bfloat16", "fit.epochs": 1})
    plain, _ = trained({"fit.precision": "bfloat16", "fit.epochs": 1, "fit.cache_frozen": False})
    values = np.load(kept_sets(tmp_path)[0] / "values.npy", mmap_mode="r")
    assert values.dtype == np.int16
    assert losses(kept) == pytest.approx(losses(plain), rel=1e-2)


def test_a_changed_file_of_weights_gives_a_new_cache_and_is_noticed_on_resuming(tmp_path: Path) -> None:
    start = tmp_path / "start.pth"
    first, _ = trained({"network.freeze": None, "fit.epochs": 1})
    torch.save(weights(first), start)
    settings = {"network.weights": str(start)}
    run, _ = trained(settings)
    changed = weights(first)
    changed["blocks.block1.convolution.weight"] += 0.1
    torch.save(changed, start)
    trained(settings)
    assert len(kept_sets(tmp_path)) == 2
    # The first run keeps what it began with.
    assert run.recipe.network.weights_sha256 is not None
    halved = run.folder.recipe
    halved.write_text(halved.read_text().replace("epochs: 2", "epochs: 3"))
    summary = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**summary, "status": "interrupted"}))
    notes = Notes()
    resumed = resume(run, watcher=notes)
    assert "changed since this run began, which goes on with its own weights" in notes.texts[0]
    assert len(kept_sets(tmp_path)) == 2
    assert resumed.summary.epochs == 3
    start.unlink()
    assert run.evaluate("validation").count == resumed.summary.data.num_validation


def test_kept_activations_are_read_where_nothing_can_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "cache", "50m") as place:
        first, _ = trained()
        make_read_only(place)
        second, notes = trained()
        # Others cannot be kept, which a training survives.
        _, others = trained({"seed": 4, "fit.epochs": 1})
    assert notes == []
    assert losses(second) == losses(first)
    assert "So the frozen layers are computed in each epoch." in others[1]


def test_what_comes_before_the_epochs_is_told_beside_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    original = cached_frozen._Caching._computed

    def slowly(self: Any, part: Any) -> Any:
        time.sleep(1.0)
        return original(self, part)

    monkeypatch.setattr(cached_frozen._Caching, "_computed", slowly)
    first, _ = trained({"fit.epochs": 1})
    assert first.summary.preparation_s >= 1.0
    assert first.summary.seconds == pytest.approx(
        sum(one.train_s + one.validation_s for one in first.folder.read_timings())
    )
    (line,) = [line for line in describe_end(first.summary, first.path) if line.startswith("Time")]
    assert re.search(r"^Time +\d\.\d s after [\d.]+ s of preparation, [\d,]+ training images a second,", line)
    second, _ = trained({"fit.epochs": 1})
    assert second.summary.preparation_s < first.summary.preparation_s - 0.5
    quick = dataclasses.replace(second.summary, preparation_s=0.9)
    assert "of preparation" not in "".join(describe_end(quick, second.path))


def test_a_resumed_run_tells_all_that_came_before_its_epochs() -> None:
    run, _ = trained({"fit.epochs": 1})
    run.folder.recipe.write_text(run.folder.recipe.read_text().replace("epochs: 1", "epochs: 2"))
    summary = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**summary, "status": "interrupted", "preparation_s": 100.0}))
    assert 100 < resume(run).summary.preparation_s < 150


def test_where_the_disk_has_no_room_training_goes_on_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(cached_frozen.shutil, "disk_usage", lambda folder: NoRoom)
    run, notes = trained({"fit.epochs": 1})
    assert run.summary.status == "finished"
    assert "has 0 MB to spare" in notes[0]
    assert "So the frozen layers are computed in each epoch." in notes[0]
    with pytest.raises(StorageError, match="to spare"):
        trained({**AUGMENTED, "fit.fixed_views": 2})


def test_a_disk_that_fills_up_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(path: Path, *others: Any) -> Any:
        path.write_bytes(bytes(100))
        raise StorageError(f"Cannot write {path}: the disk is full.")

    monkeypatch.setattr(activation_store, "allocate_rows", full)
    run, notes = trained({"fit.epochs": 1})
    assert run.summary.status == "finished"
    assert "the disk is full. So the frozen layers" in notes[1]
    assert [path.name for path in (tmp_path / "cache" / "frozen").iterdir() if path.is_dir()] == []


KILLED = """
import sys, time
from conviction import train
from conviction.run import cached_frozen
computed = cached_frozen._Caching._computed
def slowly(self, part):
    for rows in computed(self, part):
        print("computing", flush=True)
        yield rows
        time.sleep(60)
cached_frozen._Caching._computed = slowly
train(sys.argv[1])
"""


@pytest.mark.slow
def test_killed_while_the_cache_is_made(tmp_path: Path) -> None:
    recipe = tmp_path / "head.yaml"
    recipe.write_text(load_recipe(RECIPE).to_yaml())
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(recipe)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "computing\n"
    frozen = tmp_path / "cache" / "frozen"
    assert len(list(frozen.glob(".building-*"))) == 1
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert kept_sets(tmp_path) == []
    began = time.monotonic()
    run = train(recipe)
    assert time.monotonic() - began < 60, "it waited for the dead"
    plain, _ = trained({"fit.cache_frozen": False})
    assert losses(run) == pytest.approx(losses(plain), rel=1e-5)
    assert list(frozen.glob(".building-*")) == []
    assert len(kept_sets(tmp_path)) == 1


@pytest.mark.parametrize(
    "pooling", [{"kind": "average", "size_px": 3, "ceil_mode": True}, {"kind": "max", "size_px": 3}]
)
def test_another_function_with_the_same_weights_and_shapes_is_computed_anew(
    pooling: dict[str, Any], tmp_path: Path
) -> None:
    # 8 pixels give 2 or, counting the last, partly filled window, 3; averaged as a whole both give vectors of 8.
    usual = {"kind": "average", "size_px": 3}
    blocks = [{"filters": 8, "pooling": usual}]
    network = {"blocks": blocks, "global_pooling": "average", "freeze": "all_but_head"}
    first, _ = trained(network=network)
    changed = {**network, "blocks": [{"filters": 8, "pooling": pooling}]}
    second, _ = trained(network=changed)
    plain, _ = trained({"fit.cache_frozen": False}, network=changed)
    assert len(kept_sets(tmp_path)) == 2
    assert losses(second) == pytest.approx(losses(plain), rel=1e-5)
    assert losses(second) != pytest.approx(losses(first), rel=1e-5)


def test_a_set_whose_bits_changed_under_the_same_time_is_made_anew(tmp_path: Path) -> None:
    run, _ = trained()
    (folder,) = kept_sets(tmp_path)
    values = folder / "values.npy"
    written = values.stat()
    content = bytearray(values.read_bytes())
    content[len(content) // 2] ^= 1
    values.write_bytes(content)
    os.utime(values, ns=(written.st_atime_ns, written.st_mtime_ns))
    watcher = Stages()
    again = train(RECIPE, watcher=watcher)
    assert losses(again) == losses(run)
    # That it has to be computed shows only when it is read.
    count = run.summary.data.num_train + run.summary.data.num_validation
    assert watcher.seen[-1] == ("frozen layers, pictures", count, count)
    content[len(content) // 2] ^= 1
    assert values.read_bytes() == content


def test_a_damaged_set_is_made_anew(tmp_path: Path) -> None:
    first, _ = trained()
    (folder,) = kept_sets(tmp_path)
    values = folder / "values.npy"
    values.write_bytes(values.read_bytes()[:-100])
    second, notes = trained()
    assert len(notes) == 1
    assert (first.path / "history.jsonl").read_bytes() == (second.path / "history.jsonl").read_bytes()


def test_with_progressive_sizes_frozen_layers_see_each_size_and_keep_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    original = Trainer.take_step

    def watched(self: Trainer, batch: Batch) -> Any:
        sizes.append(batch.images.shape[-1])
        return original(self, batch)

    monkeypatch.setattr(Trainer, "take_step", watched)
    network = {**RECIPE["network"], "global_pooling": "average"}
    progressive = {"fit.progressive_sizes": [{"epochs": 1, "size_px": 6}]}
    run, notes = trained(progressive, network=network)
    steps = len(sizes) // 2
    assert sizes == [6] * steps + [8] * steps
    assert notes == ["The frozen layers are computed in each epoch, as the pictures' size changes."]
    assert kept_sets(tmp_path) == []
    plain, _ = trained({**progressive, "fit.cache_frozen": False}, network=network)
    assert (run.path / "history.jsonl").read_bytes() == (plain.path / "history.jsonl").read_bytes()
