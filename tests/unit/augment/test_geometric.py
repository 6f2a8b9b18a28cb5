import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats
from torch import Generator, Tensor

from conviction.augment.geometric import Flip, FlipConfig, RandomCrop, RandomCropConfig
from conviction.augment.pipeline import Augmenter
from conviction.data.stream import Draw


def seeded(seed: int) -> Generator:
    return Generator().manual_seed(seed)


def horizontal_flip(images: Tensor, p: float, generator: Generator) -> Tensor:
    return Augmenter([Flip(0, p)], 2)(images, torch.zeros(len(images), dtype=torch.int64), Draw(generator))[0]


def random_crop(images: Tensor, padding_px: int, generator: Generator) -> Tensor:
    labels = torch.zeros(len(images), dtype=torch.int64)
    return Augmenter([RandomCrop(padding_px, "black")], 2)(images, labels, Draw(generator))[0]


def numbered(num_images: int, height: int = 3, width: int = 3) -> Tensor:
    """Pictures whose pixels count from one, so that black is what came in from outside."""
    pixels = torch.arange(1, height * width + 1, dtype=torch.uint8)
    return pixels.reshape(1, 1, height, width).repeat(num_images, 1, 1, 1)


def offsets_of(cropped: Tensor, padding_px: int) -> list[tuple[int, int]]:
    """Where each crop of `numbered` pictures was cut, read from the pixels: every place shows others."""
    plain = numbered(1, *cropped.shape[2:])[0, 0]
    height, width = plain.shape
    padded = torch.nn.functional.pad(plain, (padding_px,) * 4)
    places = {
        tuple(padded[row : row + height, column : column + width].flatten().tolist()): (row, column)
        for row in range(2 * padding_px + 1)
        for column in range(2 * padding_px + 1)
    }
    assert len(places) == (2 * padding_px + 1) ** 2
    return [places[tuple(image.flatten().tolist())] for image in cropped]


def test_a_flip_mirrors_columns() -> None:
    image = torch.tensor([[[[1, 2, 3], [4, 5, 6]]]], dtype=torch.uint8)
    assert horizontal_flip(image, 1.0, seeded(0)).tolist() == [[[[3, 2, 1], [6, 5, 4]]]]


@pytest.mark.parametrize(("p", "first"), [(0.0, 1), (1.0, 3)])
def test_never_and_always(p: float, first: int) -> None:
    flipped = horizontal_flip(numbered(2000), p, seeded(0))
    assert (flipped[:, 0, 0, 0] == first).all()


def test_flips_are_as_frequent_as_asked_for_and_independent() -> None:
    flips = horizontal_flip(numbered(20_000), 0.3, seeded(0))[:, 0, 0, 0] == 3
    assert stats.binomtest(int(flips.sum()), 20_000, 0.3).pvalue > 1e-3
    # Neighbours flip together with 0.3² and differ with 2 · 0.3 · 0.7.
    pairs = flips.reshape(-1, 2).sum(dim=1)
    assert stats.binomtest(int((pairs == 2).sum()), 10_000, 0.09).pvalue > 1e-3
    assert stats.binomtest(int((pairs == 1).sum()), 10_000, 0.42).pvalue > 1e-3
    again = horizontal_flip(numbered(20_000), 0.3, seeded(1))[:, 0, 0, 0] == 3
    assert stats.binomtest(int((flips & again).sum()), 20_000, 0.09).pvalue > 1e-3


def test_a_crop_is_cut_from_the_padded_picture() -> None:
    crops = random_crop(numbered(200, 2, 2), 1, seeded(0))
    by_offset = dict(zip(offsets_of(crops, 1), crops[:, 0].tolist(), strict=True))
    assert by_offset[0, 0] == [[0, 0], [0, 1]]
    assert by_offset[1, 1] == [[1, 2], [3, 4]]
    assert by_offset[2, 1] == [[3, 4], [0, 0]]
    assert by_offset[1, 2] == [[2, 0], [4, 0]]


@given(
    num_images=st.integers(1, 6),
    num_channels=st.sampled_from([1, 3]),
    height=st.integers(2, 9),
    width=st.integers(2, 9),
    padding_px=st.integers(1, 8),
    seed=st.integers(0, 999),
)
def test_crops_are_those_of_a_loop_with_the_same_offsets(
    num_images: int, num_channels: int, height: int, width: int, padding_px: int, seed: int
) -> None:
    assume(padding_px < min(height, width))
    shape = (num_images, num_channels, height, width)
    images = torch.randint(0, 256, shape, generator=seeded(seed), dtype=torch.uint8)
    rows, columns = torch.randint(0, 2 * padding_px + 1, (2, num_images), generator=seeded(seed + 1)).tolist()
    expected = np.zeros(shape, np.uint8)
    for image in range(num_images):
        for row in range(height):
            for column in range(width):
                from_row = row + rows[image] - padding_px
                from_column = column + columns[image] - padding_px
                if 0 <= from_row < height and 0 <= from_column < width:
                    expected[image, :, row, column] = images[image, :, from_row, from_column]
    assert np.array_equal(random_crop(images, padding_px, seeded(seed + 1)).numpy(), expected)


def test_every_offset_is_as_frequent_as_the_others() -> None:
    offsets = offsets_of(random_crop(numbered(25_000, 4, 4), 2, seeded(0)), 2)
    counts = np.zeros((5, 5))
    for row, column in offsets:
        counts[row, column] += 1
    assert counts.min() > 0
    assert stats.chisquare(counts.ravel()).pvalue > 1e-3


def test_offsets_of_neighbours_are_independent() -> None:
    offsets = offsets_of(random_crop(numbered(40_000, 3, 3), 1, seeded(0)), 1)
    table = np.zeros((9, 9))
    for (row, column), (next_row, next_column) in zip(offsets[0::2], offsets[1::2], strict=True):
        table[3 * row + column, 3 * next_row + next_column] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-3


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_probabilities_lie_between_zero_and_one(p: float) -> None:
    with pytest.raises(ValidationError):
        FlipConfig(p=p)


@pytest.mark.parametrize("padding_px", [0, -1, 1025, 1.5])
def test_paddings_are_whole_and_positive(padding_px: float) -> None:
    with pytest.raises(ValidationError):
        RandomCropConfig(padding_px=padding_px)  # type: ignore[arg-type]
