"""Parts brought to one size: by hand, and image by image against torchvision."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from conviction.augment import parts as augment_parts
from conviction.augment import warp
from conviction.augment.base import Placement
from conviction.augment.geometric import Flip, RandomCrop, shifts
from conviction.augment.parts import Parts, resized_parts, whole_parts
from conviction.augment.pipeline import Augmenter
from conviction.augment.shrink import smoothed_warp
from conviction.augment.warp import RandomResizedCrop, RandomResizedCropConfig, RotateConfig, Warp
from conviction.data.stream import Draw

NUM, HEIGHT, WIDTH = 24, 33, 40


def pictures(channels: int = 3) -> Tensor:
    """Noise: where it is not smoothed, shrinking it gives quite other values."""
    return torch.randint(
        0, 256, (NUM, channels, HEIGHT, WIDTH), dtype=torch.uint8, generator=Generator().manual_seed(5)
    )


def seeded() -> Draw:
    return Draw(Generator().manual_seed(0))


def cropped(size_px: int, **settings: float) -> RandomResizedCrop:
    return RandomResizedCrop(RandomResizedCropConfig(size_px=size_px, **settings))  # type: ignore[arg-type]


def placed(placements: list[Placement], images: Tensor) -> Tensor:
    return Augmenter(placements, 2)(images, torch.zeros(len(images), dtype=torch.int64), seeded())[0]


def expected_parts(crop: RandomResizedCrop, images: Tensor, size_px: int) -> list[Tensor]:
    """torchvision's, of the parts that the crop draws first."""
    found = whole_parts(crop.matrices(NUM, (HEIGHT, WIDTH), seeded()), (HEIGHT, WIDTH), (size_px, size_px))
    assert found.is_whole_B.all()
    parts = found.part_B4.tolist()
    assert len(set(map(tuple, parts))) > NUM // 2
    assert all(min(part) >= 0 and part[0] + part[2] <= HEIGHT and part[1] + part[3] <= WIDTH for part in parts)
    sides = [size_px, size_px]
    return [
        functional.resized_crop(image, *part, sides, antialias=True) for image, part in zip(images, parts, strict=True)
    ]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [8, 16, 32])
def test_equal_to_torchvision_in_grey_levels(size_px: int, channels: int) -> None:
    """Within one level: of small images we round once, and torchvision after each side."""
    images, crop = pictures(channels), cropped(size_px, smallest_area=0.1)
    found = placed([crop], images)
    assert found.dtype == torch.uint8
    off = found.int() - torch.stack(expected_parts(crop, images, size_px)).int()
    assert off.abs().max() <= 1
    assert abs(off.float().mean()) < 0.05


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size_px", [8, 32])
def test_of_large_pictures_it_is_the_same(size_px: int, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_parts, "_FEW_PRODUCTS", 0)
    images, crop = pictures(channels), cropped(size_px, smallest_area=0.1)
    found = placed([crop], images)
    assert torch.equal(found, torch.stack(expected_parts(crop, images, size_px)))


