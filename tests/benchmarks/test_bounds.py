"""Bounds by hand.

Lab C's network has 32²·5·5·3·32 multiply-accumulates in its first convolution, 16²·5·5·32·64 and 8²·5·5·64·64 in the
others, and 1,024·1,000 + 1,000·10 behind them. A training step has them three times, without the gradient of the
pictures, and each is two operations.
"""

from __future__ import annotations

from typing import Any

import pytest
from bounds import loop_at_ceiling, markdown, step_flop, training_flop

FIRST = 2_457_600
LAB_C = 2 * (3 * (FIRST + 13_107_200 + 6_553_600 + 1_034_000) - FIRST)
RECIPES = {"lab-c": "alexnet-cifar10"}


def test_operations_by_hand() -> None:
    assert step_flop("alexnet-cifar10") == LAB_C
    whole = step_flop("speed-cifar10")
    assert training_flop("speed-cifar10-sgd", 100) == 10 * 100 * whole
    smaller = 3 * step_flop("speed-cifar10", 24) + 2 * step_flop("speed-cifar10", 28)
    assert training_flop("speed-cifar10", 100) == 100 * (smaller + 2 * whole)


def test_figures_stand_beside_what_the_ceiling_allows() -> None:
    network = {"ours": {"images_per_s": {"median": 800.0}}}
    seeds = [{"num_validation": 1000}]
    recipe = {
        "seeds": seeds,
        "figures": {"train_s": {"mean": 2 * training_flop("speed-cifar10", 49_000) / (LAB_C * 1e3)}},
    }
    sections: dict[str, Any] = {
        # The middle one does lab C's step for a thousand images a second.
        "share_of_ceiling": {"ceiling_gflop_a_second": [1.0, LAB_C / 1e6, 1e6]},
        "peers": {"networks": {"lab-c": network}},
        "speed_recipes": {"recipes": {"speed-cifar10": recipe}},
    }
    lines = markdown(sections, RECIPES)
    assert "| `alexnet-cifar10`, whole loop | 134 MFLOP an image | 1,000 images a second | 800 | 80 % |" in lines
    (training,) = [line for line in lines if "training" in line]
    assert training.endswith("| 50 % |")


@pytest.mark.parametrize("sections", [{}, {"share_of_ceiling": {"share_of_matrix_product": {"median": 0.8}}}])
def test_without_a_ceiling_nothing_is_said(sections: dict[str, Any]) -> None:
    assert markdown(sections, RECIPES) == []
    assert loop_at_ceiling(sections, "alexnet-cifar10") is None
