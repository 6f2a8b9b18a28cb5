from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conviction.core.device import MemoryFormat
from conviction.nets import PRESETS, build_network
from conviction.nets.freezing import is_frozen
from conviction.predict import autocast
from conviction.run import fastest
from conviction.run.fastest import LEAST_GAIN, LEAST_STEPS, Way, choose, fewer_threads, is_worth_a_step, settle, ways
from conviction.run.prepared import Machine, Prepared, prepare
from conviction.run.recipe import load_recipe
from conviction.run.starting import build_trainer

CPU = torch.device("cpu")
USUAL = Machine(CPU, "float32", 1)


def machines(fit: dict[str, Any], *, bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    for module in ("conviction.core.device", "conviction.run.fastest"):
        monkeypatch.setattr(f"{module}.has_bfloat16", lambda device: bfloat16)
    recipe = load_recipe("digits", {f"fit.{key}": value for key, value in fit.items()})
    return [(machine.precision, machine.memory_format) for machine in ways(recipe, Machine.for_recipe(recipe))]


@pytest.mark.parametrize(
    ("bfloat16", "fit", "expected"),
    [
        (False, {}, ["float32 channels_last", "float32 contiguous"]),
        (
            True,
            {},
            ["bfloat16 channels_last", "bfloat16 contiguous", "float32 channels_last", "float32 contiguous"],
        ),
        (True, {"precision": "float32"}, ["float32 channels_last", "float32 contiguous"]),
        (False, {"precision": "bfloat16"}, ["bfloat16 channels_last", "bfloat16 contiguous"]),
        (True, {"memory_format": "contiguous"}, ["bfloat16 contiguous", "float32 contiguous"]),
        (True, {"precision": "float32", "memory_format": "contiguous"}, ["float32 contiguous"]),
    ],
)
def test_what_a_recipe_leaves_open(
    bfloat16: bool, fit: dict[str, Any], expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machines(fit, bfloat16=bfloat16, monkeypatch=monkeypatch)
    assert [" ".join(way) for way in found] == expected


@given(steps=st.lists(st.floats(1e-3, 10), min_size=1, max_size=4))
def test_another_way_has_to_gain_a_tenth(steps: list[float]) -> None:
    measured = [Way(replace(USUAL, threads=number), step) for number, step in enumerate(steps)]
    chosen = choose(measured).step_s
    assert chosen in (steps[0], min(steps))
    assert chosen <= LEAST_GAIN * min(steps)
    assert chosen == steps[0] or chosen * LEAST_GAIN < steps[0]


@pytest.fixture
def long_training() -> Prepared:
    """Digits in 17 steps an epoch, for just so many epochs that measuring pays."""
    recipe = load_recipe("digits", {"fit.epochs": -(-LEAST_STEPS // 17), "fit.precision": "float32"})
    found = prepare(recipe, Machine.for_recipe(recipe))
    assert found.training_stream().num_batches == 17
    return found


def fake_times(monkeypatch: pytest.MonkeyPatch, seconds: dict[MemoryFormat, float]) -> list[MemoryFormat]:
    """Replaces the measuring; what is measured is listed."""
    measured: list[MemoryFormat] = []

    def step_s(prepared: Prepared, build: Callable[[Prepared], Any]) -> float:
        measured.append(prepared.machine.memory_format)
        return seconds[prepared.machine.memory_format]

    monkeypatch.setattr(fastest, "_step_s", step_s)
    return measured


def unexpected(note: str) -> None:
    raise AssertionError(note)


def test_the_fastest_is_measured_once_and_remembered(long_training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    measured, notes = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.25}), []
    settled = settle(long_training, build_trainer, notes.append)
    assert settled == replace(long_training, machine=replace(long_training.machine, memory_format="contiguous"))
    # Another than the usual way looks faster: once more each.
    assert measured == ["channels_last", "contiguous"] * 2
    assert notes == [
        "Measured once for this network on this machine, a step: float32, channels_last 500.0 ms; float32, contiguous "
        "250.0 ms."
    ]
    assert settle(long_training, build_trainer, unexpected) == settled
    assert len(measured) == 4


def test_other_work_during_one_measurement_decides_nothing(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remembered, it would slow down every later training."""
    seconds = iter([0.5, 0.25, 0.2, 0.25])
    monkeypatch.setattr(fastest, "_step_s", lambda prepared, build: next(seconds))
    notes: list[str] = []
    assert settle(long_training, build_trainer, notes.append).machine.memory_format == "channels_last"
    assert notes[0].endswith("channels_last 200.0 ms; float32, contiguous 250.0 ms.")


@pytest.mark.parametrize(("step_s", "num_steps"), [(0.001, 100), (0.01, 10), (0.5, 5), (1.5, 3), (9.0, 2)])
def test_so_many_steps_are_measured(step_s: float, num_steps: int) -> None:
    taken = 0
    while is_worth_a_step(taken, taken * step_s * 1.0001):
        taken += 1
    assert taken == num_steps


def test_each_way_gives_its_memory_back(long_training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.5})
    monkeypatch.setattr(fastest, "give_back_freed_memory", lambda: done.append("given back"))
    settle(long_training, build_trainer, lambda note: None)
    assert done == ["channels_last", "given back", "contiguous", "given back"]


@pytest.fixture
def shared_units(long_training: Prepared, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """As on eight cores, two of which share their arithmetic units each; the threads of this process stay."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(fastest, "num_physical_cores", lambda: 4)
    monkeypatch.setattr(Machine, "engage", lambda self: None)
    return replace(long_training, machine=replace(long_training.machine, threads=8))


@pytest.mark.parametrize(("with_four", "threads"), [(0.2, 4), (0.24, 8)])
def test_where_cores_share_their_units_fewer_threads_are_tried_in_the_fastest_way(
    with_four: float, threads: int, shared_units: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[tuple[str, int]] = []
    seconds = {("channels_last", 8): 0.5, ("contiguous", 8): 0.25, ("contiguous", 4): with_four}

    def step_s(prepared: Prepared, build: Callable[[Prepared], Any]) -> float:
        tried.append((prepared.machine.memory_format, prepared.machine.threads))
        return seconds[tried[-1]]

    monkeypatch.setattr(fastest, "_step_s", step_s)
    notes: list[str] = []
    settled = settle(shared_units, build_trainer, notes.append)
    usual, fewer = [("channels_last", 8), ("contiguous", 8)], [("contiguous", 8), ("contiguous", 4)]
    assert tried == usual * 2 + fewer * (2 if threads == 4 else 1)
    assert (settled.machine.memory_format, settled.machine.threads) == ("contiguous", threads)
    assert notes[0].endswith(f"contiguous 250.0 ms; float32, contiguous {1000 * with_four:.1f} ms with 4 threads.")
    assert settle(shared_units, build_trainer, unexpected) == settled


def test_fewer_threads_are_tried_where_nothing_else_is_open(
    shared_units: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(shared_units.recipe, {"fit.memory_format": "contiguous", "fit.compile": "none"})
    prepared = replace(shared_units, recipe=recipe)
    monkeypatch.setattr(fastest, "_step_s", lambda prepared, build: 1 / prepared.machine.threads)
    assert settle(prepared, build_trainer, lambda note: None).machine.threads == 8
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert settle(prepared, build_trainer, unexpected) is prepared
    monkeypatch.delenv("OMP_NUM_THREADS")
    told = load_recipe(recipe, {"fit.threads": 8})
    assert fewer_threads(told, prepared.machine) is None
    assert fewer_threads(recipe, replace(prepared.machine, num_processes=2)) is None
    assert fewer_threads(recipe, replace(prepared.machine, device=torch.device("cuda"))) is None
    assert fewer_threads(recipe, replace(prepared.machine, threads=4)) is None
    assert fewer_threads(recipe, prepared.machine) == 4


@pytest.mark.parametrize(
    "change", [{"network": "perceptron"}, {"fit.batch_size": 60}, {"optimizer.name": "adam"}, {"fit.threads": 3}]
)
def test_another_training_is_measured_anew(
    change: dict[str, Any], long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.5})
    settle(long_training, build_trainer, lambda note: None)
    recipe = load_recipe(long_training.recipe, change)
    settle(replace(long_training, recipe=recipe, machine=Machine.for_recipe(recipe)), build_trainer, lambda note: None)
    assert len(measured) == 4
    monkeypatch.setattr(torch, "__version__", "another")
    settle(long_training, build_trainer, lambda note: None)
    assert len(measured) == 6


def test_other_weights_are_measured_no_more(long_training: Prepared, monkeypatch: pytest.MonkeyPatch) -> None:
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.5})
    settle(long_training, build_trainer, lambda note: None)
    change = {"network.weights": "some.pth", "network.weights_sha256": "0" * 64}
    other = replace(long_training, recipe=load_recipe(long_training.recipe, change))
    settle(other, build_trainer, lambda note: None)
    assert len(measured) == 2


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{}",
        "[1]",
        '{"precision": "float32"}',
        '{"precision": "float32", "memory_format": 5, "step_s": 1}',
        '{"precision": "float32", "memory_format": "contiguous", "step_s": "fast"}',
        "not a number",
    ],
)
def test_what_is_damaged_is_measured_anew(
    damage: str, long_training: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.25})
    settle(long_training, build_trainer, lambda note: None)
    (kept,) = (tmp_path / "cache" / "fastest").iterdir()
    assert json.loads(kept.read_text())["memory_format"] == "contiguous"
    whole = json.dumps({**json.loads(kept.read_text()), "step_s": float("nan")})
    kept.write_text(whole if damage == "not a number" else damage)
    assert settle(long_training, build_trainer, lambda note: None).machine.memory_format == "contiguous"
    assert len(measured) == 8


def test_what_is_told_of_another_machine_is_not_believed(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.25})
    settle(long_training, build_trainer, lambda note: None)
    (kept,) = (tmp_path / "cache" / "fastest").iterdir()
    found = json.loads(kept.read_text())
    kept.write_text(json.dumps({**found, "about": {**found["about"], "device": "other"}}))
    settle(long_training, build_trainer, lambda note: None)
    assert len(measured) == 8


