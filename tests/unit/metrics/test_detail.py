from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, top_k_accuracy_score

from conviction.metrics.detail import detailed_figures

# torchmetrics takes eight seconds to load.
pytestmark = pytest.mark.slow


def drawn(num_classes: int, count: int = 200) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num_classes)
    labels = torch.randint(0, num_classes, (count,), generator=generator)
    logits = torch.randn(count, num_classes, generator=generator)
    logits[torch.arange(count), labels] += 1
    return logits, labels


@pytest.mark.parametrize("num_classes", [2, 3, 10])
def test_macro_f1_is_sklearns(num_classes: int) -> None:
    logits, labels = drawn(num_classes)
    expected = f1_score(labels, logits.argmax(dim=1), average="macro")
    assert detailed_figures(logits, labels)["macro_f1"] == pytest.approx(expected, abs=1e-6)


def test_a_class_that_never_occurs_does_not_lower_the_f1() -> None:
    logits = torch.eye(3)[torch.tensor([0, 1, 1])]
    # Classes 0 and 1 alone: 2·1/(2+1) for class 0 (a hit, a miss), 2·1/(2+1) for class 1 (a hit, a false alarm).
    assert detailed_figures(logits, torch.tensor([0, 0, 1]))["macro_f1"] == pytest.approx(2 / 3)


def test_calibration_error_by_hand() -> None:
    # Confidences 0.9, 0.9, 0.9, 0.6, 0.6 with 2 of 3 and 1 of 2 right: bins (13/15, 14/15] and (8/15, 9/15].
    confidences = torch.tensor([0.9, 0.9, 0.9, 0.58, 0.58])
    logits = torch.stack([confidences, 1 - confidences], dim=1).log()
    labels = torch.tensor([0, 0, 1, 0, 1])
    expected = 3 / 5 * abs(2 / 3 - 0.9) + 2 / 5 * abs(1 / 2 - 0.58)
    assert detailed_figures(logits, labels)["expected_calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_calibration_error_is_the_formula() -> None:
    logits, labels = drawn(10)
    confidences, predicted = logits.softmax(dim=1).max(dim=1)
    bins = np.ceil(confidences.numpy() * 15)
    right = (predicted == labels).numpy()
    parts = [(bins == number) for number in range(1, 16) if (bins == number).any()]
    expected = sum(part.mean() * abs(right[part].mean() - confidences.numpy()[part].mean()) for part in parts)
    assert detailed_figures(logits, labels)["expected_calibration_error"] == pytest.approx(expected, abs=1e-5)


def test_certain_and_right_is_calibrated() -> None:
    labels = torch.tensor([0, 1, 1])
    assert detailed_figures(200 * torch.eye(2)[labels], labels)["expected_calibration_error"] == pytest.approx(0)


def test_top_5_is_sklearns_and_is_for_more_than_five_classes() -> None:
    logits, labels = drawn(10)
    expected = top_k_accuracy_score(labels, logits, k=5, labels=range(10))
    assert detailed_figures(logits, labels)["top_5_accuracy"] == pytest.approx(expected, abs=1e-6)
    assert "top_5_accuracy" not in detailed_figures(*drawn(5))
    assert "top_5_accuracy" in detailed_figures(*drawn(6))
