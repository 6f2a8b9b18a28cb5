from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from conviction.fit.lookahead import Lookahead, LookaheadConfig
from conviction.fit.optimizer import SgdConfig
from small_training import PLAIN, RICH, equal, run, trainer, weights


def scalar(value: float) -> nn.Module:
    network = nn.Linear(1, 1, bias=False)
    return set_to(network, value)


def set_to(network: nn.Module, value: float) -> nn.Module:
    with torch.no_grad():
        network.weight.fill_(value)
    return network


class TestByHand:
    def test_slow_weights_follow_and_fast_ones_start_from_them(self) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=2, decay=0.75), network, num_steps=6)
        lookahead.begin_epoch(1)
        found = []
        for step in range(1, 7):
            set_to(network, network.weight.item() + 1)
            lookahead.after_step(step)
            found.append(network.weight.item())
        # Every second step a quarter of the way from slow to fast: 0 → ¼·2, ½ → ½ + ¼·2, 1 → 1 + ¼·2.
        assert found == [1.0, 0.5, 1.5, 1.0, 2.0, 1.5]

    def test_the_decay_grows_with_the_share_of_steps(self) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=5, decay=0.8, decay_power=3), network, num_steps=10)
        lookahead.begin_epoch(1)
        set_to(network, 1.0)
        lookahead.after_step(5)
        # 0.8 · (5 / 10)³ = 0.1 of the slow 0 stays.
        assert network.weight.item() == pytest.approx(0.9)
        set_to(network, 1.9)
        lookahead.after_step(10)
        # 0.8 of the slow 0.9 and 0.2 of the fast 1.9.
        assert network.weight.item() == pytest.approx(0.8 * 0.9 + 0.2 * 1.9)

    def test_an_epoch_ends_with_the_slow_weights(self) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=2, decay=0.5), network, num_steps=10)
        lookahead.begin_epoch(1)
        for step, value in ((1, 1.0), (2, 4.0), (3, 9.0)):
            set_to(network, value)
            lookahead.after_step(step)
        lookahead.end_epoch()
        # Half of 0 and 4 after the second step; at the end half of that and 9.
        assert network.weight.item() == 5.5

    @pytest.mark.parametrize("every_steps", [5, 1000])
    def test_no_epoch_is_lost_where_its_steps_are_fewer(self, every_steps: int) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=every_steps), network, num_steps=9)
        found = []
        for epoch in (1, 2, 3):
            lookahead.begin_epoch(epoch)
            for step in range(3 * epoch - 2, 3 * epoch + 1):
                set_to(network, network.weight.item() + 1)
                lookahead.after_step(step)
            lookahead.end_epoch()
            found.append(network.weight.item())
        # Each epoch goes three ahead, and halfway back at its end. The fifth step lies within the second epoch, where
        # 1.5 → (1.5 + 3.5) / 2 = 2.5 → (2.5 + 3.5) / 2 = 3 comes to the same.
        assert found == [1.5, 3.0, 4.5]

    def test_an_epoch_that_ends_on_a_slow_step_adds_none(self) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=2), network, num_steps=2)
        lookahead.begin_epoch(1)
        for step in (1, 2):
            set_to(network, network.weight.item() + 1)
            lookahead.after_step(step)
        lookahead.end_epoch()
        assert network.weight.item() == 1.0

    def test_it_waits_for_its_epochs(self) -> None:
        network = scalar(0.0)
        lookahead = Lookahead(LookaheadConfig(every_steps=1, decay=0.5, start_epochs=2), network, num_steps=4)
        found = []
        for epoch in (1, 2, 3, 4):
            lookahead.begin_epoch(epoch)
            set_to(network, network.weight.item() + 1)
            lookahead.after_step(epoch)
            lookahead.end_epoch()
            found.append(network.weight.item())
        assert found == [1.0, 2.0, 2.5, 3.0]


def looking(network: nn.Module, **settings: float) -> Lookahead:
    return Lookahead(LookaheadConfig.model_validate({"every_steps": 3, **settings}), network, num_steps=14)


class TestInTraining:
    def test_a_decay_of_nothing_changes_nothing(self) -> None:
        # 7 steps an epoch, of which two are followed, and the last at the end.
        plain, slow = trainer(PLAIN), trainer(PLAIN)
        slow.lookahead = looking(slow.network, decay=0.0)
        for one in (plain, slow):
            run(one)
        for found, expected in zip(weights(slow.network), weights(plain.network), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_running_statistics_go_on_with_the_batches(self) -> None:
        # The slow weights stay, and each step starts from them: every batch sees the weights of the beginning.
        found, steady = trainer(RICH), trainer(RICH, optimizer=SgdConfig(learning_rate=1e-30))
        before = copy.deepcopy(dict(found.network.named_parameters()))
        found.lookahead = looking(found.network, every_steps=1, decay=1 - 1e-9)
        for one in (found, steady):
            run(one, epochs=1)
        for name, weight in found.network.named_parameters():
            torch.testing.assert_close(weight, before[name], rtol=1e-5, atol=1e-6)
        statistics = dict(found.network.named_buffers())
        assert any(name.endswith("running_var") for name in statistics)
        for name, expected in steady.network.named_buffers():
            torch.testing.assert_close(statistics[name], expected, rtol=1e-4, atol=1e-5)
        first = next(tensor for name, tensor in statistics.items() if name.endswith("running_var"))
        assert not torch.allclose(first, torch.ones_like(first))

    def test_it_steps_by_the_number_of_the_step_in_the_whole_training(self) -> None:
        found = trainer(PLAIN)
        found.lookahead = looking(found.network)
        steps: list[int] = []
        found.lookahead.after_step = steps.append  # type: ignore[method-assign]
        run(found)
        assert steps == list(range(1, 15))

    def test_going_on_from_the_weights_between_epochs_changes_no_bit(self) -> None:
        whole, second = trainer(RICH), trainer(RICH)
        for one in (whole, second):
            one.lookahead = looking(one.network, decay=0.6, decay_power=1)
        whole.train_epoch(1, lambda done, steps: None)
        second.network.load_state_dict(whole.network.state_dict())
        second.optimizer.load_state_dict(copy.deepcopy(whole.optimizer.state_dict()))
        for one in (whole, second):
            one.train_epoch(2, lambda done, steps: None)
        assert equal(whole.network, second.network)
