"""Maps of one side, against sets of pixels that are followed one by one."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conviction.nets.axis_map import PIXELS, AxisMap, Unrelated

# Position to the pixels it sees, on a side without ends.
Seen = Callable[[int], set[int]]


def pixel(index: int) -> set[int]:
    return {index}


def window(below: Seen, kernel: int, stride: int, padding: int, dilation: int) -> Seen:
    return lambda index: set().union(*(below(stride * index - padding + tap * dilation) for tap in range(kernel)))


def transposed(below: Seen, kernel: int, stride: int, padding: int, dilation: int) -> Seen:
    """From torch's definition: input `i` adds to the outputs `i·stride − padding + tap·dilation`."""

    def seen(index: int) -> set[int]:
        reach = kernel * dilation + stride + padding
        givers = [
            giver
            for giver in range((index - reach) // stride - 1, (index + reach) // stride + 2)
            if any(giver * stride - padding + tap * dilation == index for tap in range(kernel))
        ]
        return set().union(*map(below, givers))

    return seen


def enlarged(below: Seen, factor: int) -> Seen:
    return lambda index: below(index // factor)


sizes = st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(0, 2), st.integers(1, 2))
layers = st.lists(
    st.one_of(
        st.tuples(st.just("window"), sizes),
        st.tuples(st.just("transposed"), sizes),
        st.tuples(st.just("enlarged"), st.tuples(st.integers(1, 3))),
    ),
    max_size=4,
)


@given(layers)
def test_a_chain_of_layers_sees_what_a_brute_force_search_finds(chain: list[tuple[str, tuple[int, ...]]]) -> None:
    found, expected = PIXELS, pixel
    for kind, given_sizes in chain:
        if kind == "window":
            found, expected = found.windowed(*given_sizes), window(expected, *given_sizes)
        elif kind == "transposed":
            found, expected = found.transposed(*given_sizes), transposed(expected, *given_sizes)
        else:
            found, expected = found.enlarged(*given_sizes), enlarged(expected, *given_sizes)
    for index in range(-3, 2 * found.period + 3):
        first, last = found.at(index)
        pixels = expected(index)
        assert (first, last) == ((min(pixels), max(pixels)) if pixels else (float("inf"), -float("inf")))
    reached = [expected(index) for index in range(found.period)]
    assert found.size == max((max(pixels) - min(pixels) + 1 for pixels in reached if pixels), default=0)


@given(layers, layers)
def test_two_branches_together_see_what_either_sees(
    one: list[tuple[str, tuple[int, ...]]], two: list[tuple[str, tuple[int, ...]]]
) -> None:
    maps = []
    for chain in (one, two):
        found = PIXELS
        for kind, given_sizes in chain:
            change = {"window": found.windowed, "transposed": found.transposed, "enlarged": found.enlarged}[kind]
            found = change(*given_sizes)
        maps.append(found)
    if maps[0].stride != maps[1].stride:
        with pytest.raises(Unrelated):
            maps[0].united(maps[1])
        return
    both = maps[0].united(maps[1])
    for index in range(-5, 12):
        ends = [found.at(index) for found in maps]
        assert both.at(index) == (min(first for first, _ in ends), max(last for _, last in ends))


@pytest.mark.parametrize(("size", "output"), [(7, 7), (8, 4), (7, 3), (10, 4), (5, 8), (6, 1)])
def test_adaptive_pooling_looks_at_torchs_windows(size: int, output: int) -> None:
    pooled = PIXELS.pooled_to(size, output)
    for index in range(output):
        assert pooled.at(index) == (index * size // output, -(-(index + 1) * size // output) - 1)


def test_numbers_by_hand() -> None:
    # Two 3×3 convolutions see 5 pixels; a pooling of 2 between them makes it 3 + 1 + 2·2 = 8, with stride 2.
    assert PIXELS.windowed(3, 1, 1).windowed(3, 1, 1).size == 5
    pooled = PIXELS.windowed(3, 1, 1).windowed(2, 2, 0).windowed(3, 1, 1)
    assert (pooled.size, pooled.stride, pooled.at(0)) == (8, 2, (-3, 4))
    # A transposed convolution of 2 with stride 2 looks back at one position each: half a pixel a step.
    up = PIXELS.transposed(2, 2, 0)
    assert (up.size, up.stride, [up.at(index)[0] for index in range(4)]) == (1, Fraction(1, 2), [0, 0, 1, 1])
    # Bilinear by 2: output 0 lies a quarter before the first pixel, between pixels -1 and 0; output 1 between 0 and 1.
    smooth = PIXELS.enlarged(2, bilinear=True)
    assert [smooth.at(index) for index in range(3)] == [(-1, 0), (0, 1), (0, 1)]
    # Stride 3 with a kernel of 1 leaves gaps: every third output sees something.
    sparse = PIXELS.transposed(1, 3, 0)
    assert [sparse.at(index) for index in (0, 3)] == [(0, 0), (1, 1)]
    assert sparse.at(1) == sparse.at(2) == (float("inf"), -float("inf"))


def test_the_shortest_period_is_kept() -> None:
    assert AxisMap(4, (0, 2), (0, 2)).reduced() == AxisMap(2, (0,), (0,))
    assert AxisMap(4, (0, 1), (0, 1)).reduced().period == 2
    assert PIXELS.enlarged(4).windowed(4, 4, 0) == PIXELS
