import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conviction.core.config import parse
from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack
from conviction.data.split import SplitConfig, Splits, divide


def pack_of(paths: Sequence[str], labels: Sequence[int], splits: Sequence[int] | None = None) -> Pack:
    splits = [SPLIT_CODES[None]] * len(paths) if splits is None else splits
    classes = tuple(f"class-{number}" for number in range(max(labels) + 1))
    images = np.zeros((len(paths), 1, 1, 1), np.uint8)
    return Pack(
        images, np.array(labels, np.int64), np.array(splits, np.int8), tuple(paths), classes, "digest", "set", (), ()
    )


def pack_with(*counts: int) -> Pack:
    """So many pictures of each class, none placed in a split."""
    pairs = [(f"{label}/{number:04d}", label) for label, count in enumerate(counts) for number in range(count)]
    return pack_of([path for path, _ in pairs], [label for _, label in pairs])


def rows_of(splits: Splits) -> list[list[int]]:
    return [splits.train.tolist(), splits.validation.tolist(), splits.sealed_test.tolist()]


def paths_of(pack: Pack, rows: np.ndarray) -> set[str]:
    return {pack.paths[row] for row in rows}


def class_counts(pack: Pack, rows: np.ndarray) -> list[int]:
    return [int((pack.labels[rows] == label).sum()) for label in range(len(pack.classes))]


SHARES = st.floats(0.01, 0.4)


@given(
    counts=st.lists(st.integers(6, 40), min_size=1, max_size=6), validation=SHARES, test=SHARES, seed=st.integers(0, 99)
)
def test_every_picture_is_in_one_split_and_shares_hold_within_one_picture(
    counts: list[int], validation: float, test: float, seed: int
) -> None:
    pack = pack_with(*counts)
    splits = divide(pack, SplitConfig(validation=validation, test=test), seed)
    assert sorted(itertools.chain(*rows_of(splits))) == list(range(sum(counts)))
    for rows, share in ((splits.validation, validation), (splits.sealed_test, test)):
        for found, count in zip(class_counts(pack, rows), counts, strict=True):
            assert abs(found - share * count) < 1
            assert found >= 1


