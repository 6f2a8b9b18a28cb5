"""The ingredients of the speed recipes together, in a training as a user starts it."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

import conviction
from conviction import Run
from conviction.core.records import EpochRecord
from conviction.fit.checkpoint import load_tensors
from conviction.fit.watcher import Watcher
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.recipe import load_recipe
from conviction.run.starting import network_to_begin_with

DIRAC = {
    "bias": False,
    "initialization": "dirac",
    "activation": "gelu",
    "normalization": "batch",
    "normalization_scale": False,
    "normalization_momentum": 0.4,
}
WHITENING = {
    "filters": 8,
    "kernel_px": 2,
    "padding_px": 0,
    "activation": "gelu",
    "initialization": "whitening",
    "frozen": True,
    "bias_epochs": 2,
}
LOOKAHEAD = {"every_steps": 3, "decay": 0.6, "decay_power": 1, "start_epochs": 1}
SGD = {"name": "sgd", "learning_rate": 0.5, "nesterov": True, "norm_bias_rate": 16, "weight_decay": 0.001}
MUON = {"name": "muon", "learning_rate": 0.05, "normalize_weights": True, "norm_bias_rate": 4}
SETTINGS: dict[str, Any] = {
    "network": {
        "name": "blocks",
        "blocks": [WHITENING, {"filters": 12, **DIRAC, "pooling": {}}],
        "global_pooling": "max",
        "classifier_bias": False,
        "logit_scale": 0.2,
    },
    "augment": ["alternating_flip"],
    "schedule": "triangular",
    "fit": {"epochs": 4, "batch_size": 200},
}
KERNELS, BIAS = "blocks.block1.convolution.weight", "blocks.block1.convolution.bias"


@pytest.fixture(params=[SGD, MUON], ids=lambda optimizer: optimizer["name"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {**SETTINGS, "optimizer": {**request.param, "lookahead": LOOKAHEAD}}


def prepared(settings: dict[str, Any]) -> Prepared:
    recipe = load_recipe("digits", settings)
    return prepare(recipe, Machine.for_recipe(recipe))


class Interrupter(Watcher):
    """Presses Ctrl-C once an epoch has ended."""

    def __init__(self, epoch: int) -> None:
        self._epoch = epoch

    def epoch(self, record: EpochRecord, timing: object, is_best: bool) -> None:
        if record.epoch == self._epoch:
            raise KeyboardInterrupt


class Keeper(Watcher):
    """Keeps the weights of every epoch's end."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self.weights: list[dict[str, Tensor]] = []

    def epoch(self, record: EpochRecord, timing: object, is_best: bool) -> None:
        self.weights.append(load_tensors(Run.open("latest", self._home).folder.weights("last"))[0])


