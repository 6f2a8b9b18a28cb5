import dataclasses
import json
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conviction.core.records import (
    DataRecord,
    EpochRecord,
    Evaluation,
    RunSummary,
    Score,
    SplitName,
    Status,
    Timing,
    from_json,
    to_json,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCORES = st.builds(Score, FLOATS, FLOATS, st.integers())
EPOCHS = st.builds(EpochRecord, st.integers(), FLOATS, SCORES, st.none() | SCORES, st.none() | SCORES)
TEXTS = st.lists(st.text(max_size=5), max_size=3).map(tuple)
DATA = st.builds(DataRecord, classes=TEXTS, notes=TEXTS)
SUMMARIES = st.builds(
    RunSummary,
    status=st.sampled_from(get_args(Status)),
    data=DATA,
    seconds=FLOATS,
    images_per_second=FLOATS,
    best=st.none() | EPOCHS,
    last=st.none() | EPOCHS,
)
EVALUATIONS = st.builds(
    Evaluation,
    split=st.sampled_from(get_args(SplitName)),
    accuracy=FLOATS,
    loss=FLOATS,
    detail=st.dictionaries(st.text(max_size=5), FLOATS, max_size=3),
    interval_95=st.tuples(FLOATS, FLOATS),
    accuracy_by_class=st.dictionaries(st.text(max_size=5), st.none() | FLOATS, max_size=3),
)
TIMINGS = st.builds(Timing, st.integers(), FLOATS, FLOATS, FLOATS, st.integers())


@given(SUMMARIES | EVALUATIONS | EPOCHS | TIMINGS | DATA)
def test_json_restores_every_record_exactly(record: Any) -> None:
    restored = from_json(type(record), json.loads(json.dumps(to_json(record), allow_nan=False)))
    assert restored == record
    assert repr(restored) == repr(record)


EPOCH: dict[str, Any] = {
    "epoch": 3,
    "learning_rate": 0.1,
    "validation": {"accuracy": 0.5, "loss": 1.25, "count": 8},
    "train": None,
}
EVALUATION: dict[str, Any] = {
    "run": "a",
    "split": "test",
    "weights": "best",
    "epoch": 3,
    "accuracy": 0.5,
    "loss": 1.25,
    "count": 8,
    "openings": 1,
    "test_set_openings": 1,
    "evaluated_at": "2026-01-31T10:00:00+00:00",
    "interval_95": [0.25, 0.75],
    "accuracy_by_class": {"cat": 0.5, "dog": None},
    "detail": {"macro_f1": 0.5},
}


def test_a_record_is_restored_from_plain_json() -> None:
    assert from_json(EpochRecord, EPOCH) == EpochRecord(3, 0.1, Score(0.5, 1.25, 8))
    evaluation = from_json(Evaluation, EVALUATION)
    assert evaluation.interval_95 == (0.25, 0.75)
    assert evaluation.accuracy_by_class == {"cat": 0.5, "dog": None}


def test_a_whole_number_stands_for_a_float() -> None:
    restored = from_json(Score, {"accuracy": 1, "loss": 0, "count": 8})
    assert repr(restored) == "Score(accuracy=1.0, loss=0.0, count=8)"


@pytest.mark.parametrize(
    ("kind", "good", "changes", "message"),
    [
        (EpochRecord, EPOCH, {"epoch": 3.0}, "int expected, got 3.0"),
        (EpochRecord, EPOCH, {"epoch": True}, "int expected, got True"),
        (EpochRecord, EPOCH, {"epoch": "3"}, "int expected, got '3'"),
        (EpochRecord, EPOCH, {"epoch": None}, "int expected, got None"),
        (EpochRecord, EPOCH, {"learning_rate": "0.1"}, "float expected, got '0.1'"),
        (EpochRecord, EPOCH, {"learning_rate": False}, "float expected, got False"),
        (EpochRecord, EPOCH, {"learning_rate": 2**53 + 1}, "float expected, got 9007199254740993"),
        (EpochRecord, EPOCH, {"learning_rate": 10**400}, "float expected, got 1000"),
        (EpochRecord, EPOCH, {"validation": None}, "Score expected, got None"),
        (EpochRecord, EPOCH, {"validation": 0.5}, "Score expected, got 0.5"),
        (EpochRecord, EPOCH, {"train": []}, r"Score expected, got \[\]"),
        (EpochRecord, EPOCH, {"train": {"accuracy": 1.0}}, "Score lacks its field 'loss'"),
        (EpochRecord, EPOCH, {"test": None}, "EpochRecord has no field 'test'"),
        (Evaluation, EVALUATION, {"run": 5}, "str expected, got 5"),
        (Evaluation, EVALUATION, {"split": "tset"}, r"one of \('train', 'validation', 'test'\) expected, got 'tset'"),
        (Evaluation, EVALUATION, {"split": ["test"]}, r"expected, got \['test'\]"),
        (Evaluation, EVALUATION, {"interval_95": [0.25]}, r"a list of 2 expected, got \[0.25\]"),
        (Evaluation, EVALUATION, {"interval_95": [0.25, 0.5, 0.75]}, "a list of 2 expected"),
        (Evaluation, EVALUATION, {"interval_95": "ab"}, "a list expected, got 'ab'"),
        (Evaluation, EVALUATION, {"interval_95": {}}, r"a list expected, got \{\}"),
        (Evaluation, EVALUATION, {"accuracy_by_class": [1]}, r"a mapping expected, got \[1\]"),
        (Evaluation, EVALUATION, {"accuracy_by_class": {"cat": "x"}}, "float expected, got 'x'"),
        (Evaluation, EVALUATION, {"detail": {"macro_f1": None}}, "float expected, got None"),
    ],
)
def test_a_wrong_field_is_refused_with_the_value(kind: type, good: Any, changes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_json(kind, {**good, **changes})


@pytest.mark.parametrize("value", [None, [], [1], "text", 5, [["epoch"]]])
def test_what_is_no_mapping_is_no_record(value: Any) -> None:
    with pytest.raises(ValueError, match="EpochRecord expected"):
        from_json(EpochRecord, value)


@pytest.mark.parametrize("name", ["epoch", "learning_rate", "validation"])
def test_a_missing_field_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"EpochRecord lacks its field '{name}'"):
        from_json(EpochRecord, {key: value for key, value in EPOCH.items() if key != name})


def test_a_field_that_a_later_record_gained_takes_its_default() -> None:
    restored = from_json(EpochRecord, {key: value for key, value in EPOCH.items() if key != "train"})
    assert restored.train is None


def test_records_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Score(0.5, 1.0, 8).count = 9  # type: ignore[misc]


@pytest.mark.parametrize("number", ["1e400", "NaN", "-Infinity"])
def test_numbers_that_json_cannot_write_are_refused(number: str) -> None:
    value = json.loads(f'{{"accuracy": 0.5, "loss": {number}, "count": 2}}')
    with pytest.raises(ValueError, match="finite number expected"):
        from_json(Score, value)
