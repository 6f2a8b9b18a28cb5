from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from conviction.augment import build_augmentations
from conviction.augment.geometric import FlipConfig
from conviction.core import rng
from conviction.core.records import EpochRecord
from conviction.data.standardize import Standardization
from conviction.data.stream import Stream
from conviction.fit import loop
from conviction.fit.loop import Trainer
from conviction.fit.loss import CrossEntropyConfig, build_loss
from conviction.fit.optimizer import SgdConfig, build_optimizer
from conviction.fit.plain_optimizer import step
from conviction.fit.schedule import Shape
from conviction.nets import BlocksConfig, build_network
from conviction.predict import predict
from small_training import (
    IMAGES,
    LABELS,
    NUM_CLASSES,
    NUM_TRAIN,
    NUM_VALIDATION,
    PLAIN,
    RICH,
    equal,
    ignore,
    run,
    stream,
    trainer,
    weights,
)

FROZEN = Shape(lambda step: 0.0)


def before_each_step(monkeypatch: pytest.MonkeyPatch, look: Callable[[Optimizer], object]) -> None:
    """Let `look` see the optimiser when its gradients are ready."""

    def looked_at(optimizer: Optimizer) -> None:
        look(optimizer)
        step(optimizer)

    monkeypatch.setattr(loop, "step", looked_at)


