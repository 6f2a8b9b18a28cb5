from __future__ import annotations

import itertools
import json

from conviction.core.audit_record import AuditPicture, AuditRecord
from conviction.core.records import SplitName, from_json, to_json
from conviction.data.audit.grouping import grouped
from small_audit import PICTURES, audit_record, pair


def test_json_without_loss() -> None:
    record = audit_record()
    assert from_json(AuditRecord, json.loads(json.dumps(to_json(record)))) == record


def test_leaks_are_counted_by_pictures_not_by_pairs() -> None:
    """t1 has two copies in training; v1 one in training and one in test, of which the latter is test's leak."""
    record = audit_record(pair("a1", "t1"), pair("a2", "t1"), pair("a1", "v1"), pair("v1", "t2"), pair("t3", "t4"))
    assert record.leaked == {"validation": 1, "test": 2}


def test_pairs_are_counted_by_splits_and_kind() -> None:
    record = audit_record(pair("a1", "t1"), pair("a1", "t2", "near"), pair("a2", "t2", "near"), pair("t3", "t4"))
    assert record.count_pairs(("train", "test")) == {"exact": 1, "near": 2}
    assert record.count_pairs(("test", "test")) == {"exact": 1}
    found = record.as_json()
    assert found["num_pairs"]["train-test"] == {"exact": 1, "near": 2, "mirrored": 0}
    assert found["num_pairs"]["test"] == {"exact": 1, "near": 0, "mirrored": 0}
    assert found["leaked"] == {"validation": 0, "test": 2}


def test_groups_are_joined_and_in_the_order_of_their_weight() -> None:
    pairs = (
        pair("t3", "t4", "near", 0.9),
        pair("a1", "a2", "near", 0.95),
        pair("a2", "a3", "mirrored", 0.9),
        pair("a4", "d1"),
        pair("d2", "t1"),
    )
    groups = grouped(pairs)
    assert [[picture.path for picture in group.pictures] for group in groups] == [
        ["d2", "t1"],
        ["a4", "d1"],
        ["a1", "a2", "a3"],
        ["t3", "t4"],
    ]
    assert [group.is_leak for group in groups] == [True, False, False, False]
    assert [group.is_contradicting for group in groups] == [True, True, False, False]
    assert groups[2].kinds == ("near", "mirrored")
    assert (groups[2].num_pairs, groups[2].lowest_similarity) == (2, 0.9)
    assert groups[0].splits == ("train", "test")


def test_long_chains_are_one_group() -> None:
    names = [f"p{number}" for number in range(5000)]
    PICTURES.update({name: AuditPicture(name, "cat", "train") for name in names})
    [group] = grouped([pair(one, other) for one, other in itertools.pairwise(names)])
    assert len(group.pictures) == 5000


def test_smallest_and_largest_class_by_hand() -> None:
    counts: dict[SplitName, dict[str, int]] = {
        "train": {"cat": 5, "dog": 2, "owl": 2},
        "validation": {"cat": 0, "dog": 9, "owl": 0},
        "test": {"cat": 0, "dog": 9, "owl": 0},
    }
    assert audit_record(counts=counts).smallest_and_largest_class() == (("dog", 2), ("cat", 5))
