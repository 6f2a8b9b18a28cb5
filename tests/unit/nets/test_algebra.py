from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conviction.core.errors import ConfigError
from conviction.nets.algebra import (
    FieldStep,
    conv_macs,
    conv_output,
    conv_parameters,
    dense_parameters,
    pool_output,
    same_padding,
    transposed_output,
)
from conviction.nets.inspection import inspect_network


def side_by_torch(layer: nn.Module, size_px: int) -> int | None:
    """The side of what torch's layer gives for a square map; None where torch refuses."""
    try:
        return layer(torch.zeros(1, 1, size_px, size_px)).shape[-1]
    except RuntimeError:
        return None


class TestConvOutput:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((32, 5, 1, 2), 32),  # (32 + 4 - 5) / 1 + 1
            ((32, 3, 2, 1), 16),  # ⌊31 / 2⌋ + 1
            ((50, 5, 2, 0), 23),  # ⌊45 / 2⌋ + 1
            ((7, 3, 1, 0, 2), 3),  # the kernel reaches over 2·2 + 1 = 5
            ((3, 3, 7, 0), 1),
            ((1, 4, 1, 2), 2),
        ],
    )
    def test_by_hand(self, arguments: tuple[int, ...], expected: int) -> None:
        assert conv_output(*arguments) == expected

    def test_a_kernel_that_does_not_fit_is_refused(self) -> None:
        with pytest.raises(ConfigError, match=r"size_px \+ 2·padding_px >= 5.*size_px=2, padding_px=1"):
            conv_output(2, kernel_px=5, padding_px=1)

    @settings(deadline=None, max_examples=300)
    @given(
        size_px=st.integers(1, 24),
        kernel_px=st.integers(1, 8),
        stride_px=st.integers(1, 9),
        padding_px=st.integers(0, 6),
        dilation_px=st.integers(1, 4),
    )
    def test_agrees_with_torch(
        self, size_px: int, kernel_px: int, stride_px: int, padding_px: int, dilation_px: int
    ) -> None:
        layer = nn.Conv2d(1, 1, kernel_px, stride_px, padding_px, dilation_px)
        expected = side_by_torch(layer, size_px)
        if expected is None:
            with pytest.raises(ConfigError):
                conv_output(size_px, kernel_px, stride_px, padding_px, dilation_px)
        else:
            assert conv_output(size_px, kernel_px, stride_px, padding_px, dilation_px) == expected