class TestFigures:
    def test_an_epoch_is_that_of_a_plain_loop(self) -> None:
        found = trainer(optimizer=SgdConfig(learning_rate=0.05, momentum=0.9, weight_decay=0.01))
        network = copy.deepcopy(found.network)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01, fused=False)
        for epoch in (1, 2):
            order = torch.randperm(NUM_TRAIN, generator=rng.generator(0, "shuffle", epoch)).tolist()
            total_loss, num_correct = 0.0, 0
            for start in range(0, NUM_TRAIN, 8):
                chosen = order[start : start + 8]
                images = torch.tensor(IMAGES[chosen]).permute(0, 3, 1, 2) / 255 - 0.5
                labels = torch.tensor(LABELS[chosen])
                optimizer.zero_grad()
                logits = network(images)
                loss = nn.functional.cross_entropy(logits, labels)
                loss.backward()
                optimizer.step()
                total_loss += loss.item() * len(chosen)
                num_correct += int((logits.argmax(dim=1) == labels).sum())
            record, _ = found.train_epoch(epoch, ignore)
            assert record.train is not None
            assert record.train.loss == pytest.approx(total_loss / NUM_TRAIN, rel=1e-5)
            assert (record.train.accuracy, record.train.count) == (num_correct / NUM_TRAIN, NUM_TRAIN)
            for mine, expected in zip(weights(found.network), weights(network), strict=True):
                torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)

    def test_the_validation_is_of_the_epochs_last_weights(self) -> None:
        found = trainer(RICH)
        record = run(found)[-1]
        with torch.no_grad():
            rows = slice(NUM_TRAIN, None)
            logits = found.network.eval()(torch.tensor(IMAGES[rows]).permute(0, 3, 1, 2) / 255 - 0.5)
            loss = nn.functional.cross_entropy(logits, torch.tensor(LABELS[rows]))
        assert record.validation.loss == pytest.approx(loss.item(), rel=1e-5)
        assert record.validation.accuracy == (logits.argmax(dim=1).numpy() == LABELS[rows]).mean()
        assert record.validation.count == NUM_VALIDATION

    def test_before_training_an_indifferent_network_costs_ln_k(self) -> None:
        found = trainer()
        nn.init.zeros_(found.network.classifier.weight)
        nn.init.zeros_(found.network.classifier.bias)
        record, timing = found.epoch_zero()
        assert record.validation.loss == pytest.approx(math.log(NUM_CLASSES), abs=1e-7)
        assert (record.epoch, record.train, record.train_fixed) == (0, None, None)
        assert (timing.train_s, timing.images_per_second) == (0, 0)

    def test_a_short_last_batch_counts_by_its_images(self) -> None:
        # Labels 0, 0, 0, 1, 1 in batches of 3 and 2, probabilities 1/4 and 3/4: a mean of the batches' means would be
        # off by at least 1/60 of ln 3 whatever the order.
        images, labels = np.zeros((5, 1, 1, 1), np.uint8), np.array([0, 0, 0, 1, 1])
        network = build_network(BlocksConfig(), (1, 1, 1), 2)
        with torch.no_grad():
            network.classifier.weight.zero_()
            network.classifier.bias.copy_(torch.tensor([0.0, math.log(3)]))
        few = Stream(images, labels, np.arange(5), Standardization((0.0,), (1.0,)), 3)
        found = Trainer(
            network, build_optimizer(SgdConfig(), network), FROZEN, build_loss(CrossEntropyConfig()), few, few, seed=0
        )
        assert few.num_batches == 2
        record, _ = found.train_epoch(1, ignore)
        assert record.train is not None
        expected = (3 * math.log(4) + 2 * math.log(4 / 3)) / 5
        assert record.train.loss == pytest.approx(expected, abs=1e-6)
        assert record.train.accuracy == 2 / 5
        assert record.validation.loss == pytest.approx(expected, abs=1e-6)

    def test_training_figures_hold_the_smoothing_and_validation_figures_do_not(self) -> None:
        plain, smooth = trainer(schedule=FROZEN), trainer(schedule=FROZEN)
        smooth.loss = build_loss(CrossEntropyConfig(label_smoothing=0.5))
        first, second = run(plain, 1)[0], run(smooth, 1)[0]
        assert first.validation == second.validation
        assert first.train.loss != pytest.approx(second.train.loss, rel=1e-3)

    def test_dropout_makes_the_two_training_figures_differ(self) -> None:
        dropped = {"blocks": [{"filters": 8, "dropout": 0.6}]}
        record = run(trainer(dropped, schedule=FROZEN, measure_train_fixed=True), 1)[0]
        assert abs(record.train.loss - record.train_fixed.loss) > 0.001
        record = run(trainer(PLAIN, schedule=FROZEN, measure_train_fixed=True), 1)[0]
        assert record.train.loss == pytest.approx(record.train_fixed.loss, rel=1e-6)
        assert record.train.accuracy == record.train_fixed.accuracy

    def test_fixed_figures_see_the_pictures_without_augmentation(self) -> None:
        flip = build_augmentations([FlipConfig(p=1)], (1, 8, 8), 10)
        plain = run(trainer(schedule=FROZEN, measure_train_fixed=True), 1)[0]
        flipped = run(trainer(schedule=FROZEN, measure_train_fixed=True, augment=flip), 1)[0]
        assert flipped.train_fixed == plain.train_fixed
        assert flipped.validation == plain.validation
        assert flipped.train.loss != plain.train.loss

    def test_it_learns(self) -> None:
        records = run(trainer(PLAIN), 12)
        assert records[-1].validation.accuracy > 0.9
        assert records[-1].validation.loss < records[0].validation.loss

    def test_timing(self) -> None:
        _, timing = trainer().train_epoch(1, ignore)
        assert timing.images_per_second == pytest.approx(NUM_TRAIN / timing.train_s)
        assert timing.validation_s > 0
        assert timing.peak_memory_bytes > 1_000_000


class TestLearningRate:
    def test_the_record_has_the_last_steps_rate(self) -> None:
        # 50 pictures in batches of 8 are 7 steps: the last steps of the epochs are 6 and 13.
        found = trainer(schedule=Shape(lambda step: 1 / (1 + step)), optimizer=SgdConfig(learning_rate=0.1))
        assert found.epoch_zero()[0].learning_rate == pytest.approx(0.1)
        assert [record.learning_rate for record in run(found)] == pytest.approx([0.1 / 7, 0.1 / 14])

    def test_every_step_and_every_group_has_the_schedules_rate(self, monkeypatch: pytest.MonkeyPatch) -> None:
        config = SgdConfig(learning_rate=0.1, weight_decay=0.1, decay_biases_and_norms=False)
        found = trainer(schedule=Shape(lambda step: 0.5**step), optimizer=config)
        rates: list[list[float]] = []
        before_each_step(monkeypatch, lambda optimizer: rates.append([group["lr"] for group in optimizer.param_groups]))
        run(found)
        assert rates == [[0.1 * 0.5**step] * 2 for step in range(14)]

    def test_the_schedule_hears_of_each_epoch_once(self) -> None:
        class Listening(Shape):
            heard: list[int] = []

            def observe(self, record: EpochRecord) -> None:
                self.heard.append(record.epoch)

        found = trainer(schedule=Listening(lambda step: 1.0))
        found.epoch_zero()
        run(found, 3)
        assert Listening.heard == [1, 2, 3]