@given(
    counts=st.lists(st.integers(9, 40), min_size=1, max_size=6),
    validation=st.integers(1, 4),
    test=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_numbers_of_pictures_are_exact_and_spread_in_proportion(
    counts: list[int], validation: int, test: int, seed: int
) -> None:
    pack = pack_with(*counts)
    splits = divide(pack, SplitConfig(validation=validation, test=test), seed)
    assert (len(splits.validation), splits.num_test) == (validation, test)
    assert sorted(itertools.chain(*rows_of(splits))) == list(range(sum(counts)))
    for rows, number in ((splits.validation, validation), (splits.sealed_test, test)):
        for found, count in zip(class_counts(pack, rows), counts, strict=True):
            assert abs(found - number * count / sum(counts)) < 1


def test_shares_by_hand() -> None:
    # 0.25 of 10, 20 and 7 are 2.5, 5 and 1.75; halves are rounded up. A tenth is 1, 2 and 0.7, and at least one.
    splits = divide(pack := pack_with(10, 20, 7), SplitConfig(validation=0.25, test=0.1), 0)
    assert class_counts(pack, splits.validation) == [3, 5, 2]
    assert class_counts(pack, splits.sealed_test) == [1, 2, 1]
    assert class_counts(pack, splits.train) == [6, 13, 4]


def test_numbers_by_hand() -> None:
    # 10 of 37 over 10, 20 and 7 are 2.70, 5.41 and 1.89: the two pictures over 2 + 5 + 1 go to .89 and .70.
    splits = divide(pack := pack_with(10, 20, 7), SplitConfig(validation=10, test=0.1), 0)
    assert class_counts(pack, splits.validation) == [3, 5, 2]


def test_rows_ascend() -> None:
    for rows in rows_of(divide(pack_with(30, 30), SplitConfig(), 3)):
        assert rows == sorted(rows)


def test_the_test_split_stays_when_the_validation_share_changes() -> None:
    pack = pack_with(40, 25, 60)
    tests = [
        divide(pack, SplitConfig(validation=validation, test=0.2), 5).sealed_test.tolist()
        for validation in (0.05, 0.1, 0.5, 3, 30)
    ]
    assert all(rows == tests[0] for rows in tests)


def test_a_larger_validation_share_keeps_the_smaller_one() -> None:
    pack = pack_with(40, 25)
    small, large = (set(divide(pack, SplitConfig(validation=share), 5).validation) for share in (0.1, 0.3))
    assert small < large


def test_pictures_added_to_one_class_move_none_of_another() -> None:
    small, large = pack_with(30, 30), pack_with(30, 45)
    before, after = (divide(pack, SplitConfig(validation=0.2, test=0.2), 1) for pack in (small, large))
    for name in ("train", "validation", "sealed_test"):
        kept = [
            {path for path in paths_of(pack, getattr(splits, name)) if path.startswith("0/")}
            for pack, splits in ((small, before), (large, after))
        ]
        assert kept[0] == kept[1]


def test_the_order_of_the_pictures_does_not_matter() -> None:
    plain = pack_with(30, 20)
    order = np.random.default_rng(0).permutation(50)
    mixed = pack_of([plain.paths[row] for row in order], plain.labels[order].tolist())
    for config in (SplitConfig(), SplitConfig(validation=7, test=5)):
        first, second = divide(plain, config, 4), divide(mixed, config, 4)
        for name in ("train", "validation", "sealed_test"):
            assert paths_of(plain, getattr(first, name)) == paths_of(mixed, getattr(second, name))


def test_the_seed_decides_the_division() -> None:
    pack = pack_with(50, 50)
    assert rows_of(divide(pack, SplitConfig(), 1)) == rows_of(divide(pack, SplitConfig(), 1))
    assert divide(pack, SplitConfig(), 1).digest() == divide(pack, SplitConfig(), 1).digest()
    digests = {divide(pack, SplitConfig(), seed).digest() for seed in range(20)}
    assert len(digests) == 20


@pytest.mark.parametrize(
    ("pack", "config", "seed", "digest"),
    [
        (pack_with(30, 20, 7), SplitConfig(validation=0.2, test=0.1), 3, "da8fcb2bac9afaff74a2243d0d0467f2"),
        (pack_with(30, 20, 7), SplitConfig(validation=7, test=5), 3, "928da95750f2544a10285048372eabcd"),
    ],
    ids=["shares", "numbers"],
)
def test_divisions_stay_those_of_earlier_versions(pack: Pack, config: SplitConfig, seed: int, digest: str) -> None:
    # A run can be evaluated and resumed only where its division comes out again.
    assert divide(pack, config, seed).digest().startswith(digest)


def test_the_splits_own_seed_comes_first() -> None:
    pack = pack_with(50, 50)
    assert rows_of(divide(pack, SplitConfig(seed=1), 2)) == rows_of(divide(pack, SplitConfig(), 1))


def test_every_picture_is_drawn_as_often_as_the_others() -> None:
    pack = pack_with(10, 10)
    counts = Counter(
        int(row) for seed in range(500) for row in divide(pack, SplitConfig(validation=0.2, test=0.1), seed).validation
    )
    # 500 draws with p = 0.2: the deviation is √80 = 8.9, and five of them bound twenty counts.
    assert all(abs(counts[row] - 100) < 45 for row in range(20))


def placed(**names: int) -> Pack:
    """Class folders of two classes with so many pictures of each in the given splits."""
    triples = [
        (f"{name}/{label}/{number:03d}", label, SPLIT_CODES[name])  # type: ignore[index]
        for name, count in names.items()
        for label in range(2)
        for number in range(count)
    ]
    return pack_of(
        [path for path, _, _ in triples], [label for _, label, _ in triples], [code for _, _, code in triples]
    )


def test_given_splits_are_kept() -> None:
    pack = placed(train=5, validation=2, test=3)
    splits = divide(pack, SplitConfig(validation=0.4, test=0.4), 0)
    assert rows_of(splits) == [list(range(10)), list(range(10, 14)), list(range(14, 20))]


def test_validation_is_drawn_from_a_given_training_split() -> None:
    splits = divide(placed(train=10, test=3), SplitConfig(validation=0.2, test=0.4), 0)
    assert splits.sealed_test.tolist() == list(range(20, 26))
    assert len(splits.validation) == 4
    assert sorted([*splits.train, *splits.validation]) == list(range(20))


def test_test_is_drawn_from_a_given_training_split() -> None:
    splits = divide(placed(train=10, validation=3), SplitConfig(validation=0.4, test=0.2), 0)
    assert splits.validation.tolist() == list(range(20, 26))
    assert sorted([*splits.train, *splits.sealed_test]) == list(range(20))


def test_a_given_test_split_does_not_move_validation() -> None:
    alone, beside = (divide(pack, SplitConfig(test=0.1), 0) for pack in (placed(train=20), placed(train=20, test=9)))
    assert len(alone.validation) == len(beside.validation) == 4
    assert set(beside.validation) <= set(range(40))


def test_skipped_pictures_are_in_no_split() -> None:
    plain = pack_with(20, 20)
    labels = plain.labels.copy()
    labels[[3, 30]] = UNREADABLE_LABEL
    splits = divide(pack_of(plain.paths, labels.tolist()), SplitConfig(), 0)
    assert sorted(itertools.chain(*rows_of(splits))) == [row for row in range(40) if row not in (3, 30)]


def test_a_class_with_too_few_pictures_is_named() -> None:
    message = r"The class 'class-1' has 2 pictures, and test and validation take 2 of them: none is left to train on"
    with pytest.raises(DataError, match=message):
        divide(pack_with(30, 2), SplitConfig(), 0)
    divide(pack_with(30, 3), SplitConfig(), 0)


def test_numbers_beyond_what_is_there_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"split\.validation: 60 pictures are asked for, but only 60 are there"):
        divide(pack_with(30, 30), SplitConfig(validation=60), 0)
    with pytest.raises(DataError, match=r"none is left to train on\. Add pictures, or lower split\.validation"):
        divide(pack_with(30, 30), SplitConfig(validation=40, test=20), 0)


def test_a_split_that_stays_empty_is_named() -> None:
    pack = placed(train=3, test=2)
    labels = pack.labels.copy()
    labels[pack.splits == SPLIT_CODES["train"]] = UNREADABLE_LABEL
    with pytest.raises(DataError, match="The training split is empty"):
        divide(pack_of(pack.paths, labels.tolist(), pack.splits.tolist()), SplitConfig(), 0)


@pytest.mark.parametrize("value", [0, -1, 0.0, 1.0, 2.0, -0.1, True, "half", None])
def test_shares_that_mean_nothing_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match="validation"):
        parse(SplitConfig, {"validation": value}, "The recipe")


def test_the_digest_tells_divisions_with_the_same_rows_apart() -> None:
    one, two, three = np.array([1]), np.array([2]), np.array([3])
    digests = {
        Splits(one, two, three).digest(),
        Splits(one, three, two).digest(),
        Splits(np.array([1, 2]), np.zeros(0, int), three).digest(),
    }
    assert len(digests) == 3
