from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conviction.core.records import EpochRecord, Score
from conviction.fit.stopping import StoppingConfig, best_of, should_stop


def history(accuracies: list[float], losses: list[float] | None = None) -> list[EpochRecord]:
    losses = losses or [1.0] * len(accuracies)
    return [
        EpochRecord(epoch, 0.1, Score(accuracy, loss, 100))
        for epoch, (accuracy, loss) in enumerate(zip(accuracies, losses, strict=True))
    ]


def stopped_after(records: list[EpochRecord], config: StoppingConfig) -> int | None:
    """The epoch after which a training that asks before each epoch would stop."""
    return next((r.epoch for i, r in enumerate(records) if should_stop(records[: i + 1], config)), None)


class TestBest:
    def test_highest_accuracy(self) -> None:
        assert best_of(history([0.1, 0.7, 0.9, 0.8]), "validation_accuracy").epoch == 2

    def test_lowest_loss(self) -> None:
        records = history([0.1, 0.7, 0.9], [2.3, 0.4, 0.5])
        assert best_of(records, "validation_loss").epoch == 1

    @pytest.mark.parametrize("figure", ["validation_accuracy", "validation_loss"])
    def test_the_earliest_among_equals(self, figure: str) -> None:
        assert best_of(history([0.1, 0.9, 0.9, 0.9], [2.0, 0.5, 0.5, 0.5]), figure).epoch == 1

    def test_the_untrained_network_may_be_best(self) -> None:
        assert best_of(history([0.5, 0.4, 0.3]), "validation_accuracy").epoch == 0

    def test_training_figures_do_not_count(self) -> None:
        records = [
            EpochRecord(0, 0.1, Score(0.5, 1, 10)),
            EpochRecord(1, 0.1, Score(0.4, 1, 10), train=Score(0.99, 0.01, 90), train_fixed=Score(1.0, 0.0, 90)),
        ]
        assert best_of(records, "validation_accuracy").epoch == 0


class TestStopping:
    @pytest.mark.parametrize(
        ("accuracies", "patience_epochs", "expected"),
        [
            ([0.1, 0.2, 0.3, 0.3, 0.3, 0.9], 2, 4),
            ([0.1, 0.2, 0.3, 0.3, 0.4, 0.3, 0.3], 2, 6),
            ([0.1, 0.1], 1, 1),
            ([0.5, 0.4, 0.3], 2, 2),
            ([0.1, 0.2, 0.3, 0.2], 2, None),
            ([0.9], 1, None),
        ],
    )
    def test_patience(self, accuracies: list[float], patience_epochs: int, expected: int | None) -> None:
        config = StoppingConfig(patience_epochs=patience_epochs)
        assert stopped_after(history(accuracies), config) == expected

    def test_no_patience_given_never_stops(self) -> None:
        assert stopped_after(history([0.9] + [0.1] * 200), StoppingConfig()) is None

    def test_the_loss_as_figure(self) -> None:
        records = history([0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 1.1, 1.2])
        assert stopped_after(records, StoppingConfig(patience_epochs=2, figure="validation_loss")) == 3
        assert stopped_after(records, StoppingConfig(patience_epochs=2)) is None

    @pytest.mark.parametrize(("min_improvement", "expected"), [(0.0, None), (0.125, 2), (0.25, 2)])
    def test_small_gains_do_not_count(self, min_improvement: float, expected: int | None) -> None:
        config = StoppingConfig(patience_epochs=2, min_improvement=min_improvement)
        assert stopped_after(history([0.25, 0.375, 0.375]), config) == (expected if min_improvement else None)

    def test_small_gains_add_up(self) -> None:
        # 0.25 → 0.375 is not more than 0.125, but 0.25 → 0.5 is.
        config = StoppingConfig(patience_epochs=2, min_improvement=0.125)
        assert stopped_after(history([0.25, 0.375, 0.5, 0.5]), config) is None
        assert stopped_after(history([0.25, 0.375, 0.375]), config) == 2

    def test_a_gain_must_be_more_than_the_least(self) -> None:
        config = StoppingConfig(patience_epochs=1, min_improvement=0.125)
        assert should_stop(history([0.25, 0.375]), config)
        assert not should_stop(history([0.25, 0.4375]), config)


def decided_step_by_step(figures: list[float], patience_epochs: int, min_improvement: float) -> int | None:
    """An early stopping that keeps its state from epoch to epoch."""
    reference, waited = figures[0], 0
    for epoch, figure in enumerate(figures[1:], start=1):
        waited = 0 if figure > reference + min_improvement else waited + 1
        if waited == 0:
            reference = figure
        if waited == patience_epochs:
            return epoch
    return None


@given(
    figures=st.lists(st.sampled_from([0.0, 0.25, 0.375, 0.5, 0.75]), min_size=1, max_size=15),
    patience_epochs=st.integers(1, 4),
    min_improvement=st.sampled_from([0.0, 0.125, 0.3]),
)
def test_the_history_alone_decides(figures: list[float], patience_epochs: int, min_improvement: float) -> None:
    config = StoppingConfig(patience_epochs=patience_epochs, min_improvement=min_improvement)
    expected = decided_step_by_step(figures, patience_epochs, min_improvement)
    assert stopped_after(history(figures), config) == expected