class TestClipping:
    def largest_norm(self, clip: float | None) -> float:
        found = trainer(gradient_clip_norm=clip)
        norms: list[float] = []

        def measure(optimizer: Optimizer) -> None:
            gradients = [parameter.grad.flatten() for parameter in found.network.parameters()]
            norms.append(torch.cat(gradients).norm().item())

        with pytest.MonkeyPatch.context() as monkeypatch:
            before_each_step(monkeypatch, measure)
            run(found)
        return max(norms)

    def test_it_bounds_the_norm_of_all_gradients_together(self) -> None:
        assert self.largest_norm(None) > 0.2
        assert self.largest_norm(0.1) == pytest.approx(0.1, rel=1e-4)

    def test_it_leaves_small_gradients_alone(self) -> None:
        free, clipped = trainer(), trainer(gradient_clip_norm=1e6)
        run(free)
        run(clipped)
        assert equal(free.network, clipped.network)


class TestRandomNumbers:
    def test_the_seed_decides_every_bit(self) -> None:
        flip = build_augmentations([FlipConfig()], (1, 8, 8), 10)
        first, same, other = (trainer(RICH, seed=seed, augment=flip) for seed in (1, 1, 2))
        assert run(first) == run(same)
        assert equal(first.network, same.network)
        run(other)
        assert not equal(first.network, other.network)

    def test_an_epoch_does_not_depend_on_what_was_drawn_before(self) -> None:
        whole, resumed = trainer(RICH), trainer(RICH)
        run(whole, 1)
        resumed.network.load_state_dict(whole.network.state_dict())
        resumed.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
        whole.train_epoch(2, ignore)
        torch.rand(17)
        resumed.train_epoch(2, ignore)
        assert equal(whole.network, resumed.network)

    def test_each_epoch_drops_other_units(self) -> None:
        found = trainer({"blocks": [{"filters": 8, "dropout": 0.6}]}, schedule=FROZEN)
        # One picture again and again: its order says nothing, and the weights stand still.
        found.train = stream(np.zeros(NUM_TRAIN, np.int64), 8)
        first, second = run(found)
        assert first.train.loss != second.train.loss

    def test_torchs_own_generator_stays_as_it_was(self) -> None:
        before = torch.get_rng_state()
        found = trainer(RICH, augment=build_augmentations([FlipConfig()], (1, 8, 8), 10))
        found.epoch_zero()
        run(found)
        assert torch.equal(torch.get_rng_state(), before)

    def test_it_stays_so_after_an_exception(self) -> None:
        def stop(done: int, steps: int) -> None:
            raise KeyboardInterrupt

        before = torch.get_rng_state()
        with pytest.raises(KeyboardInterrupt):
            trainer(RICH).train_epoch(1, stop)
        assert torch.equal(torch.get_rng_state(), before)

    def test_measuring_the_training_split_changes_no_weight(self) -> None:
        plain, measured = trainer(RICH), trainer(RICH, measure_train_fixed=True)
        run(plain)
        run(measured)
        assert equal(plain.network, measured.network)


def test_steps_are_told_one_by_one() -> None:
    heard: list[tuple[int, int]] = []
    trainer().train_epoch(1, lambda done, steps: heard.append((done, steps)))
    assert heard == [(done, 7) for done in range(1, 8)]


def test_bfloat16_computes_nearly_the_same() -> None:
    found = trainer(RICH, precision="bfloat16")
    records = run(found, 3)
    assert all(parameter.dtype == torch.float32 for parameter in found.network.parameters())
    assert records[-1].train.loss == pytest.approx(run(trainer(RICH), 3)[-1].train.loss, rel=0.05)
    exact, rounded = (predict(found.network, found.validation, precision) for precision in ("float32", "bfloat16"))
    assert rounded.logits.dtype == torch.float32
    assert not torch.equal(exact.logits, rounded.logits)
    torch.testing.assert_close(rounded.logits, exact.logits, rtol=0.05, atol=0.05)
