from __future__ import annotations

import ast
import dataclasses
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import conviction
from conviction.core.errors import LedgerError
from conviction.core.ledger import Ledger
from conviction.data.pack import Pack
from conviction.data.split import Splits
from conviction.data.standardize import Standardization
from conviction.data.stream import Stream
from conviction.evaluate.holdout import look_with, open_test_split
from conviction.predict import Predictions

SOURCE = Path(conviction.__file__).parent
MAY_NAME_IT = {"data/split.py", "evaluate/holdout.py"}
# `data/audit` compares pictures of all splits: docs/decisions/0012. `split.csv` is written from it, and FaceScrub's
# faces are put into folders by it.
MAY_ASK_FOR_PLACES = {
    "data/split.py",
    "data/facescrub/divide.py",
    "run/training.py",
    "run/audited.py",
    "data/audit/kept.py",
}
MAY_READ_UNDIVIDED = {"data/pack.py", "data/audit/gather.py", "run/described.py", "data/source/base.py"}
SPLITS = Splits(np.array([0, 1]), np.array([2, 3]), np.array([4, 5, 7]))


def names(path: Path) -> set[str]:
    """Every name, attribute, argument, keyword and text of a module, its docstrings included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for field in ("id", "attr", "arg", "name", "asname", "value"):
            text = getattr(node, field, None)
            if isinstance(text, str):
                found.add(text)
    return found


def test_no_other_module_names_the_test_rows() -> None:
    found = {
        path.relative_to(SOURCE).as_posix()
        for path in SOURCE.rglob("*.py")
        if any("sealed_test" in name for name in names(path))
    }
    assert found == MAY_NAME_IT


def test_no_other_module_asks_where_test_pictures_are() -> None:
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "by_path" in names(path)}
    assert found == MAY_ASK_FOR_PLACES


def test_no_other_module_reads_a_source_past_the_division() -> None:
    found = {path.relative_to(SOURCE).as_posix() for path in SOURCE.rglob("*.py") if "open_source" in names(path)}
    assert found == MAY_READ_UNDIVIDED


def test_an_audit_knows_no_network() -> None:
    """What it sees of test pictures cannot become a figure of a network, nor a choice between networks."""
    forbidden = re.compile(r"conviction\.(nets|predict|fit|evaluate|explain|metrics|core\.ledger)")
    for path in [*(SOURCE / "data" / "audit").glob("*.py"), SOURCE / "run" / "audited.py"]:
        assert not forbidden.search(path.read_text(encoding="utf-8")), path


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.beside(tmp_path)


def pack(classes: tuple[str, ...] = ("cat", "dog")) -> Pack:
    images = np.random.default_rng(0).integers(0, 256, (8, 2, 3, 1), dtype=np.uint8)
    labels, splits = np.array([0, 1] * 4), np.zeros(8, np.int8)
    return Pack(images, labels, splits, tuple(f"{i}.png" for i in range(8)), classes, "digest", "here", (), ())


def right_twice(rows: np.ndarray) -> Predictions:
    """Probabilities 3/4 and 1/4; rows 5 and 7 are dogs, which it takes all pictures for."""
    logits = torch.tensor([[1 / 4, 3 / 4]]).log().repeat(len(rows), 1)
    return Predictions(logits, torch.from_numpy(pack().labels[rows]))


class TestOpening:
    def test_what_was_seen_is_in_the_ledger(self, ledger: Ledger) -> None:
        seen = open_test_split(ledger, "run-1", "best", pack(), SPLITS, right_twice)
        (opening,) = ledger.openings()
        assert (opening.run, opening.weights, opening.count) == ("run-1", "best", 3)
        assert opening.accuracy == 2 / 3
        assert opening.loss == pytest.approx((-2 * math.log(3 / 4) - math.log(1 / 4)) / 3)
        assert (seen.openings, seen.test_set_openings) == (1, 1)
        assert seen.predictions.labels.tolist() == [0, 1, 1]

    def test_the_look_sees_the_test_rows_alone(self, ledger: Ledger) -> None:
        seen: list[list[int]] = []

        def look(rows: np.ndarray) -> Predictions:
            seen.append(rows.tolist())
            return right_twice(rows)

        open_test_split(ledger, "run-1", "best", pack(), SPLITS, look)
        assert seen == [[4, 5, 7]]

    def test_it_is_recorded_before_anything_is_seen(self, ledger: Ledger) -> None:
        def look(rows: np.ndarray) -> Predictions:
            assert len(ledger.openings()) == 1
            raise RuntimeError("planted")

        with pytest.raises(RuntimeError, match="planted"):
            open_test_split(ledger, "run-1", "best", pack(), SPLITS, look)
        (opening,) = ledger.openings()
        assert (opening.accuracy, opening.loss, opening.count) == (None, None, None)

    def test_a_ledger_that_fails_lets_nothing_be_seen(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*given: object) -> int:
            raise LedgerError("The ledger cannot be used.")

        seen: list[np.ndarray] = []
        monkeypatch.setattr(ledger, "open_test", refuse)
        with pytest.raises(LedgerError):
            open_test_split(
                ledger, "run-1", "best", pack(), SPLITS, lambda rows: seen.append(rows) or right_twice(rows)
            )
        assert seen == []

    def test_looks_are_counted_by_run_and_by_test_set(self, ledger: Ledger) -> None:
        counts = [
            (seen.openings, seen.test_set_openings)
            for run in ("run-1", "run-1", "run-2")
            for seen in [open_test_split(ledger, run, "last", pack(), SPLITS, right_twice)]
        ]
        assert counts == [(1, 1), (2, 2), (1, 3)]


class TestDigest:
    def digest(self, ledger: Ledger, pictures: Pack, splits: Splits = SPLITS) -> str:
        open_test_split(ledger, "run-1", "best", pictures, splits, right_twice)
        return ledger.openings()[-1].test_digest

    def test_the_same_pictures_under_other_names_are_the_same_set(self, ledger: Ledger) -> None:
        renamed = dataclasses.replace(
            pack(), paths=tuple("abcdefgh"), digest="another", shown_path="elsewhere", notes=("moved",)
        )
        assert self.digest(ledger, renamed) == self.digest(ledger, pack())

    def test_training_pictures_do_not_matter(self, ledger: Ledger) -> None:
        other = pack()
        other.images[0] = 0
        fewer = Splits(np.array([1]), np.array([2]), SPLITS.sealed_test)
        assert self.digest(ledger, other, fewer) == self.digest(ledger, pack())

    def test_a_changed_pixel_label_class_or_row_is_another_set(self, ledger: Ledger) -> None:
        pixel, label = pack(), pack()
        pixel.images[5, 0, 0, 0] ^= 1
        label.labels[5] = 0
        flat = dataclasses.replace(pack(), images=pack().images.reshape(8, 3, 2, 1))
        other_rows = Splits(SPLITS.train, SPLITS.validation, np.array([4, 5, 6]))
        digests = [
            self.digest(ledger, pack()),
            self.digest(ledger, pixel),
            self.digest(ledger, label),
            self.digest(ledger, flat),
            self.digest(ledger, pack(("cat", "wolf"))),
            self.digest(ledger, pack(), other_rows),
        ]
        assert len(set(digests)) == len(digests)


def test_a_look_with_a_network() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    pictures = pack()
    standardization = Standardization((0.0,), (1.0,))

    def stream_of(rows: np.ndarray) -> Stream:
        return Stream(pictures.images, pictures.labels, rows, standardization, 4)

    found = look_with(network, stream_of, "float32")(SPLITS.sealed_test)
    assert found.labels.tolist() == [0, 1, 1]
    assert found.logits.shape == (3, 2)
