from __future__ import annotations

import numpy as np
import pytest
import torch

from conviction.core.errors import DataError
from conviction.data.audit import pairing
from conviction.data.audit.pairing import find_pairs, similar_pairs
from conviction.data.audit.signature import mirror_signs, signatures
from pictures import brightened, jpeg_again, resized_and_back, scene

NUM_SCENES = 60


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels @ [0.299, 0.587, 0.114]).astype(np.uint8)


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [scene(seed, (32, 32)) for seed in range(NUM_SCENES)]


def pairs_of(pictures: list[np.ndarray], similarity: float = 0.85) -> list[tuple[str, int, int]]:
    thumbnails = np.stack([grey(picture) for picture in pictures])
    digests = [picture.tobytes() for picture in pictures]
    found, _ = find_pairs(thumbnails, digests, np.arange(len(pictures)), similarity)
    return [(kind, first, second) for kind, _, first, second in found]


def test_scenes_alone_have_no_pairs(scenes: list[np.ndarray]) -> None:
    assert pairs_of(scenes) == []


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("exact", np.copy),
        ("near", jpeg_again),
        ("near", resized_and_back),
        ("near", brightened),
        ("mirrored", lambda pixels: np.ascontiguousarray(pixels[:, ::-1])),
        ("mirrored", lambda pixels: jpeg_again(np.ascontiguousarray(pixels[:, ::-1]))),
    ],
)
def test_each_change_is_found_and_called_by_its_name(scenes: list[np.ndarray], kind: str, change: object) -> None:
    copies = [change(picture) for picture in scenes[10:20]]  # type: ignore[operator]
    assert pairs_of(scenes + copies) == [(kind, 10 + number, NUM_SCENES + number) for number in range(10)]


def test_upside_down_is_another_picture(scenes: list[np.ndarray]) -> None:
    assert pairs_of([*scenes, scenes[0][::-1].copy()]) == []


def test_copies_of_copies_are_all_paired(scenes: list[np.ndarray]) -> None:
    found = pairs_of([*scenes, scenes[0], jpeg_again(scenes[0])])
    first, exact, near = 0, NUM_SCENES, NUM_SCENES + 1
    assert found == [("exact", first, exact), ("near", first, near), ("near", exact, near)]


def test_the_order_of_pictures_does_not_matter(scenes: list[np.ndarray]) -> None:
    pictures = [*scenes, jpeg_again(scenes[3]), brightened(scenes[7]), scenes[9][:, ::-1].copy()]
    order = np.random.default_rng(0).permutation(len(pictures))
    shuffled = pairs_of([pictures[place] for place in order])
    back = sorted((kind, *sorted((int(order[one]), int(order[other])))) for kind, one, other in shuffled)
    assert back == sorted(pairs_of(pictures)) != []


def test_a_symmetrical_pictures_copy_is_not_called_mirrored(scenes: list[np.ndarray]) -> None:
    half = scenes[0][:, :16]
    symmetrical = np.concatenate([half, half[:, ::-1]], axis=1)
    assert pairs_of([*scenes, symmetrical, jpeg_again(symmetrical)]) == [("near", NUM_SCENES, NUM_SCENES + 1)]


def test_plain_pictures_are_not_alike_but_counted() -> None:
    """Two skies: nothing but a codec's noise, which would be all that a comparison saw."""
    random = np.random.default_rng(0)
    skies = [random.integers(200, 204, (32, 32)).astype(np.uint8) for _ in range(30)]
    skies.append(skies[0])
    found, plain = find_pairs(np.stack(skies), [sky.tobytes() for sky in skies], np.arange(31), 0.5)
    assert found == [("exact", 1.0, 0, 30)]
    assert plain == [0, 30, *range(1, 30)]


@pytest.mark.parametrize("block", [1, 7, 64, 100, 512])
def test_blocks_do_not_change_what_is_found(block: int) -> None:
    """Against a comparison of all pairs, one by one, with the mirrored signature itself."""
    thumbnails = torch.from_numpy(np.stack([grey(scene(seed, (32, 32))) for seed in range(100)]))
    found, _ = signatures(thumbnails)
    least = torch.linspace(0.1, 0.3, len(found))
    expected = []
    for one in range(len(found)):
        for other in range(one + 1, len(found)):
            plain = float(found[one] @ found[other])
            flipped = float((found[one] * mirror_signs()) @ found[other])
            wanted = float(max(least[one], least[other]))
            assert min(abs(plain - wanted), abs(flipped - wanted)) > 1e-6
            if max(plain, flipped) >= wanted:
                expected.append(("near" if plain >= wanted else "mirrored", one, other))
    seen = list(similar_pairs(found, least, block=block))
    assert sorted((kind, one, other) for kind, _, one, other in seen) == sorted(expected)
    assert len(expected) > 50


def test_progress_ends_with_the_whole(scenes: list[np.ndarray]) -> None:
    told: list[tuple[int, int]] = []
    found, _ = signatures(torch.from_numpy(np.stack([grey(picture) for picture in scenes])))
    list(similar_pairs(found, torch.ones(len(found)), lambda done, total: told.append((done, total)), block=25))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_too_many_copies_are_refused(monkeypatch: pytest.MonkeyPatch, scenes: list[np.ndarray]) -> None:
    monkeypatch.setattr(pairing, "MOST_PAIRS", 10)
    assert len(pairs_of([*scenes, *[scenes[0]] * 4])) == 10
    for many in ([scenes[0]] * 5, [scenes[0]] * 3 + [jpeg_again(scenes[0])] * 2):
        with pytest.raises(DataError, match=r"More than 10 pairs of pictures look alike at similarity 0\.85"):
            pairs_of([*scenes, *many])
