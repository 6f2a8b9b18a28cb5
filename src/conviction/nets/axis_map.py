"""Which pixels of the input a position along one side of a feature map depends on.

Index 0 is the first pixel; indices below 0 and beyond the last one lie in the padding, so that a field may be larger
than the picture. Everything here is exact arithmetic on integers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction

# A map that repeats after more positions than this is given up: it would belong to no network that is in use.
MOST_PHASES = 4096


# A whole number, or an infinity where nothing is seen.
Pixel = int | float


class Unrelated(Exception):
    """Two maps move over the input at different speeds, so that no map describes both."""


@dataclass(frozen=True)
class AxisMap:
    """Position `i = q·period + phase` sees the pixels from `jump·q + first[phase]` to `jump·q + last[phase]`.

    The period is 1 in networks that only shrink; a transposed convolution of stride 2 makes it 2. Where a phase sees
    nothing, its first pixel is +∞ and its last −∞.
    """

    jump: int
    first: tuple[Pixel, ...]
    last: tuple[Pixel, ...]

    @property
    def period(self) -> int:
        """The number of positions after which the map repeats, shifted."""
        return len(self.first)

    @property
    def stride(self) -> Fraction:
        """How far the field moves from one position to the next, on average."""
        return Fraction(self.jump, self.period)

    @property
    def size(self) -> int:
        """The largest number of pixels from the first to the last that a position sees, both included."""
        sizes = [last - first + 1 for first, last in zip(self.first, self.last, strict=True) if first <= last]
        return int(max(sizes, default=0))

    def at(self, index: int) -> tuple[Pixel, Pixel]:
        """The first and the last pixel that position `index` sees."""
        turn, phase = divmod(index, self.period)
        return self.jump * turn + self.first[phase], self.jump * turn + self.last[phase]

    def composed(self, period: int, shift: int, taps: Callable[[int], Iterable[int]]) -> AxisMap:
        """The map of a layer above: its position `phase` looks at the positions `taps(phase)` of this one.

        After `period` positions of the new layer its taps repeat, shifted by `shift` positions of this one.
        """
        turns = self.period // math.gcd(self.period, shift)
        if period * turns > MOST_PHASES:
            raise Unrelated
        first, last = [], []
        for turn in range(turns):
            for phase in range(period):
                seen = [self.at(tap + turn * shift) for tap in taps(phase)]
                first.append(min((pixel for pixel, _ in seen), default=math.inf))
                last.append(max((pixel for _, pixel in seen), default=-math.inf))
        return AxisMap(self.jump * (shift * turns // self.period), tuple(first), tuple(last)).reduced()

    def windowed(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> AxisMap:
        """Behind a convolution or a pooling; `kernel` 1 with another stride or padding is a slice or a pad."""
        return self.composed(1, stride, lambda phase: (step * dilation - padding for step in range(kernel)))

    def transposed(self, kernel: int, stride: int, padding: int, dilation: int = 1) -> AxisMap:
        """Behind a transposed convolution."""

        def taps(phase: int) -> list[int]:
            places = (phase + padding - step * dilation for step in range(kernel))
            return [place // stride for place in places if place % stride == 0]

        return self.composed(stride, 1, taps)

    def pooled_to(self, size: int, output: int) -> AxisMap:
        """Behind an adaptive pooling of `size` positions to `output`."""
        common = math.gcd(size, output)
        return self.composed(
            output // common,
            size // common,
            lambda phase: (phase * size // output, -(-(phase + 1) * size // output) - 1),
        )

    def enlarged(self, factor: int, bilinear: bool = False) -> AxisMap:
        """Behind an upsampling by a whole factor: to the nearest, or bilinear with corners not aligned."""

        def taps(phase: int) -> list[int]:
            if not bilinear:
                return [phase // factor]
            # The centre of the new pixel, in twice-factor-ths of an old one.
            centre = 2 * phase + 1 - factor
            below, rest = divmod(centre, 2 * factor)
            return [below, below + 1] if rest else [below]

        return self.composed(factor, 1, taps)

    def united(self, other: AxisMap) -> AxisMap:
        """Where both are looked at, position by position. Raises: Unrelated where they move at different speeds."""
        if self.stride != other.stride:
            raise Unrelated
        period = math.lcm(self.period, other.period)
        if period > MOST_PHASES:
            raise Unrelated
        pairs = [(self.at(index), other.at(index)) for index in range(period)]
        return AxisMap(
            int(self.stride * period),
            tuple(min(one[0], two[0]) for one, two in pairs),
            tuple(max(one[1], two[1]) for one, two in pairs),
        ).reduced()

    def whole(self, num_positions: int) -> AxisMap:
        """All that `num_positions` positions see together, as a map that stays where it is."""
        ends = [self.at(index) for index in range(num_positions)]
        return AxisMap(0, (min(first for first, _ in ends),), (max(last for _, last in ends),))

    def covers(self, other: AxisMap) -> bool:
        """For two maps that stay where they are: whether this one sees all that the other sees."""
        return self.first[0] <= other.first[0] and self.last[0] >= other.last[0]

    def reduced(self) -> AxisMap:
        """The same map with the shortest period."""
        for period in range(1, self.period):
            if self.period % period or self.jump * period % self.period:
                continue
            shorter = AxisMap(self.jump * period // self.period, self.first[:period], self.last[:period])
            if all(shorter.at(index) == self.at(index) for index in range(self.period)):
                return shorter
        return self


PIXELS = AxisMap(1, (0,), (0,))
