from __future__ import annotations

import math

import pytest
import torch

from conviction.metrics.accuracy import accuracy_by_class, score


def logits_of(probabilities: list[list[float]]) -> torch.Tensor:
    return torch.tensor(probabilities).log()


class TestScore:
    def test_by_hand(self) -> None:
        found = score(logits_of([[0.75, 0.25], [0.5, 0.5], [0.2, 0.8], [0.9, 0.1]]), torch.tensor([0, 0, 1, 1]))
        # Right: the first, the second (the first of equals is taken), the third.
        assert (found.accuracy, found.count) == (0.75, 4)
        assert found.loss == pytest.approx(-(math.log(0.75) + math.log(0.5) + math.log(0.8) + math.log(0.1)) / 4)

    def test_indifference_is_ln_k(self) -> None:
        assert score(torch.zeros(6, 10), torch.arange(6)).loss == pytest.approx(math.log(10), abs=1e-7)

    def test_adding_a_number_to_all_logits_changes_nothing(self) -> None:
        logits = torch.tensor([[2.0, -1.0, 0.5]])
        label = torch.tensor([1])
        assert score(logits + 64, label).loss == pytest.approx(score(logits, label).loss, abs=1e-6)

    def test_a_confident_mistake_is_finite(self) -> None:
        assert score(torch.tensor([[300.0, 0.0]]), torch.tensor([1])).loss == 300

    def test_the_mean_of_many_keeps_its_digits(self) -> None:
        # A sum in float32 stops at 2²⁴ = 16,777,216 where each further term is 0.5.
        count = 300_000
        logits = torch.tensor([[0.0, 0.0]]).repeat(count, 1)
        assert score(logits, torch.zeros(count, dtype=torch.int64)).loss == pytest.approx(math.log(2), abs=1e-7)


class TestAccuracyByClass:
    def test_by_hand(self) -> None:
        logits = torch.eye(3)[torch.tensor([0, 0, 1, 2, 1])]
        labels = torch.tensor([0, 1, 1, 1, 0])
        assert accuracy_by_class(logits, labels, ("cat", "dog", "emu")) == {"cat": 1 / 2, "dog": 1 / 3, "emu": None}

    def test_its_mean_over_images_is_the_accuracy(self) -> None:
        generator = torch.Generator().manual_seed(0)
        logits, labels = torch.randn(60, 4, generator=generator), torch.randint(0, 4, (60,), generator=generator)
        by_class = accuracy_by_class(logits, labels, ("a", "b", "c", "d"))
        counts = torch.bincount(labels, minlength=4).tolist()
        weighted = sum(share * count for share, count in zip(by_class.values(), counts, strict=True)) / 60
        assert weighted == pytest.approx(score(logits, labels).accuracy)