def test_of_several_processes_the_part_of_one_is_measured(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def take_step(trainer: Any, batch: Any) -> float:
        counts.append(len(batch.images))
        assert len(batch.labels) == len(batch.targets) == len(batch.images)
        return 0.01

    monkeypatch.setattr(fastest, "take_step", take_step)
    settle(long_training, build_trainer, lambda note: None)
    assert set(counts) == {64}
    counts.clear()
    shared = replace(long_training, machine=replace(long_training.machine, num_processes=3))
    settle(shared, build_trainer, lambda note: None)
    # 64 images are parted into 22, 21 and 21.
    assert set(counts) == {22}


def test_where_nothing_can_be_kept_it_is_measured_each_time(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cache" / "fastest").write_text("in the way")
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.25})
    for _ in range(2):
        assert settle(long_training, build_trainer, lambda note: None).machine.memory_format == "contiguous"
    assert len(measured) == 8


@pytest.mark.parametrize("fit", [{"fit.epochs": 29}, {"fit.memory_format": "contiguous", "fit.compile": "none"}])
def test_a_short_training_and_a_settled_one_measure_nothing(fit: dict[str, Any], long_training: Prepared) -> None:
    recipe = load_recipe(long_training.recipe, fit)
    prepared = replace(long_training, recipe=recipe, machine=Machine.for_recipe(recipe))
    assert settle(prepared, build_trainer, unexpected) is prepared


