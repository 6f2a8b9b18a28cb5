"""The arithmetic of convolutional networks: sizes, weights, computations, receptive fields, as pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from conviction.core.errors import ConfigError


def _require(least: int, **values: int) -> None:
    """Raises: ConfigError where a value is no whole number, or below the least that makes sense."""
    for name, value in values.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigError(f"`{name} >= {least}` must hold for a whole number, but got {name}={value!r}.")


def conv_output(size_px: int, kernel_px: int, stride_px: int = 1, padding_px: int = 0, dilation_px: int = 1) -> int:
    """The side of a convolution's output: ⌊(size + 2·padding − dilation·(kernel − 1) − 1) / stride⌋ + 1.

    Raises: ConfigError where the kernel does not fit, or a number makes no sense.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, relationship 14.

    >>> conv_output(32, kernel_px=5, padding_px=2)
    32
    """
    _require(1, size_px=size_px, kernel_px=kernel_px, stride_px=stride_px, dilation_px=dilation_px)
    _require(0, padding_px=padding_px)
    reach_px = dilation_px * (kernel_px - 1) + 1
    room_px = size_px + 2 * padding_px - reach_px
    if room_px < 0:
        raise ConfigError(
            f"`size_px + 2·padding_px >= {reach_px}` must hold for a kernel of {kernel_px}, but got {size_px=}, "
            f"{padding_px=}."
        )
    return room_px // stride_px + 1


def pool_output(
    size_px: int,
    kernel_px: int,
    stride_px: int,
    padding_px: int = 0,
    ceil_mode: bool = False,
    dilation_px: int = 1,
) -> int:
    """The side of a pooling's output; with `ceil_mode` a last, partly filled window counts too.

    A window that would begin in the padding behind the input does not count, as in torch.

    Raises: ConfigError where the window does not fit, or more than half of one would be padding.

    >>> pool_output(7, kernel_px=2, stride_px=2), pool_output(7, kernel_px=2, stride_px=2, ceil_mode=True)
    (3, 4)
    """
    _require(1, size_px=size_px, kernel_px=kernel_px, stride_px=stride_px, dilation_px=dilation_px)
    _require(0, padding_px=padding_px)
    if 2 * padding_px > kernel_px:
        raise ConfigError(f"`2·padding_px <= kernel_px` must hold for a pooling, but got {padding_px=}, {kernel_px=}.")
    if not ceil_mode:
        return conv_output(size_px, kernel_px, stride_px, padding_px, dilation_px)
    reach_px = dilation_px * (kernel_px - 1) + 1
    output = -(-(size_px + 2 * padding_px - reach_px) // stride_px) + 1
    if (output - 1) * stride_px >= size_px + padding_px:
        output -= 1
    if output < 1:
        raise ConfigError(f"A window of {reach_px} does not fit: got {size_px=}, {padding_px=}.")
    return output


def transposed_output(
    size_px: int,
    kernel_px: int,
    stride_px: int = 1,
    padding_px: int = 0,
    dilation_px: int = 1,
    output_padding_px: int = 0,
) -> int:
    """The side of a transposed convolution's output.

    (size − 1)·stride − 2·padding + dilation·(kernel − 1) + output_padding + 1.

    Raises: ConfigError where nothing would be left, or the output's padding is not smaller than stride or dilation.

    Source: V. Dumoulin, F. Visin, A guide to convolution arithmetic for deep learning, 2016, relationship 13; torch's
    documentation of ConvTranspose2d.

    >>> transposed_output(4, kernel_px=2, stride_px=2)
    8
    """
    _require(1, size_px=size_px, kernel_px=kernel_px, stride_px=stride_px, dilation_px=dilation_px)
    _require(0, padding_px=padding_px, output_padding_px=output_padding_px)
    if output_padding_px >= max(stride_px, dilation_px):
        raise ConfigError(
            f"`output_padding_px < max(stride_px, dilation_px)` must hold, but got {output_padding_px=}, {stride_px=}, "
            f"{dilation_px=}."
        )
    output = (size_px - 1) * stride_px - 2 * padding_px + dilation_px * (kernel_px - 1) + output_padding_px + 1
    if output < 1:
        raise ConfigError(f"No pixel is left: got {size_px=}, {kernel_px=}, {padding_px=}.")
    return output


def same_padding(kernel_px: int, dilation_px: int = 1) -> int:
    """The padding with which a convolution of stride 1 keeps the size.

    Raises: ConfigError for a kernel whose reach is even, which would need another padding on each side.

    >>> same_padding(5)
    2
    """
    _require(1, kernel_px=kernel_px, dilation_px=dilation_px)
    reach_px = dilation_px * (kernel_px - 1) + 1
    if reach_px % 2 == 0:
        raise ConfigError(f"A kernel that reaches over an odd number of pixels is needed, but got {reach_px}.")
    return reach_px // 2


def conv_parameters(kernel_px: int, channels_in: int, channels_out: int, groups: int = 1, bias: bool = True) -> int:
    """The weights of a square convolution: (k·k·C_in / groups + 1)·C_out.

    Raises: ConfigError where the channels do not divide into the groups.

    >>> conv_parameters(3, 3, 128), conv_parameters(5, 3, 32)
    (3584, 2432)
    """
    _refuse_undivided(kernel_px, channels_in, channels_out, groups)
    return (kernel_px**2 * channels_in // groups + int(bias)) * channels_out


def _refuse_undivided(kernel_px: int, channels_in: int, channels_out: int, groups: int) -> None:
    _require(1, kernel_px=kernel_px, channels_in=channels_in, channels_out=channels_out, groups=groups)
    if channels_in % groups or channels_out % groups:
        raise ConfigError(
            f"The channels must divide into the groups, but got {channels_in=}, {channels_out=}, {groups=}."
        )


def dense_parameters(numbers_in: int, numbers_out: int, bias: bool = True) -> int:
    """The weights of a fully connected layer: (n_in + 1)·n_out.

    >>> dense_parameters(3 * 32 * 32, 32 * 32 * 32)  # what a convolution of 32 filters saves
    100696064
    """
    _require(1, numbers_in=numbers_in, numbers_out=numbers_out)
    return (numbers_in + int(bias)) * numbers_out


def conv_macs(kernel_px: int, channels_in: int, channels_out: int, output_px: tuple[int, int], groups: int = 1) -> int:
    """Multiply-accumulates of a square convolution with an output of (height, width); biases are none.

    Raises: ConfigError where the channels do not divide into the groups.

    >>> conv_macs(5, 3, 32, (32, 32))
    2457600
    """
    _refuse_undivided(kernel_px, channels_in, channels_out, groups)
    _require(1, height_px=output_px[0], width_px=output_px[1])
    return kernel_px**2 * channels_in // groups * channels_out * output_px[0] * output_px[1]


@dataclass(frozen=True)
class FieldStep:
    """Along one side: how many pixels a position sees, how far the next position is, where the first one is centred.

    `start_px` is measured from the picture's edge, so that the first pixel's own centre lies at 0.5.
    """

    size_px: int = 1
    stride_px: int = 1
    start_px: float = 0.5

    def behind(self, kernel_px: int, stride_px: int = 1, padding_px: int = 0, dilation_px: int = 1) -> FieldStep:
        """The field behind one more convolution or pooling.

        The size grows by (k − 1)·dilation times the stride so far, the stride is multiplied, and the centre moves by
        half of what the kernel reaches over beyond the padding.

        Raises: ConfigError where a number makes no sense.

        Source: A. Araujo et al., Computing receptive fields of convolutional neural networks, Distill, 2019.

        >>> FieldStep().behind(5).behind(3)  # lab D1: a 3×3 after a 5×5 sees 7×7
        FieldStep(size_px=7, stride_px=1, start_px=3.5)
        """
        _require(1, kernel_px=kernel_px, stride_px=stride_px, dilation_px=dilation_px)
        _require(0, padding_px=padding_px)
        reach_px = dilation_px * (kernel_px - 1)
        return FieldStep(
            self.size_px + reach_px * self.stride_px,
            self.stride_px * stride_px,
            self.start_px + (reach_px / 2 - padding_px) * self.stride_px,
        )
