"""Shares of a step by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from step_profile import KINDS, REST, kind_of, markdown, measure, shares, speedup

SECONDS = {
    "aten::convolution_backward": 3.0,
    "aten::mkldnn_convolution": 2.0,
    "aten::addmm": 1.0,
    "aten::max_pool2d_with_indices": 0.5,
    "aten::fill_": 0.5,
    "aten::threshold_backward": 1.0,
    "aten::native_batch_norm": 1.0,
    "aten::linalg_vector_norm": 0.25,
    "aten::_fused_sgd_": 0.75,
}


def test_shares_by_hand() -> None:
    expected = {
        "convolutions": 0.5,
        "matrix products": 0.1,
        "pooling": 0.1,
        "activations": 0.1,
        "normalisations": 0.1,
        REST: 0.1,
    }
    assert shares(SECONDS) == pytest.approx(expected)
    # Of ten seconds, the six of products take three.
    assert speedup(shares(SECONDS)) == pytest.approx(10 / 7)
    about = {"batch_size": 8, "precision": "float32", "step_s": 10.0, "shares": shares(SECONDS)}
    *_, head, _, row = markdown({"recipes": {"mine": about}})
    assert head.endswith("| products twice as fast |")
    assert row == "| `mine`, float32 | 50 % | 10 % | 10 % | 10 % | 10 % | 10 % | 1.43 × |"
    # With the instructions that make products faster, all that is left is what is no product.
    *_, head, _, row = markdown({"recipes": {"mine": {**about, "precision": "bfloat16"}}})
    assert head.endswith("| products alone |")
    assert row == "| `mine`, bfloat16 | 50 % | 10 % | 10 % | 10 % | 10 % | 10 % | 1.67 × |"


@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ("aten::gelu_backward", "activations"),
        ("aten::native_batch_norm_backward", "normalisations"),
        ("aten::mul", REST),
    ],
)
def test_kinds(operation: str, kind: str) -> None:
    assert kind_of(operation) == kind


def test_a_real_step() -> None:
    threads = torch.get_num_threads()
    try:
        found: dict[str, Any] = measure("alexnet-cifar10")
    finally:
        torch.set_num_threads(threads)
    assert set(found["shares"]) == {*KINDS, REST}
    assert sum(found["shares"].values()) == pytest.approx(1)
    # Three 5×5 convolutions, with ReLU and pooling between them.
    assert found["shares"]["convolutions"] > 0.4
    assert min(found["shares"][kind] for kind in ("matrix products", "pooling", "activations")) > 0
    assert found["step_s"] > 0
