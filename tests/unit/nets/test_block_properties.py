"""Random networks: the sizes that the builder computes are those that the network has."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from conviction.core.errors import ConfigError
from conviction.nets.block import STAGES, BlockConfig, BlocksConfig, build_network
from conviction.nets.layer import (
    ActivationName,
    DenseNormalizationName,
    NormalizationName,
    PoolingName,
)

probabilities = st.sampled_from([0.0, 0.3])


@st.composite
def poolings(draw: st.DrawFn) -> dict[str, Any]:
    size_px = draw(st.integers(1, 4))
    return {
        "kind": draw(st.sampled_from(get_args(PoolingName))),
        "size_px": size_px,
        "stride_px": draw(st.none() | st.integers(1, 5)),
        "padding_px": draw(st.integers(0, size_px // 2)),
        "ceil_mode": draw(st.booleans()),
    }


@st.composite
def blocks(draw: st.DrawFn) -> dict[str, Any]:
    kernel_px, stride_px = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    numbers = st.integers(0, 4)
    same_is_possible = kernel_px % 2 == 1 or stride_px == 1
    return {
        "filters": draw(st.integers(1, 5)),
        "kernel_px": kernel_px,
        "stride_px": stride_px,
        "padding_px": draw(st.just("same") | numbers if same_is_possible else numbers),
        "bias": draw(st.booleans()),
        "normalization": draw(st.sampled_from(get_args(NormalizationName))),
        "activation": draw(st.sampled_from(get_args(ActivationName))),
        "pooling": draw(st.none() | poolings()),
        "dropout": draw(probabilities),
        "order": draw(st.permutations(STAGES)),
    }


dense_layers = st.fixed_dictionaries(
    {
        "units": st.integers(1, 6),
        "normalization": st.sampled_from(get_args(DenseNormalizationName)),
        "activation": st.sampled_from(get_args(ActivationName)),
        "dropout": probabilities,
    }
)
# Validated in the tests and not here: beartype draws random numbers, which hypothesis does not allow in a strategy.
networks = st.fixed_dictionaries(
    {
        "blocks": st.lists(blocks(), max_size=4),
        "global_pooling": st.sampled_from(["none", "average", "max"]),
        "dense": st.lists(dense_layers, max_size=2),
    }
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 18), st.integers(1, 18))
LENIENT = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.too_slow])


def through_block(config: BlockConfig, maps: Tensor) -> Tensor:
    """The block's effect on the shape of `maps`, by torch's functions. RuntimeError where one does not fit."""
    for stage in config.order:
        if stage == "convolution":
            if config.padding_px == "same":
                left, right = (config.kernel_px - 1) // 2, config.kernel_px // 2
                maps = nn.functional.pad(maps, (left, right, left, right))
                padding_px = 0
            else:
                padding_px = config.padding_px
            weight = torch.zeros(config.filters, maps.shape[1], config.kernel_px, config.kernel_px)
            maps = nn.functional.conv2d(maps, weight, stride=config.stride_px, padding=padding_px)
        elif stage == "normalization" and config.normalization == "layer" and maps[0].numel() == 1:
            raise RuntimeError("nothing to normalise over")
        elif stage == "pooling" and config.pooling:
            pool = nn.functional.max_pool2d if config.pooling.kind == "max" else nn.functional.avg_pool2d
            stride_px, padding_px = config.pooling.stride_px, config.pooling.padding_px
            maps = pool(maps, config.pooling.size_px, stride_px, padding_px, ceil_mode=config.pooling.ceil_mode)
    return maps


def shapes_behind_blocks(config: BlocksConfig, shape: tuple[int, int, int]) -> list[torch.Size]:
    """The shape behind each block, up to the first that does not fit."""
    maps, found = torch.zeros(1, *shape), []
    for block in config.blocks:
        try:
            maps = through_block(block, maps)
        except RuntimeError:
            break
        found.append(maps.shape[1:])
    return found


@LENIENT
@given(drawn=networks, shape=shapes, num_classes=st.integers(1, 5))
def test_shapes_gradients_and_refusals(drawn: dict[str, Any], shape: tuple[int, int, int], num_classes: int) -> None:
    config = BlocksConfig.model_validate(drawn)
    expected = shapes_behind_blocks(config, shape)
    if len(expected) < len(config.blocks):
        with pytest.raises(ConfigError, match=rf"^network\.blocks\.{len(expected)}: "):
            build_network(config, shape, num_classes)
        return
    network = build_network(config, shape, num_classes)
    seen: list[torch.Size] = []
    for name, module in network.blocks.named_children():
        if name.startswith("block"):
            module.register_forward_hook(lambda module, given, maps: seen.append(maps.shape[1:]))
    logits = network(torch.randn(3, *shape))
    assert seen == expected
    assert logits.shape == (3, num_classes)
    (logits * torch.randn_like(logits)).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@LENIENT
@given(drawn=networks, shape=shapes)
def test_one_image_alone_gets_the_logits_that_it_gets_among_others(
    drawn: dict[str, Any], shape: tuple[int, int, int]
) -> None:
    config = BlocksConfig.model_validate(drawn)
    try:
        network = build_network(config, shape, 3).eval()
    except ConfigError:
        return
    images = torch.randn(3, *shape)
    kept = images.clone()
    with torch.no_grad():
        together = network(images)
        alone = torch.cat([network(image[None]) for image in images])
    assert torch.equal(images, kept)
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@settings(LENIENT, max_examples=60)
@given(drawn=networks, shape=shapes)
def test_bfloat16_gives_gradients_too(drawn: dict[str, Any], shape: tuple[int, int, int]) -> None:
    config = BlocksConfig.model_validate(drawn)
    try:
        network = build_network(config, shape, 3)
    except ConfigError:
        return
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(3, *shape))
    logits.float().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
