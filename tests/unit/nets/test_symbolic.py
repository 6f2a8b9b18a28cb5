"""Formulas for weights and computations, against the numeric counts and against one written by hand."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from conviction.core.errors import ConfigError
from conviction.nets import PRESETS, build_network
from conviction.nets.block import BlocksConfig
from conviction.nets.inspection import inspect_network
from conviction.nets.named import on_meta
from conviction.nets.symbolic import symbolic_counts

M, K, N, H, W, D = (sympy.Symbol(letter, integer=True, positive=True) for letter in "mknHWD")
CLASSES = sympy.Symbol("K", integer=True, positive=True)


@pytest.mark.parametrize("name", PRESETS)
def test_formulas_give_the_counts_of_the_presets(name: str) -> None:
    preset = PRESETS[name]
    formulas = symbolic_counts(preset.config, preset.input_shape, preset.num_classes)
    network = build_network(preset.config, preset.input_shape, preset.num_classes)
    found = inspect_network(network, preset.input_shape, batch_size=1)
    assert formulas.counted() == (found.parameters, found.macs)


def test_lab_b1_by_hand() -> None:
    """Five blocks of m filters of k×k with pooling 2, one dense layer of n neurons, K classes; all five count."""
    block = {"filters": 32, "kernel_px": 3, "pooling": {}}
    config = BlocksConfig.model_validate({"blocks": [block] * 5, "dense": [{"units": 128}]})
    found = symbolic_counts(config, (3, 64, 64), 10)
    weights = (K**2 * D + 1) * M + 4 * (K**2 * M + 1) * M + (M * H * W / 1024 + 1) * N + (N + 1) * CLASSES
    # Each pooling quarters the positions: the convolutions see H·W, H·W/4, H·W/16, H·W/64 and H·W/256 of them.
    macs = (
        K**2 * D * M * H * W
        + K**2
        * M**2
        * H
        * W
        * (sympy.Rational(1, 4) + sympy.Rational(1, 16) + sympy.Rational(1, 64) + sympy.Rational(1, 256))
        + M * H * W / 1024 * N
        + N * CLASSES
    )
    assert sympy.expand(found.weights_if_divisible - weights) == 0
    assert sympy.expand(found.macs_if_divisible - macs) == 0


blocks = st.fixed_dictionaries(
    {
        "filters": st.integers(1, 12),
        "kernel_px": st.integers(1, 5),
        "stride_px": st.integers(1, 3),
        "padding_px": st.integers(0, 2),
        "bias": st.booleans(),
        "normalization": st.sampled_from(["none", "batch", "layer", "local_response"]),
        "pooling": st.none()
        | st.fixed_dictionaries(
            {
                "size_px": st.integers(2, 3),
                "stride_px": st.integers(1, 3),
                "padding_px": st.integers(0, 1),
                "ceil_mode": st.booleans(),
            }
        ),
        "order": st.permutations(["convolution", "normalization", "activation", "pooling", "dropout"]),
    }
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    st.lists(blocks, max_size=3),
    st.sampled_from(["none", "average"]),
    st.lists(
        st.fixed_dictionaries({"units": st.integers(1, 9), "normalization": st.sampled_from(["none", "batch"])}),
        max_size=2,
    ),
    st.integers(5, 30),
    st.integers(5, 30),
)
def test_formulas_give_the_counts_of_random_networks(
    described: list[dict[str, Any]], pooling: str, dense: list[dict[str, Any]], height: int, width: int
) -> None:
    config = BlocksConfig.model_validate({"blocks": described, "global_pooling": pooling, "dense": dense})
    shape = (3, height, width)
    try:
        network = on_meta(lambda: build_network(config, shape, 4))
    except ConfigError:
        assume(False)
    found = inspect_network(network, shape, batch_size=2)
    assert symbolic_counts(config, shape, 4).counted() == (found.parameters, found.macs)
