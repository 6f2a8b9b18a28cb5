"""What every loss must be: a mean over the batch, least where the network is right, with a gradient."""

from __future__ import annotations

import math

import pytest
import torch

from conviction.core.errors import UnknownName
from conviction.fit.loss import LOSSES, CrossEntropyConfig, LossConfig, build_loss

CONFIGS = {entry.name: entry.config() for entry in LOSSES}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
class TestEveryLoss:
    def test_it_is_one_finite_number_with_a_gradient(self, config: LossConfig) -> None:
        logits = torch.randn(5, 4, requires_grad=True)
        loss = build_loss(config)(logits, torch.tensor([0, 1, 2, 3, 0]))
        loss.backward()
        assert loss.shape == ()
        assert loss.isfinite()
        assert logits.grad.abs().sum() > 0

    def test_it_is_the_mean_of_the_images_losses(self, config: LossConfig) -> None:
        logits, labels, loss = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), build_loss(config)
        alone = torch.stack([loss(logits[i : i + 1], labels[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(loss(logits, labels), alone.mean())

    def test_it_is_less_where_the_network_is_right(self, config: LossConfig) -> None:
        logits, loss = 5 * torch.eye(4), build_loss(config)
        assert loss(logits, torch.arange(4)) < loss(logits, torch.arange(4).roll(1))

    def test_a_confident_mistake_stays_finite(self, config: LossConfig) -> None:
        assert build_loss(config)(torch.tensor([[1e4, -1e4]]), torch.tensor([1])).isfinite()


class TestCrossEntropy:
    def test_indifference_costs_ln_k(self) -> None:
        loss = build_loss(CrossEntropyConfig())(torch.zeros(2, 10), torch.tensor([3, 7]))
        assert float(loss) == pytest.approx(math.log(10))

    def test_by_hand(self) -> None:
        logits = torch.tensor([[math.log(1), math.log(3)], [math.log(4), math.log(1)]])
        # Probabilities (1/4, 3/4) and (4/5, 1/5); labels 1 and 1.
        expected = (-math.log(3 / 4) - math.log(1 / 5)) / 2
        assert float(build_loss(CrossEntropyConfig())(logits, torch.tensor([1, 1]))) == pytest.approx(expected)

    def test_label_smoothing_by_hand(self) -> None:
        logits = torch.tensor([[math.log(1), math.log(3)]])
        # The target is 0.8 · (0, 1) + 0.2 / 2 = (0.1, 0.9).
        expected = -0.1 * math.log(1 / 4) - 0.9 * math.log(3 / 4)
        loss = build_loss(CrossEntropyConfig(label_smoothing=0.2))
        assert float(loss(logits, torch.tensor([1]))) == pytest.approx(expected)

    def test_an_unknown_loss_is_refused(self) -> None:
        with pytest.raises(UnknownName, match="Did you mean 'cross_entropy'"):
            build_loss(LossConfig(name="crossentropy"))