@pytest.mark.parametrize("epoch", [0, 1, 2, 3])
def test_an_interrupted_run_ends_with_the_same_bits(settings: dict[str, Any], epoch: int, tmp_path: Path) -> None:
    # Epochs 1 and 2 train the bias, 2 to 4 look ahead: each boundary is resumed across.
    whole = conviction.train("digits", settings, home=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        conviction.train("digits", settings, home=tmp_path / "stopped", watcher=Interrupter(epoch))
    resumed = conviction.resume("latest", home=tmp_path / "stopped")
    for name in ("history.jsonl", "best.safetensors", "last.safetensors", "filters.safetensors"):
        assert (resumed.path / name).read_bytes() == (whole.path / name).read_bytes(), name


def test_a_resumed_run_has_its_kernels_from_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = conviction.train("digits", SETTINGS, home=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        conviction.train("digits", SETTINGS, home=tmp_path / "stopped", watcher=Interrupter(1))

    def otherwise(network: nn.Module, batches: object) -> None:
        nn.init.zeros_(network.get_parameter(KERNELS))

    monkeypatch.setattr("conviction.run.starting.initialize_from_images", otherwise)
    resumed = conviction.resume("latest", home=tmp_path / "stopped")
    assert (resumed.path / "last.safetensors").read_bytes() == (whole.path / "last.safetensors").read_bytes()


def test_what_is_frozen_stays_and_the_rest_trains(settings: dict[str, Any], tmp_path: Path) -> None:
    keeper = Keeper(tmp_path)
    run = conviction.train("digits", settings, home=tmp_path, watcher=keeper)
    kernels, bias = ([weights[name] for weights in keeper.weights] for name in (KERNELS, BIAS))
    assert all(torch.equal(kernel, kernels[0]) for kernel in kernels)
    assert [not torch.equal(a, b) for a, b in itertools.pairwise(bias)] == [True, True, False, False]
    last = keeper.weights[-1]
    assert torch.equal(last["blocks.block2.normalization.weight"], torch.ones(12))
    still = [name for name, tensor in last.items() if torch.equal(tensor, keeper.weights[-2][name])]
    assert still == [BIAS, KERNELS, "blocks.block2.normalization.weight"]
    # Chance is 10 %, and the network has a few hundred weights.
    assert run.best is not None
    assert run.best.validation.accuracy > 0.2


def test_patches_are_of_the_training_split_as_the_network_sees_it() -> None:
    found = prepared(SETTINGS)
    kernels = network_to_begin_with(found, Watcher()).get_parameter(KERNELS).detach().numpy()
    pixels = found.pack.images[found.splits.train].astype(np.float64)[..., 0] / 255
    seen = (pixels - pixels.mean()) / pixels.std()
    patches = sliding_window_view(seen, (2, 2), axis=(1, 2)).reshape(-1, 4)
    variances, directions = np.linalg.eigh(np.cov(patches, rowvar=False, ddof=0))
    expected = (directions / np.sqrt(variances + 5e-4)).T[::-1]
    half = kernels[:4].reshape(4, 4)
    np.testing.assert_allclose(np.abs(half), np.abs(expected), rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.abs((half * expected).sum(axis=1)), (expected**2).sum(axis=1), rtol=1e-4)
    assert np.array_equal(kernels[4:], -kernels[:4])


def test_a_large_training_split_gives_a_sample_spread_over_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("conviction.run.prepared._SAMPLE_SIZE", 5)
    found = prepared(SETTINGS)
    rows = found.splits.train
    # 1,079 pictures: the first, the last, and three between them.
    expected = next(iter(found.stream(rows[[0, 270, 539, 808, 1078]]).in_order())).images
    (images,) = found.sample_of_training()
    assert torch.equal(images, expected)


@pytest.mark.parametrize("name", ["speed-cifar10", "speed-cifar10-quick"])
def test_the_recipes_hold_the_published_values_of_muon(name: str) -> None:
    recipe = load_recipe(name)
    optimizer: Any = recipe.optimizer
    assert (optimizer.momentum, optimizer.num_steps) == (0.6, 3)
    assert (optimizer.nesterov, optimizer.normalize_weights, optimizer.rate_adjustment) == (True, True, "none")
    # For 2,000 images 0.67 where the classifier's weights have deviation 1; torch draws them from ±1/√256. With the
    # batch the classifier's rate goes by the root.
    rate = 0.67 * 2000 * (1 / 256 / 3)
    assert optimizer.rest_learning_rate == pytest.approx(rate * (recipe.fit.batch_size / 2000) ** 0.5, rel=0.03)
    assert optimizer.bias_rate == optimizer.norm_bias_rate == pytest.approx(0.053 * 2000 / rate, rel=0.01)
    assert optimizer.rest_weight_decay == pytest.approx(2e-6 * 2000 / rate, rel=0.01)


def test_the_guide_shows_the_recipe_of_sgd_as_it_is() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/speed-recipes.md").read_text()
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "lookahead:" in block]
    assert load_recipe(yaml.safe_load(text)) == load_recipe("speed-cifar10-sgd")


def test_the_recipe_of_sgd_holds_the_published_values() -> None:
    recipe = load_recipe("speed-cifar10-sgd")
    optimizer: Any = recipe.optimizer
    # Published in decoupled form: 11.5 for 1,024 images and a sum of losses, over 1 + 1 / (1 − 0.85) for the momentum.
    assert recipe.fit.batch_size == 1024
    assert optimizer.learning_rate == pytest.approx(11.5 / (1 + 1 / (1 - 0.85)))
    assert optimizer.weight_decay == pytest.approx(0.0153 / 11.5, rel=1e-3)
    assert (optimizer.momentum, optimizer.nesterov, optimizer.norm_bias_rate) == (0.85, True, 64)
    assert optimizer.lookahead.decay == pytest.approx(0.95**5, rel=1e-3)
    assert (optimizer.lookahead.every_steps, optimizer.lookahead.decay_power) == (5, 3)


@pytest.mark.parametrize(
    ("name", "narrow", "wide"),
    [("speed-cifar10", 64, 256), ("speed-cifar10-quick", 32, 128), ("speed-cifar10-sgd", 64, 256)],
)
def test_the_recipes_have_the_published_shape_and_augmentation(name: str, narrow: int, wide: int) -> None:
    recipe = load_recipe(name)
    network: Any = recipe.network
    assert [block.filters for block in network.blocks] == [24, narrow, narrow, wide, wide, wide, wide]
    assert [part.name for part in recipe.augment] == ["random_crop", "alternating_flip"]
