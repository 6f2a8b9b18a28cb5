from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from conviction.core.errors import ConfigError
from conviction.nets.algebra import conv_output, pool_output


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