def test_real_steps_are_measured_and_leave_no_trace(long_training: Prepared) -> None:
    """The network that is trained afterwards is the one that it would have been."""
    expected = build_trainer(long_training).network.state_dict()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    notes: list[str] = []
    settled = settle(long_training, build_trainer, notes.append)
    assert len(notes) == 1
    assert torch.equal(torch.get_rng_state(), before)
    found = build_trainer(settled).network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_ways_agree(name: str) -> None:
    preset = PRESETS[name]
    torch.manual_seed(0)
    network = build_network(preset.config, preset.input_shape, preset.num_classes).eval()
    images = torch.randn(4, *preset.input_shape)
    with torch.inference_mode():
        exact = network(images)
        largest = exact.abs().max()
        with autocast(CPU, "bfloat16"):
            assert (network(images).float() - exact).abs().max() <= 0.03 * largest
        network.to(memory_format=torch.channels_last)
        found = network(images.contiguous(memory_format=torch.channels_last))
        assert (found - exact).abs().max() <= 1e-5 * largest


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_the_ways_train_alike(name: str) -> None:
    """Gradients of a training step, of whatever layout and precision, beside contiguous ones in float64."""
    preset = PRESETS[name]

    def gradients(dtype: torch.dtype, memory_format: torch.memory_format, precision: str) -> torch.Tensor:
        torch.manual_seed(0)
        network = build_network(preset.config, preset.input_shape, preset.num_classes)
        network.to(dtype).train().to(memory_format=memory_format)
        images = torch.randn(8, *preset.input_shape).to(dtype).contiguous(memory_format=memory_format)
        torch.manual_seed(1)
        with autocast(CPU, precision):
            logits = network(images)
        logits = logits if dtype == torch.float64 else logits.float()
        torch.nn.functional.cross_entropy(logits, torch.arange(8) % preset.num_classes).backward()
        return torch.cat([weight.grad.flatten() for weight in network.parameters() if weight.grad is not None]).double()

    exact = gradients(torch.float64, torch.contiguous_format, "float32")
    for dtype, memory_format, precision, within in (
        (torch.float64, torch.channels_last, "float32", 1e-12),
        (torch.float32, torch.contiguous_format, "float32", 1e-3),
        (torch.float32, torch.channels_last, "float32", 1e-3),
        (torch.float32, torch.contiguous_format, "bfloat16", 0.3),
        (torch.float32, torch.channels_last, "bfloat16", 0.3),
    ):
        found = gradients(dtype, memory_format, precision)
        assert (found - exact).norm() <= within * exact.norm()


