"""Sizes of feature maps, as pure functions of one side's length in pixels."""

from __future__ import annotations

from conviction.core.errors import ConfigError


def conv_output(size_px: int, kernel_px: int, stride_px: int = 1, padding_px: int = 0, dilation_px: int = 1) -> int:
    """The side of a convolution's output: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1.

    Raises: ConfigError where the kernel does not fit.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, relationship 14.

    >>> conv_output(32, kernel_px=5, padding_px=2)
    32
    """
    reach_px = dilation_px * (kernel_px - 1) + 1
    room_px = size_px + 2 * padding_px - reach_px
    if room_px < 0:
        raise ConfigError(
            f"`size_px + 2·padding_px >= {reach_px}` must hold for a kernel of {kernel_px}, but got {size_px=}, "
            f"{padding_px=}."
        )
    return room_px // stride_px + 1


def pool_output(size_px: int, kernel_px: int, stride_px: int, padding_px: int = 0, ceil_mode: bool = False) -> int:
    """The side of a pooling's output; with `ceil_mode` a last, partly filled window counts too.

    A window that would begin in the padding behind the input does not count, as in torch.

    Raises: ConfigError where the window does not fit.

    >>> pool_output(7, kernel_px=2, stride_px=2), pool_output(7, kernel_px=2, stride_px=2, ceil_mode=True)
    (3, 4)
    """
    if not ceil_mode:
        return conv_output(size_px, kernel_px, stride_px, padding_px)
    if size_px < 1:
        raise ConfigError(f"`size_px >= 1` must hold, but got {size_px=}.")
    output = -(-(size_px + 2 * padding_px - kernel_px) // stride_px) + 1
    if (output - 1) * stride_px >= size_px + padding_px:
        output -= 1
    if output < 1:
        raise ConfigError(f"A window of {kernel_px} does not fit: got {size_px=}, {padding_px=}.")
    return output