class TestPoolOutput:
    @pytest.mark.parametrize(
        ("arguments", "expected"),
        [
            ((7, 2, 2), 3),
            ((7, 2, 2, 0, True), 4),
            ((7, 3, 2, 0, True), 3),  # (7 - 3) / 2 is whole: nothing is left over
            ((5, 2, 2, 1, False), 3),
            ((5, 2, 4, 1, True), 2),  # ⌈5 / 4⌉ + 1 = 3, but the third window would begin at 8 - 1 > 5
            ((2, 3, 2, 0, True), 1),  # a single window, partly filled
        ],
    )
    def test_by_hand(self, arguments: tuple[int, ...], expected: int) -> None:
        assert pool_output(*arguments) == expected

    @pytest.mark.parametrize("ceil_mode", [False, True])
    def test_a_window_that_does_not_fit_is_refused(self, ceil_mode: bool) -> None:
        with pytest.raises(ConfigError, match="size_px=1"):
            pool_output(1, kernel_px=4, stride_px=2, ceil_mode=ceil_mode)

    @settings(deadline=None, max_examples=300)
    @given(
        data=st.data(),
        size_px=st.integers(1, 24),
        kernel_px=st.integers(1, 9),
        stride_px=st.integers(1, 10),
        ceil_mode=st.booleans(),
    )
    def test_agrees_with_torch(
        self, data: st.DataObject, size_px: int, kernel_px: int, stride_px: int, ceil_mode: bool
    ) -> None:
        padding_px = data.draw(st.integers(0, kernel_px // 2))
        for kind in (nn.MaxPool2d, nn.AvgPool2d):
            expected = side_by_torch(kind(kernel_px, stride_px, padding_px, ceil_mode=ceil_mode), size_px)
            if expected is None:
                with pytest.raises(ConfigError):
                    pool_output(size_px, kernel_px, stride_px, padding_px, ceil_mode)
            else:
                assert pool_output(size_px, kernel_px, stride_px, padding_px, ceil_mode) == expected


@settings(deadline=None, max_examples=200)
@given(
    size_px=st.integers(1, 9),
    kernel_px=st.integers(1, 5),
    stride_px=st.integers(1, 3),
    padding_px=st.integers(0, 3),
    dilation_px=st.integers(1, 2),
    output_padding_px=st.integers(0, 2),
)
def test_transposed_output_is_torchs(output_padding_px: int, size_px: int, **sizes: int) -> None:
    kernel, stride, padding, dilation = sizes.values()
    if output_padding_px >= max(stride, dilation):
        return
    layer = nn.ConvTranspose2d(1, 1, kernel, stride, padding, output_padding_px, dilation=dilation)
    expected = side_by_torch(layer, size_px)
    try:
        assert transposed_output(size_px, **sizes, output_padding_px=output_padding_px) == expected
    except ConfigError:
        # torch gives an empty map where nothing is left.
        assert not expected


@settings(deadline=None, max_examples=100)
@given(
    kernel=st.integers(1, 5),
    groups=st.sampled_from([1, 2, 3]),
    channels_in=st.integers(1, 4),
    channels_out=st.integers(1, 4),
    bias=st.booleans(),
)
def test_weights_and_computations_are_torchs(
    kernel: int, groups: int, channels_in: int, channels_out: int, bias: bool
) -> None:
    layer = nn.Conv2d(groups * channels_in, groups * channels_out, kernel, groups=groups, bias=bias)
    sizes = (kernel, layer.in_channels, layer.out_channels)
    assert conv_parameters(*sizes, groups, bias) == sum(parameter.numel() for parameter in layer.parameters())
    found = inspect_network(layer, (layer.in_channels, 9, 8), batch_size=1)
    assert conv_macs(*sizes, (10 - kernel, 9 - kernel), groups) == found.macs
    assert dense_parameters(7, 3, bias) == sum(p.numel() for p in nn.Linear(7, 3, bias).parameters())


def test_channels_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ConfigError, match="must divide into the groups"):
        conv_parameters(3, 4, 6, groups=4)


def test_same_padding_keeps_the_size() -> None:
    for kernel in (1, 3, 5, 7):
        for dilation in (1, 2, 3):
            assert conv_output(20, kernel, 1, same_padding(kernel, dilation), dilation) == 20
    with pytest.raises(ConfigError, match="odd number of pixels"):
        same_padding(4)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(1, 2), st.integers(0, 2), st.integers(1, 2)), min_size=1, max_size=4
    )
)
def test_field_steps_agree_with_the_traced_fields(chain: list[tuple[int, int, int, int]]) -> None:
    layers = [nn.Conv2d(1, 1, k, stride=s, padding=p, dilation=d) for k, s, p, d in chain]
    found = inspect_network(nn.Sequential(*layers), (1, 120, 120), batch_size=1).layers[-1].receptive_field
    step = FieldStep()
    for sizes in chain:
        step = step.behind(*sizes)
    assert found.size_px == (step.size_px,) * 2
    assert found.stride_px == (step.stride_px,) * 2
    assert found.start_px == (step.start_px,) * 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: conv_output(32, 3, 0),
        lambda: conv_output(32, 3, -1),
        lambda: conv_output(32, 0),
        lambda: conv_output(-5, 3, 1, 10),
        lambda: conv_output(32, 3, 1, -1),
        lambda: pool_output(5, 2, 0),
        lambda: pool_output(8, 2, 2, 2),
        lambda: transposed_output(0, 3, 2),
        lambda: transposed_output(4, 3, 2, output_padding_px=2),
        lambda: same_padding(0),
        lambda: conv_parameters(3, 3, 4, groups=0),
        lambda: conv_parameters(-3, 3, 4),
        lambda: conv_macs(3, 3, 8, (4, 4), groups=2),
        lambda: conv_macs(3, 4, 8, (0, 4)),
        lambda: dense_parameters(0, 4),
        lambda: FieldStep().behind(0),
    ],
)
def test_numbers_that_make_no_sense_are_refused(call: Callable[[], object]) -> None:
    with pytest.raises(ConfigError):
        call()


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 24), st.integers(1, 5), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_dilated_poolings_agree_with_torch(
    size_px: int, kernel_px: int, stride_px: int, dilation_px: int, ceil_mode: bool
) -> None:
    layer = nn.MaxPool2d(kernel_px, stride_px, kernel_px // 2, dilation_px, ceil_mode=ceil_mode)
    expected = side_by_torch(layer, size_px)
    if expected is None:
        with pytest.raises(ConfigError):
            pool_output(size_px, kernel_px, stride_px, kernel_px // 2, ceil_mode, dilation_px)
    else:
        assert pool_output(size_px, kernel_px, stride_px, kernel_px // 2, ceil_mode, dilation_px) == expected