@pytest.mark.parametrize("few_products", [0, 10**9])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equal_to_torchvision_on_float(
    layout: torch.memory_format, few_products: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(augment_parts, "_FEW_PRODUCTS", few_products)
    images, crop = (pictures().float() / 255).contiguous(memory_format=layout), cropped(16)
    found = placed([crop], images)
    torch.testing.assert_close(found, torch.stack(expected_parts(crop, images, 16)), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("few_products", [0, 10**9])
@pytest.mark.parametrize("axis", [0, 1])
def test_flips_are_part_of_it(axis: int, few_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment_parts, "_FEW_PRODUCTS", few_products)
    images, crop = pictures(), cropped(16)
    always, expected = Flip(axis, 1.0), torch.stack(expected_parts(crop, images, 16))
    off = placed([crop, always], images).int() - expected.flip(3 - axis).int()
    assert off.abs().max() <= (1 if few_products else 0)


@pytest.mark.parametrize("few_products", [0, 10**9])
def test_by_hand(few_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four pixels become two: the weights 3, 3, 1 (of 7) of a triangle that reaches two pixels to each side."""
    monkeypatch.setattr(augment_parts, "_FEW_PRODUCTS", few_products)
    row = torch.tensor([0, 0, 70, 140], dtype=torch.uint8)
    image = row.repeat(2, 1)[None, None]
    whole = Parts(torch.tensor([[0, 0, 2, 4]]), torch.tensor([[False, False]]), torch.tensor([True]))
    assert resized_parts(image, whole, (1, 2)).flatten().tolist() == [10, 90]
    flipped = replace(whole, is_flipped_B2=torch.tensor([[False, True]]))
    assert resized_parts(image, flipped, (1, 2)).flatten().tolist() == [90, 10]


@pytest.mark.parametrize("few_products", [0, 10**9])
def test_of_no_images_there_are_no_parts(few_products: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where every image of a batch is turned."""
    monkeypatch.setattr(augment_parts, "_FEW_PRODUCTS", few_products)
    none = Parts(torch.zeros(0, 4, dtype=torch.int64), torch.zeros(0, 2, dtype=torch.bool), torch.zeros(0).bool())
    assert resized_parts(pictures()[:0], none, (16, 16)).shape == (0, 3, 16, 16)


@given(data=st.data(), sizes=st.tuples(*[st.integers(1, 8192)] * 4), is_flipped=st.tuples(st.booleans(), st.booleans()))
def test_a_part_is_found_again(
    data: st.DataObject, sizes: tuple[int, int, int, int], is_flipped: tuple[bool, bool]
) -> None:
    old, new = sizes[:2], sizes[2:]
    sides = [data.draw(st.integers(1, side)) for side in old]
    first = [data.draw(st.integers(0, side - part)) for side, part in zip(old, sides, strict=True)]
    middle = [start + (part - side) / 2 for start, part, side in zip(first, sides, old, strict=True)]
    matrix = shifts(torch.tensor([middle[1]]), torch.tensor([middle[0]]))
    matrix[:, 0, 0], matrix[:, 1, 1] = sides[1] / new[1], sides[0] / new[0]
    signs = torch.tensor([-1.0 if is_flipped[1] else 1.0, -1.0 if is_flipped[0] else 1.0, 1.0])
    found = whole_parts(matrix @ signs.diag(), old, new)
    assert found.is_whole_B.tolist() == [True]
    assert found.part_B4.tolist() == [[*first, *sides]]
    assert found.is_flipped_B2.tolist() == [list(is_flipped)]


@pytest.mark.parametrize(
    ("why", "change"),
    [
        ("turned", lambda matrix: matrix @ warp.rotation(torch.tensor([1.0]))),
        ("half a pixel aside", lambda matrix: matrix @ shifts(torch.tensor([0.5]), torch.tensor([0.0]))),
        ("beyond the edge", lambda matrix: matrix @ shifts(torch.tensor([0.0]), torch.tensor([-9.0]))),
        ("enlarged to parts of pixels", lambda matrix: matrix @ warp.scaling(torch.tensor([0.97]))),
    ],
)
def test_what_is_no_whole_part(why: str, change: object) -> None:
    matrix = torch.eye(3)[None]
    both = torch.cat([matrix, change(matrix)])  # type: ignore[operator]
    assert whole_parts(both, (16, 16), (16, 16)).is_whole_B.tolist() == [True, False], why


def test_with_a_shift_by_parts_of_pixels_it_is_one_resampling() -> None:
    images, crop, shift = pictures(), cropped(16), RandomCrop(4, "edge")
    draw = seeded()
    matrices = crop.matrices(NUM, (HEIGHT, WIDTH), draw) @ shift.matrices(NUM, (16, 16), draw)
    other = ~whole_parts(matrices, (HEIGHT, WIDTH), (16, 16)).is_whole_B
    assert other.sum() > NUM // 2
    expected = smoothed_warp(images, matrices, (16, 16), "edge", "bilinear")
    assert torch.equal(placed([crop, shift], images)[other], expected[other])


def test_a_turned_neighbour_is_nothing_to_an_image() -> None:
    images, crop = pictures(), cropped(16, smallest_area=0.5)
    turned = Warp(RotateConfig(degrees=20, p=0.3))
    draw = seeded()
    crop.matrices(NUM, (HEIGHT, WIDTH), draw)
    is_turned = (turned.matrices(NUM, (16, 16), draw)[:, 0, 1] != 0).tolist()
    assert 0 < sum(is_turned) < NUM
    alone, together = placed([crop], images), placed([crop, turned], images)
    is_same = [torch.equal(one, other) for one, other in zip(alone, together, strict=True)]
    assert is_same == [not one for one in is_turned]


def test_every_type_of_float_is_taken() -> None:
    images = pictures().double() / 255
    found = placed([cropped(16)], images)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found.float(), placed([cropped(16)], images.float()))
    assert placed([cropped(16)], images.half()).dtype == torch.float16


def test_nearest_is_not_smoothed() -> None:
    images = pictures()
    found = placed([cropped(8, interpolation="nearest")], images)  # type: ignore[arg-type]
    assert all(set(new.unique().tolist()) <= set(old.unique().tolist()) for new, old in zip(found, images, strict=True))
