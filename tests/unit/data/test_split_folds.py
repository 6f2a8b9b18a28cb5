"""Folds, numbers for each class, and divisions that a file says."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conviction.core.config import parse
from conviction.core.errors import ConfigError, DataError
from conviction.data.pack import SPLIT_CODES, UNREADABLE_LABEL, Pack
from conviction.data.split import SplitConfig, Splits, divide

SEEDS = st.integers(0, 99)


def pack_with(*counts: int, groups_of: int = 0, given: dict[str, int] | None = None) -> Pack:
    """So many pictures of each class; in groups of a class where asked; the first of each class placed as `given`."""
    pairs = [(label, number) for label, count in enumerate(counts) for number in range(count)]
    words = [name for name, count in (given or {}).items() for _ in range(count)]
    codes = [SPLIT_CODES[words[number] if number < len(words) else None] for _, number in pairs]  # type: ignore[index]
    return Pack(
        np.zeros((len(pairs), 1, 1, 1), np.uint8),
        np.array([label for label, _ in pairs], np.int64),
        np.array(codes, np.int8),
        tuple(f"{label}/{number:03d}.png" for label, number in pairs),
        tuple(f"class-{number}" for number in range(len(counts))),
        *("digest", "set", (), ()),
        groups=tuple(f"{label}-{number // groups_of}" for label, number in pairs) if groups_of else (),
    )


def sets(splits: Splits) -> list[set[int]]:
    return [set(rows.tolist()) for rows in (splits.train, splits.validation, splits.sealed_test)]


def per_class(pack: Pack, rows: np.ndarray) -> list[int]:
    return np.bincount(pack.labels[rows], minlength=len(pack.classes)).tolist()


@given(
    counts=st.lists(st.integers(18, 50), min_size=1, max_size=4),
    groups_of=st.integers(0, 2),
    folds=st.integers(2, 6),
    seed=SEEDS,
)
@settings(deadline=None, max_examples=60)
def test_folds_are_disjoint_and_cover_what_the_test_split_leaves(
    counts: list[int], groups_of: int, folds: int, seed: int
) -> None:
    pack = pack_with(*counts, groups_of=groups_of)
    found = [sets(divide(pack, SplitConfig(test=0.1, folds=folds, fold=fold), seed)) for fold in range(1, folds + 1)]
    tests = [test for _, _, test in found]
    assert all(test == tests[0] for test in tests)
    everything = set(range(len(pack.paths)))
    assert sorted(itertools.chain(*(validation for _, validation, _ in found))) == sorted(everything - tests[0])
    for train, validation, test in found:
        assert train == everything - validation - test
        if pack.groups:
            names = [{pack.groups[row] for row in rows} for rows in (train, validation, test)]
            assert sum(map(len, names)) == len(set.union(*names))


@given(counts=st.lists(st.integers(12, 50), min_size=1, max_size=4), folds=st.integers(2, 6), seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_folds_of_a_class_differ_by_one_picture_at_most(counts: list[int], folds: int, seed: int) -> None:
    pack = pack_with(*counts)
    sizes = [
        per_class(pack, divide(pack, SplitConfig(test=0.1, folds=folds, fold=fold), seed).validation)
        for fold in range(1, folds + 1)
    ]
    for label in range(len(counts)):
        found = [size[label] for size in sizes]
        assert max(found) - min(found) <= 1


@given(counts=st.lists(st.integers(4, 10), min_size=2, max_size=4), seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_the_folds_of_equal_groups_differ_by_one_group_at_most(counts: list[int], seed: int) -> None:
    pack = pack_with(*(3 * count for count in counts), groups_of=3, given={"test": 3})
    sizes = [per_class(pack, divide(pack, SplitConfig(folds=3, fold=fold), seed).validation) for fold in range(1, 4)]
    for label in range(len(counts)):
        found = [size[label] for size in sizes]
        assert max(found) - min(found) in (0, 3)


def test_the_test_split_of_folds_is_that_without_folds() -> None:
    for groups_of in (0, 2):
        pack = pack_with(40, 30, groups_of=groups_of)
        plain = divide(pack, SplitConfig(test=0.2), 1).sealed_test.tolist()
        assert divide(pack, SplitConfig(test=0.2, folds=4, fold=3), 1).sealed_test.tolist() == plain


@given(more=st.integers(0, 20), fold=st.integers(1, 3), seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_pictures_added_to_one_class_move_none_of_another(more: int, fold: int, seed: int) -> None:
    configs = [SplitConfig(folds=3, fold=fold), SplitConfig(train_per_class=9)]
    for config in configs:
        before, after = (
            [rows & set(range(20)) for rows in sets(divide(pack, config, seed))]
            for pack in (pack_with(20, 20), pack_with(20, 20 + more))
        )
        assert before == after


def test_the_larger_folds_of_two_classes_are_not_always_the_same() -> None:
    # Ten classes of 16 pictures after the test split: each has one fold of four pictures and four of three.
    pack = pack_with(*[18] * 10)
    sizes = [len(divide(pack, SplitConfig(test=0.1, folds=5, fold=fold), 0).validation) for fold in range(1, 6)]
    assert sum(sizes) == 160
    assert max(sizes) < 40


def test_folds_keep_what_the_source_places() -> None:
    pack = pack_with(12, 12, given={"test": 3})
    found = [sets(divide(pack, SplitConfig(folds=3, fold=fold), 0)) for fold in (1, 2, 3)]
    assert all(test == {0, 1, 2, 12, 13, 14} for _, _, test in found)
    assert [len(validation) for _, validation, _ in found] == [6, 6, 6]
    with pytest.raises(ConfigError, match=r"split\.folds=3: the source places a validation split already"):
        divide(pack_with(12, 12, given={"validation": 3}), SplitConfig(folds=3, fold=1), 0)


def test_too_few_pictures_for_the_folds() -> None:
    message = r"The class 'class-1' has 4 pictures to divide into folds, and split\.folds=5 needs one for each"
    with pytest.raises(DataError, match=message):
        divide(pack_with(30, 5), SplitConfig(folds=5, fold=1), 0)


@given(counts=st.lists(st.integers(12, 40), min_size=1, max_size=4), number=st.integers(1, 10), seed=SEEDS)
@settings(deadline=None)
def test_so_many_of_each_class_train_and_the_rest_is_halved(counts: list[int], number: int, seed: int) -> None:
    pack = pack_with(*counts)
    splits = divide(pack, SplitConfig(train_per_class=number), seed)
    assert per_class(pack, splits.train) == [number] * len(counts)
    for count, validation, test in zip(
        counts, per_class(pack, splits.validation), per_class(pack, splits.sealed_test), strict=True
    ):
        # An odd one validates.
        assert (validation, test) == ((count - number + 1) // 2, (count - number) // 2)


def test_seventy_of_each_class_in_groups() -> None:
    splits = divide(pack := pack_with(100, 90, groups_of=2), SplitConfig(train_per_class=70), 0)
    assert [per_class(pack, rows) for rows in (splits.train, splits.validation, splits.sealed_test)] == [
        # 15 are no number of pairs: 14 and 16 are equally near, and what overshoots is not taken.
        [72, 70],
        [14, 10],
        [14, 10],
    ]


def test_numbers_for_each_class_beside_what_the_source_places() -> None:
    pack = pack_with(20, 16, given={"test": 4})
    splits = divide(pack, SplitConfig(train_per_class=10), 0)
    assert [per_class(pack, rows) for rows in (splits.train, splits.validation)] == [[10, 10], [6, 2]]
    pack = pack_with(20, 16, given={"train": 4})
    splits = divide(pack, SplitConfig(train_per_class=10), 0)
    assert {0, 1, 2, 3, 20, 21, 22, 23} <= set(splits.train.tolist())
    assert [per_class(pack, rows) for rows in (splits.train, splits.validation)] == [[10, 10], [5, 3]]


@pytest.mark.parametrize(
    ("counts", "given_places", "number", "message"),
    [
        ((30, 11), {}, 10, r"The class 'class-1' has 11 pictures, 0 of them placed in training.* validation each"),
        ((30, 30), {"train": 5}, 4, r"has 30 pictures, 5 of them placed in training: split\.train_per_class=4 cannot"),
        ((30, 10), {"test": 2}, 8, r"The class 'class-1' has 8 pictures"),
    ],
)
def test_numbers_for_each_class_that_are_not_there(
    counts: tuple[int, ...], given_places: dict[str, int], number: int, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        divide(pack_with(*counts, given=given_places), SplitConfig(train_per_class=number), 0)


def test_numbers_for_each_class_where_the_rest_has_no_place() -> None:
    pack = pack_with(30, 30, given={"validation": 3, "test": 3})
    with pytest.raises(ConfigError, match="the source places validation and test already"):
        divide(pack, SplitConfig(train_per_class=10), 0)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"folds": 5}, "folds=5 needs `fold`, the one that validates: a number from 1 to 5."),
        ({"fold": 2}, "fold=2 needs `folds`, the number of folds"),
        ({"folds": 5, "fold": 6}, "`fold <= folds` must hold, but got 6 and 5."),
        ({"folds": 1, "fold": 1}, "folds: must be at least 2, but got 1"),
        ({"folds": 5, "fold": 0}, "fold: must be at least 1, but got 0"),
        ({"folds": 2.5, "fold": 1}, "folds: must be a whole number"),
        ({"folds": 5, "fold": 1, "train_per_class": 7}, "train_per_class and folds are two ways"),
        ({"folds": 5, "fold": 1, "file": "a.csv"}, "folds and file are two ways"),
        ({"train_per_class": 7, "file": "a.csv"}, "train_per_class and file are two ways"),
        ({"train_per_class": 0}, "train_per_class: must be at least 1, but got 0"),
        ({"train_per_class": True}, "train_per_class: must be a whole number, but got true"),
        ({"file": ""}, "file"),
    ],
)
def test_settings_that_mean_nothing_together_are_refused(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(SplitConfig, chosen, "The recipe")
    assert message in str(caught.value)


def write(path: Path, *lines: str) -> SplitConfig:
    path.write_text("\n".join(lines))
    return SplitConfig(file=str(path))


@pytest.mark.parametrize("column", ["file", "path"])
def test_a_file_places_every_picture(column: str, tmp_path: Path) -> None:
    pack = pack_with(2, 2, given={"test": 1})
    lines = ["0/000.png,dev", "0/001.png,train", "1/000.png,Training", "1/001.png,test"]
    config = write(tmp_path / "split.csv", f"{column},split", *lines)
    assert sets(divide(pack, config, 0)) == [{1, 2}, {0}, {3}]
    objects = [f'{{"{column}": "{line.split(",")[0]}", "split": "{line.split(",")[1]}"}}' for line in lines]
    assert sets(divide(pack, write(tmp_path / "split.jsonl", *objects), 0)) == [{1, 2}, {0}, {3}]


def test_skipped_pictures_need_no_place_in_a_file(tmp_path: Path) -> None:
    pack = pack_with(3, 3)
    pack.labels[[0, 1]] = UNREADABLE_LABEL
    lines = ["file,split", "0/000.png,test", "0/002.png,train", "./1/000.png,val", "1/001.png,test", "1\\002.png,train"]
    assert sets(divide(pack, write(tmp_path / "split.csv", *lines), 0)) == [{2, 5}, {3}, {4}]


def test_one_class_alone_is_not_trained_on(tmp_path: Path) -> None:
    places = ["0/000.png,val", "0/001.png,test", "1/000.png,train", "1/001.png,train"]
    with pytest.raises(DataError, match="The training split holds one class only, 'class-1'; a classifier needs at"):
        divide(pack_with(2, 2), write(tmp_path / "split.csv", "file,split", *places), 0)


def test_classes_that_a_file_leaves_out_of_a_split_are_noted(tmp_path: Path) -> None:
    pack = pack_with(3, 2)
    places = ["0/000.png,val", "0/001.png,train", "0/002.png,test", "1/000.png,train", "1/001.png,test"]
    splits = divide(pack, write(tmp_path / "split.csv", "file,split", *places), 0)
    assert splits.notes(pack) == (*pack.notes, "The validation split has no pictures of 'class-1'.")


WHOLE = ("0/000.png,val", "0/001.png,train", "1/000.png,train", "1/001.png,test")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("file,split", *WHOLE[1:]), "leaves out 1 of 4 pictures: '0/000.png'. Its pictures are named as in set"),
        (("file,split", *WHOLE, "2.png,train"), "1 of 5 pictures are not there: '2.png'"),
        (("file,split", *WHOLE, WHOLE[0]), "line 6 lists '0/000.png' again, as"),
        (("file,split", "0/000.png,vall"), "line 2: no split is called 'vall'. Did you mean 'val'?"),
        (("file,split", "0/000.png,"), "line 2: no split is called ''"),
        (("name,split", *WHOLE), "line 2 has no 'file'"),
        (("file,part", *WHOLE), "has no column 'split'"),
        (("file,split",), "leaves out 4 of 4 pictures"),
        (("",), "split.csv is empty"),
        (("file,split", *(line.replace("test", "val") for line in WHOLE)), "The test split is empty"),
    ],
)
def test_faults_of_a_file(lines: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        divide(pack_with(2, 2), write(tmp_path / "split.csv", *lines), 0)
    assert message in str(caught.value)


def test_a_file_that_divides_a_group(tmp_path: Path) -> None:
    pack = pack_with(2, 2, groups_of=2)
    with pytest.raises(DataError, match=r"The group '0-0' is divided: '0/000.png' is placed in validation, and"):
        divide(pack, write(tmp_path / "split.csv", "file,split", *WHOLE), 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.csv", "No file "),
        (".", "is a folder"),
        ("split.parquet", "No file "),
        ("x" * 300 + ".csv", "File name too long"),
        ("a\0.csv", "embedded null byte"),
    ],
)
def test_a_file_that_is_not_there(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        divide(pack_with(2, 2), SplitConfig(file=str(tmp_path / name)), 0)
    assert message in str(caught.value)
    (tmp_path / "split.parquet").touch()
    with pytest.raises(DataError, match=r"lists end in \.csv, \.tsv, \.tab, \.jsonl, \.ndjson, but"):
        divide(pack_with(2, 2), SplitConfig(file=str(tmp_path / "split.parquet")), 0)


def test_a_division_is_listed_by_path() -> None:
    splits = Splits(np.array([1, 3]), np.array([0]), np.array([4]))
    assert splits.by_path(["a", "b", "c", "d", "e"]) == [
        ("a", "validation"),
        ("b", "train"),
        ("d", "train"),
        ("e", "test"),
    ]