def frozen(prepared: Prepared, **settings: Any) -> Prepared:
    overrides = {"network.freeze": 1, "augment": [], **{f"fit.{key}": value for key, value in settings.items()}}
    return replace(prepared, recipe=load_recipe(prepared.recipe, overrides))


def test_frozen_layers_that_are_computed_once_count_once(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    once_s = {"channels_last": 102.0, "contiguous": 0.0}
    monkeypatch.setattr(fastest, "take_step", lambda trainer, batch: 0.01)
    monkeypatch.setattr(
        fastest, "sampled_rest", lambda trainer, prepared, num: (trainer, once_s[prepared.machine.memory_format])
    )
    notes: list[str] = []
    settled = settle(frozen(long_training), build_trainer, notes.append)
    assert settled.machine.memory_format == "contiguous"
    # 102 seconds over 30 epochs of 17 steps: 0.2 s a step.
    assert notes[0].endswith("float32, channels_last 210.0 ms; float32, contiguous 10.0 ms.")


@pytest.mark.parametrize(("cache_frozen", "is_cut"), [(True, True), (False, False)])
def test_what_is_measured_is_what_is_trained(
    cache_frozen: bool, is_cut: bool, long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[Any] = []

    def take_step(trainer: Any, batch: Any) -> float:
        measured.append((any(is_frozen(layer) for layer in trainer.network.modules()), batch.images.shape[1:]))
        return 0.01

    monkeypatch.setattr(fastest, "take_step", take_step)
    prepared = frozen(long_training, cache_frozen=cache_frozen)
    settle(prepared, build_trainer, lambda note: None)
    assert {has_frozen for has_frozen, _ in measured} == {not is_cut}
    assert all((shape == prepared.input_shape) != is_cut for _, shape in measured)


def test_frozen_layers_are_measured_anew_for_another_number_of_epochs(
    long_training: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = fake_times(monkeypatch, {"channels_last": 0.5, "contiguous": 0.5})
    for settings in ({}, {}, {"epochs": 60}, {"cache_frozen": False}, {"cache_frozen": False, "epochs": 60}):
        settle(frozen(long_training, **settings), build_trainer, lambda note: None)
    assert len(measured) == 2 * 3
