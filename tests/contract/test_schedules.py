"""What every schedule must be: a finite factor in [0, 1] for every step, whatever the training's length."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conviction.core.errors import UnknownName
from conviction.core.records import EpochRecord, Score
from conviction.fit.schedule import SCHEDULES, Schedule, ScheduleConfig, Span, build_schedule

fractions = st.floats(0.001, 0.999)
DRAWN: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "step": {"every_epochs": st.integers(1, 9), "factor": fractions},
    "multi_step": {
        "milestones_epochs": st.sets(st.integers(1, 20), min_size=1).map(sorted),
        "factor": fractions,
    },
    "exponential": {"factor": st.floats(0.001, 1)},
    "cosine": {"final": st.floats(0, 0.999)},
    "one_cycle": {"rise": fractions, "start": st.floats(0.001, 1), "final": st.floats(0, 0.999)},
    "triangular": {"rise": st.floats(0, 0.999), "start": st.floats(0.001, 1), "final": st.floats(0, 0.999)},
    "plateau": {"factor": fractions, "patience_epochs": st.integers(0, 3), "min_improvement": st.floats(0, 0.9)},
}
NEEDED: dict[str, dict[str, Any]] = {"multi_step": {"milestones_epochs": [2, 4]}}
NAMES = SCHEDULES.names()
warmups = {"warmup_epochs": st.floats(0, 12), "warmup_start": st.floats(0.001, 1)}
spans = st.tuples(st.integers(1, 12), st.integers(1, 9))
losses = st.lists(st.floats(1e-6, 100), min_size=12, max_size=12)


def record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(epoch, 0.1, Score(0.5, loss, 10))


def factors(schedule: Schedule, span: Span, epoch_losses: list[float]) -> list[float]:
    """The factor of every step, the schedule told of each epoch as the training tells it."""
    found = []
    for epoch in range(span.num_epochs):
        found += [schedule.factor(epoch * span.steps_per_epoch + step) for step in range(span.steps_per_epoch)]
        schedule.observe(record(epoch + 1, epoch_losses[epoch]))
    return found


def config(name: str, **settings: Any) -> ScheduleConfig:
    return SCHEDULES[name].config.model_validate({**NEEDED.get(name, {}), **settings})


@pytest.mark.parametrize("name", NAMES)
class TestEverySchedule:
    @settings(deadline=None, max_examples=60)
    @given(data=st.data())
    def test_factors_are_finite_and_in_0_1(self, name: str, data: st.DataObject) -> None:
        drawn = data.draw(st.fixed_dictionaries(DRAWN.get(name, {})))
        found_config = config(name, **drawn, **data.draw(st.fixed_dictionaries(warmups)))
        span = Span(*data.draw(spans))
        found = factors(build_schedule(found_config, span), span, data.draw(losses))
        assert len(found) == span.num_steps
        assert all(math.isfinite(factor) and 0 <= factor <= 1 for factor in found)

    def test_it_never_rests_at_zero_from_the_start(self, name: str) -> None:
        span = Span(5, 10)
        assert max(factors(build_schedule(config(name), span), span, [1.0] * 5)) > 0.5

    @settings(deadline=None, max_examples=30)
    @given(epoch_losses=losses, at=st.integers(0, 11))
    def test_a_restored_schedule_goes_on_the_same_way(self, name: str, epoch_losses: list[float], at: int) -> None:
        span = Span(12, 3)
        whole = factors(build_schedule(config(name, warmup_epochs=1.5), span), span, epoch_losses)
        before = build_schedule(config(name, warmup_epochs=1.5), span)
        for epoch in range(at):
            before.observe(record(epoch + 1, epoch_losses[epoch]))
        resumed = build_schedule(config(name, warmup_epochs=1.5), span)
        resumed.restore(json.loads(json.dumps(before.state(), allow_nan=False)))
        found = []
        for epoch in range(at, 12):
            found += [resumed.factor(epoch * 3 + step) for step in range(3)]
            resumed.observe(record(epoch + 1, epoch_losses[epoch]))
        assert found == whole[at * 3 :]

    def test_the_warm_up_is_a_line_that_multiplies(self, name: str) -> None:
        span = Span(5, 10)
        cold = build_schedule(config(name), span)
        warmed = build_schedule(config(name, warmup_epochs=0.4, warmup_start=0.2), span)
        # 0.4 epochs are 4 steps: 0.2, 0.4, 0.6, 0.8 of what follows.
        if name == "triangular":
            # Without the warm-up's 4 steps 46 are left, the first 0.23 · 46 = 10.58 of them rising from 0.2.
            risen = 0.2 + 0.8 * 1 / 10.58
            assert warmed.factor(5) == pytest.approx(risen)
        if name in ("cosine", "one_cycle", "triangular"):
            first = cold.factor(0)
            expected = [0.2 * first, 0.4 * first, 0.6 * first, 0.8 * first, first]
        else:
            expected = [0.2, 0.4, 0.6, 0.8, 1.0]
        assert [warmed.factor(step) for step in range(5)] == pytest.approx(expected)

    def test_one_step_in_all(self, name: str) -> None:
        assert math.isfinite(build_schedule(config(name), Span(1, 1)).factor(0))

    def test_a_warm_up_as_long_as_the_training(self, name: str) -> None:
        span = Span(2, 4)
        schedule = build_schedule(config(name, warmup_epochs=2, warmup_start=0.5), span)
        found = factors(schedule, span, [1.0] * 2)
        assert found == sorted(found)
        assert found[0] == pytest.approx(0.5 * build_schedule(config(name), Span(9, 4)).factor(0))


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'cosine'"):
        build_schedule(ScheduleConfig(name="cosin"), Span(1, 1))
