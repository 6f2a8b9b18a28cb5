"""The only door to a test split. Each opening is in the ledger before anything is seen."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from conviction.core.ledger import Ledger
from conviction.data.pack import Pack
from conviction.data.resident import read_rows
from conviction.data.split import Splits
from conviction.data.stream import Stream
from conviction.metrics.accuracy import score
from conviction.predict import ONE_VIEW, Predictions, ViewsConfig, predict


@dataclass(frozen=True)
class TestLook:
    """What was seen at an opening, and how many openings there have been, this one included."""

    __test__ = False

    predictions: Predictions
    openings: int
    test_set_openings: int


def open_test_split(
    ledger: Ledger,
    run: str,
    weights: str,
    pack: Pack,
    splits: Splits,
    look: Callable[[np.ndarray], Predictions],
) -> TestLook:
    """Let `look` see the rows of the test split, once, on record.

    Raises: LedgerError where the opening cannot be recorded; then nothing is seen.
    """
    digest = _test_digest(pack, splits.sealed_test)
    opening = ledger.open_test(run, digest, weights)
    predictions = look(splits.sealed_test)
    found = score(predictions.logits, predictions.labels)
    ledger.complete_opening(opening, found.accuracy, found.loss, found.count)
    return TestLook(predictions, len(ledger.openings(run=run)), len(ledger.openings(test_digest=digest)))


def look_with(
    network: nn.Module, stream_of: Callable[[np.ndarray], Stream], precision: str, views: ViewsConfig = ONE_VIEW
) -> Callable[[np.ndarray], Predictions]:
    """A look: what the network predicts for given rows."""
    return lambda rows: predict(network, stream_of(rows), precision, views)


def _test_digest(pack: Pack, rows: np.ndarray) -> str:
    """SHA-256 of the test images and labels: the same set is known again under another name or in another archive."""
    digest = hashlib.sha256(str(pack.images.shape[1:]).encode())
    digest.update("\n".join(pack.classes[label] for label in pack.labels[rows]).encode())
    for row in rows:
        digest.update(read_rows(pack.images, slice(row, row + 1)).data)
    return digest.hexdigest()
