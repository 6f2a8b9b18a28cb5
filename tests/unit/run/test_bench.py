"""`bench_machine` on ceilings that are given, so that what it counts can be worked out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

import conviction.run.bench as module
from conviction import ConvictionError
from conviction.core.bench_record import Ceiling, Rate, TrainingSpeed
from conviction.data.stream import Batch
from conviction.fit.loop import Trainer
from conviction.run.bench import bench_machine

SECONDS = 1.0
GIVEN = {"float32": 1e12, "bfloat16": 4e12}
# In float32 the convolution is faster than the matrix product, in bfloat16 slower; layouts differ.
CONVOLUTIONS = {"float32": 2e12, "bfloat16": 3e12}


def steady(value: float) -> Rate:
    return Rate(value, value, value, 3)


@pytest.fixture(autouse=True)
def given_ceilings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    found = [Ceiling("matrix product", name, "", "8×8", steady(flops)) for name, flops in GIVEN.items()]
    for name, flops in CONVOLUTIONS.items():
        found.append(Ceiling("convolution", name, "NCHW", "8", steady(flops)))
        found.append(Ceiling("convolution", name, "channels_last", "8", steady(flops / 2)))
    monkeypatch.setattr(module, "measure_ceilings", lambda device, budget_s: tuple(found))
    monkeypatch.setattr(module, "measure_copying", lambda device, budget_s: steady(1.0))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_perceptron_counts_as_by_hand() -> None:
    found = bench_machine("perceptron", {"fit.batch_size": 32}, seconds=SECONDS).training
    # 784·300 + 300·10 products forward and for the weights, 300·10 for the hidden layer; two operations each.
    assert found.step_flop == 32 * 2 * (2 * 784 * 300 + 3 * 300 * 10)
    assert (found.num_parameters, found.input, found.batch_size) == (785 * 300 + 301 * 10, (1, 28, 28), 32)
    assert found.recipe == "perceptron"


def test_a_step_on_one_picture_counts_one(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    take_step = Trainer.take_step

    def watched(self: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(batch.labels))
        return take_step(self, batch)

    monkeypatch.setattr(Trainer, "take_step", watched)
    # Steps alone: in the loop the last picture of an epoch joins the one before.
    monkeypatch.setattr(module, "_run_loops", lambda trainer: [1.0])
    found = bench_machine("perceptron", {"fit.batch_size": 1}, seconds=SECONDS).training
    assert set(sizes) == {1}
    assert found.flop_per_image == found.step_flop == 2 * (2 * 784 * 300 + 3 * 300 * 10)


def test_epochs_are_alike_and_on_whole_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[object, ...]] = []
    take_step = Trainer.take_step

    def watched(self: Trainer, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        seen.append((tuple(batch.images.shape[2:]), all(0 <= rate < 1e-3 for rate in rates)))
        return take_step(self, batch)

    monkeypatch.setattr(Trainer, "take_step", watched)
    bench_machine("speed-cifar10-quick", {"fit.batch_size": 8}, seconds=SECONDS)
    # One for each size of pictures, and whether no rate is negative or large enough to spoil a weight.
    assert set(seen) == {((32, 32), True)}


def test_the_ceiling_is_the_fastest_operation_in_the_precision() -> None:
    def measured(precision: str) -> TrainingSpeed:
        return bench_machine("lenet5", {"fit.precision": precision, "fit.batch_size": 8}, seconds=SECONDS).training

    for precision, operation, flops in (
        ("float32", "convolution, NCHW", CONVOLUTIONS["float32"]),
        ("bfloat16", "matrix product", GIVEN["bfloat16"]),
    ):
        training = measured(precision)
        assert training.precision == precision
        assert (training.ceiling_operation, training.ceiling_flops) == (operation, flops)
        assert training.matrix_flops == GIVEN[precision]


def test_a_recipe_brings_its_augmentation_and_a_cut_counts_the_smaller_pictures() -> None:
    overrides = {"augment": [{"name": "crop_to", "size_px": 28}], "fit.batch_size": 4}
    assert bench_machine("alexnet-cifar10", overrides, seconds=SECONDS).training.input == (3, 28, 28)


def test_pictures_of_another_size_and_classes() -> None:
    small = {"fit.batch_size": 4}
    found = bench_machine({"network": "lenet5"}, small, input_shape=(1, 20, 20), num_classes=7, seconds=SECONDS)
    assert found.training.input == (1, 20, 20)
    # Maps of 20, 10, 6 and 3 pixels a side: 144 numbers for 120 units; the last layer has seven.
    assert found.training.num_parameters == 26 * 6 + 151 * 16 + 145 * 120 + 121 * 84 + 85 * 7


@pytest.mark.parametrize("rate", [1e30, 1e-3])
def test_random_labels_never_make_a_recipe_diverge(rate: float) -> None:
    overrides = {"optimizer.learning_rate": rate, "fit.batch_size": 16}
    assert bench_machine("digits", overrides, seconds=SECONDS).training.loop_images_per_s.median > 0


def test_whoever_wants_to_know_hears_what_is_measured() -> None:
    heard: list[str] = []
    bench_machine("perceptron", seconds=SECONDS, on_stage=heard.append)
    assert [stage.split(" of ")[-1] for stage in heard][-2:] == ["perceptron", "perceptron"]
    assert len(heard) == 4


def test_a_step_that_cannot_be_compiled_is_not_measured_as_if_it_were(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(trainer: Trainer) -> None:
        trainer.note("There is no compiler.")

    monkeypatch.setattr(Trainer, "compile_step", fail)
    with pytest.raises(ConvictionError, match=r"`fit.compile: fused` cannot be measured here\. There is no compiler\."):
        bench_machine("perceptron", {"fit.compile": "fused"}, seconds=SECONDS)


@pytest.mark.parametrize("seconds", [0.0, 0.99, 3601.0, float("nan")])
def test_a_senseless_time_is_refused(seconds: float) -> None:
    with pytest.raises(ConvictionError, match="1 <= seconds <= 3600"):
        bench_machine("perceptron", seconds=seconds)


def test_a_recipe_without_a_size_is_refused() -> None:
    with pytest.raises(ConvictionError, match="Give --input"):
        bench_machine({"network": "lenet5"}, seconds=SECONDS)


def test_a_network_of_torchvisions_needs_no_recipe() -> None:
    # Its own pictures are of 224 pixels, and a step takes too long for a test.
    found = bench_machine("torchvision:squeezenet1_1", {"fit.batch_size": 1}, input_shape=(3, 32, 32), seconds=SECONDS)
    # 722,496 without its last convolution, of 512 channels to 10 classes.
    assert found.training.num_parameters == 722_496 + 512 * 10 + 10
    _, shape, classes = module._resolved("torchvision:squeezenet1_1", {}, None, None)
    assert (shape, classes) == ((3, 224, 224), 10)
    with pytest.raises(ConvictionError, match="Did you mean 'squeezenet1_0'"):
        bench_machine("torchvision:squeezenet1_2x", seconds=SECONDS)
    with pytest.raises(ConvictionError, match="torchvision:resnet18 is a network: `network` cannot name another one"):
        bench_machine("torchvision:resnet18", {"network": "digits"}, seconds=SECONDS)


def test_an_unknown_name_is_answered_with_presets_too() -> None:
    with pytest.raises(ConvictionError, match="Did you mean 'perceptron'"):
        bench_machine("perceptrom", seconds=SECONDS)
