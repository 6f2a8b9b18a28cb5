"""Further figures of a classifier, computed by torchmetrics, which takes seconds to load: on request alone."""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor


def detailed_figures(logits: Float[Tensor, "B K"], labels: Int64[Tensor, " B"]) -> dict[str, float]:
    """Macro-averaged F1, top-5 accuracy (with more than five classes) and the expected calibration error.

    The calibration error has 15 bins of equal width and the l1 norm.

    Source: C. Guo et al., On calibration of modern neural networks, 2017, equation 3.
    """
    from torchmetrics.functional import classification

    num_classes = logits.shape[1]
    probabilities = logits.softmax(dim=1)
    figures = {
        "macro_f1": classification.multiclass_f1_score(logits, labels, num_classes=num_classes, average="macro"),
        "expected_calibration_error": classification.multiclass_calibration_error(
            probabilities, labels, num_classes=num_classes, n_bins=15, norm="l1"
        ),
    }
    if num_classes > 5:
        figures["top_5_accuracy"] = classification.multiclass_accuracy(
            logits, labels, num_classes=num_classes, top_k=5, average="micro"
        )
    return {name: float(value) for name, value in figures.items()}
