from __future__ import annotations

import math
import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch.optim import SGD
from torch.optim import lr_scheduler as by_torch

from conviction.core.records import EpochRecord, Score
from conviction.fit.schedule import (
    CosineConfig,
    ExponentialConfig,
    MultiStepConfig,
    OneCycleConfig,
    PlateauConfig,
    Schedule,
    ScheduleConfig,
    Span,
    StepConfig,
    TriangularConfig,
    build_schedule,
)

RATE = 0.5
SPANS = [Span(1, 1), Span(1, 2), Span(1, 7), Span(2, 1), Span(5, 4), Span(12, 3), Span(30, 1), Span(3, 50)]


def record(epoch: int, loss: float) -> EpochRecord:
    return EpochRecord(epoch, 0.1, Score(0.5, loss, 10))


def ours(config: ScheduleConfig, span: Span) -> list[float]:
    schedule = build_schedule(config, span)
    return [schedule.factor(step) * RATE for step in range(span.num_steps)]


def theirs(kind: Any, span: Span, each: str, **arguments: Any) -> list[float]:
    """The rate of every step, the scheduler stepped after each step or each epoch."""
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = kind(optimizer, **arguments)
    rates = []
    for number in range(1, span.num_steps + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        # OneCycleLR refuses the step behind its last.
        if number < span.num_steps and (each == "step" or number % span.steps_per_epoch == 0):
            scheduler.step()
    return rates


@pytest.mark.parametrize("span", SPANS, ids=str)
class TestAgreesWithTorch:
    @pytest.mark.parametrize("every_epochs", [1, 2, 5])
    def test_step(self, span: Span, every_epochs: int) -> None:
        expected = theirs(by_torch.StepLR, span, "epoch", step_size=every_epochs, gamma=0.3)
        assert ours(StepConfig(every_epochs=every_epochs, factor=0.3), span) == pytest.approx(expected)

    @pytest.mark.parametrize("milestones", [(1,), (2, 3), (1, 4, 29)])
    def test_multi_step(self, span: Span, milestones: tuple[int, ...]) -> None:
        expected = theirs(by_torch.MultiStepLR, span, "epoch", milestones=list(milestones), gamma=0.3)
        assert ours(MultiStepConfig(milestones_epochs=milestones, factor=0.3), span) == pytest.approx(expected)

    def test_exponential(self, span: Span) -> None:
        expected = theirs(by_torch.ExponentialLR, span, "epoch", gamma=0.8)
        assert ours(ExponentialConfig(factor=0.8), span) == pytest.approx(expected)

    @pytest.mark.parametrize("final", [0.0, 0.1])
    def test_cosine(self, span: Span, final: float) -> None:
        expected = theirs(by_torch.CosineAnnealingLR, span, "step", T_max=span.num_steps, eta_min=final * RATE)
        assert ours(CosineConfig(final=final), span) == pytest.approx(expected)

    @pytest.mark.parametrize(("rise", "start", "final"), [(0.3, 0.04, 4e-6), (0.45, 0.5, 0.25), (0.9, 0.1, 0.001)])
    def test_one_cycle(self, span: Span, rise: float, start: float, final: float) -> None:
        expected = theirs(
            by_torch.OneCycleLR,
            span,
            "step",
            max_lr=RATE,
            total_steps=span.num_steps,
            pct_start=rise,
            div_factor=1 / start,
            final_div_factor=start / final,
            cycle_momentum=False,
        )
        assert ours(OneCycleConfig(rise=rise, start=start, final=final), span) == pytest.approx(expected)

    @pytest.mark.parametrize("num_warm", [1, 3, 8])
    def test_warm_up_is_torchs_linear_rate(self, span: Span, num_warm: int) -> None:
        expected = theirs(by_torch.LinearLR, span, "step", start_factor=0.2, end_factor=1.0, total_iters=num_warm)
        config = ExponentialConfig(factor=1, warmup_epochs=num_warm / span.steps_per_epoch, warmup_start=0.2)
        assert ours(config, span) == pytest.approx(expected)


@settings(deadline=None, max_examples=150)
@given(
    losses=st.lists(st.sampled_from([0.5, 0.8, 0.89, 0.9, 0.95, 1.0, 1.5]), min_size=1, max_size=30),
    patience_epochs=st.integers(0, 3),
    min_improvement=st.sampled_from([0.0, 1e-4, 0.1]),
)
def test_plateau_agrees_with_torch(losses: list[float], patience_epochs: int, min_improvement: float) -> None:
    config = PlateauConfig(factor=0.4, patience_epochs=patience_epochs, min_improvement=min_improvement)
    schedule = build_schedule(config, Span(len(losses), 1))
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=RATE)
    scheduler = by_torch.ReduceLROnPlateau(
        optimizer, factor=0.4, patience=patience_epochs, threshold=min_improvement, threshold_mode="rel", eps=0
    )
    for epoch, loss in enumerate(losses):
        assert schedule.factor(epoch) * RATE == pytest.approx(optimizer.param_groups[0]["lr"])
        schedule.observe(record(epoch + 1, loss))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it counts the calls of optimizer.step()
            scheduler.step(loss)


class TestByHand:
    def test_step_halves_after_two_epochs_of_three_steps(self) -> None:
        schedule = build_schedule(StepConfig(every_epochs=2, factor=0.5), Span(5, 3))
        assert [schedule.factor(step) for step in (0, 5, 6, 11, 12, 14)] == [1, 1, 0.5, 0.5, 0.25, 0.25]

    def test_multi_step_falls_after_the_epochs_named(self) -> None:
        schedule = build_schedule(MultiStepConfig(milestones_epochs=(1, 3), factor=0.1), Span(4, 2))
        assert [schedule.factor(step) for step in range(8)] == pytest.approx([1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01])

    def test_exponential_falls_by_five_percent_an_epoch(self) -> None:
        schedule = build_schedule(ExponentialConfig(), Span(3, 2))
        assert [schedule.factor(step) for step in range(6)] == pytest.approx([1, 1, 0.95, 0.95, 0.9025, 0.9025])

    def test_cosine_is_halfway_in_the_middle(self) -> None:
        schedule = build_schedule(CosineConfig(final=0.2), Span(4, 3))
        # (1 + cos(π/3)) / 2 = 3/4 after a third; (1 + 0.2) / 2 after a half
        assert [schedule.factor(step) for step in (0, 4, 6)] == pytest.approx([1, 0.2 + 0.8 * 0.75, 0.6])

    def test_cosine_counts_from_the_end_of_the_warm_up(self) -> None:
        schedule = build_schedule(CosineConfig(warmup_epochs=2, warmup_start=0.5), Span(6, 2))
        # Four steps of warm-up, then the cosine over eight: half of it at step 8.
        assert [schedule.factor(step) for step in (0, 2, 4, 8)] == pytest.approx([0.5, 0.75, 1, 0.5])

    def test_one_cycle_reaches_its_rate_and_its_end(self) -> None:
        schedule = build_schedule(OneCycleConfig(rise=0.3, start=0.2, final=0.1), Span(10, 2))
        # 0.3 · 20 − 1 = step 5 is the top, halfway up in cosine at 2.5; step 19 is the last.
        assert [schedule.factor(step) for step in (0, 5, 12, 19)] == pytest.approx([0.2, 1, 0.55, 0.1])

    def test_a_warm_up_of_half_an_epoch(self) -> None:
        schedule = build_schedule(ExponentialConfig(factor=1, warmup_epochs=0.5, warmup_start=0.1), Span(1, 10))
        assert [schedule.factor(step) for step in range(7)] == pytest.approx([0.1, 0.28, 0.46, 0.64, 0.82, 1, 1])

    def test_a_warm_up_beyond_the_first_epoch_multiplies_what_falls(self) -> None:
        schedule = build_schedule(ExponentialConfig(factor=0.5, warmup_epochs=1.5, warmup_start=0.4), Span(3, 4))
        # Six steps of warm-up: 0.4, 0.5, …, 0.9; the factor falls to a half after four.
        expected = [0.4, 0.5, 0.6, 0.7, 0.4, 0.45, 0.5, 0.5, 0.25]
        assert [schedule.factor(step) for step in range(9)] == pytest.approx(expected)


class TestPlateau:
    def lowered_after(self, losses: list[float], **settings: Any) -> list[float]:
        schedule = build_schedule(PlateauConfig(factor=0.5, **settings), Span(20, 1))
        found = []
        for epoch, loss in enumerate(losses):
            schedule.observe(record(epoch + 1, loss))
            found.append(schedule.factor(epoch + 1))
        return found

    def test_it_waits_for_more_than_its_patience(self) -> None:
        assert self.lowered_after([1.0, 1.0, 1.0, 1.0], patience_epochs=2) == [1, 1, 1, 0.5]

    def test_an_improvement_starts_the_wait_anew(self) -> None:
        assert self.lowered_after([1.0, 1.0, 0.5, 0.5, 0.5], patience_epochs=1) == [1, 1, 1, 1, 0.5]

    def test_after_falling_it_waits_again(self) -> None:
        assert self.lowered_after([1.0] * 5, patience_epochs=1) == [1, 1, 0.5, 0.5, 0.25]

    def test_a_small_improvement_is_none(self) -> None:
        assert self.lowered_after([1.0, 0.95, 0.89], patience_epochs=0, min_improvement=0.1) == [1, 0.5, 0.5]

    def test_before_the_first_epoch_its_state_is_json(self) -> None:
        schedule: Schedule = build_schedule(PlateauConfig(), Span(2, 2))
        assert schedule.state() == {"best": None, "num_bad_epochs": 0, "factor": 1.0}
        schedule.restore(schedule.state())
        schedule.observe(record(1, 5.0))
        assert schedule.state()["best"] == 5.0


class TestSettings:
    @pytest.mark.parametrize("milestones", [(), (3, 2), (2, 2), (0, 1)])
    def test_milestones_ascend(self, milestones: tuple[int, ...]) -> None:
        with pytest.raises(ValidationError, match="milestones_epochs"):
            MultiStepConfig(milestones_epochs=milestones)

    @pytest.mark.parametrize("settings", [{"warmup_epochs": -1}, {"warmup_start": 0}, {"warmup_start": 1.1}])
    def test_warm_ups_are_checked(self, settings: dict[str, float]) -> None:
        with pytest.raises(ValidationError):
            CosineConfig.model_validate(settings)

    def test_the_length_of_a_training(self) -> None:
        assert Span(7, 3).num_steps == 21
        assert math.isclose(build_schedule(CosineConfig(), Span(7, 3)).factor(21), 0, abs_tol=1e-12)


class TestTriangular:
    def test_by_hand(self) -> None:
        # Ten steps, four of them up from 0.2 by 0.2 each, then six down from 1 by 0.15 each.
        found = ours(TriangularConfig(rise=0.4, start=0.2, final=0.1), Span(2, 5))
        expected = [0.2, 0.4, 0.6, 0.8, 1.0, 0.85, 0.7, 0.55, 0.4, 0.25]
        assert found == pytest.approx([RATE * factor for factor in expected])

    def test_without_a_rise_it_is_a_line_down(self) -> None:
        found = ours(TriangularConfig(rise=0, final=0), Span(1, 4))
        assert found == pytest.approx([RATE * factor for factor in (1.0, 0.75, 0.5, 0.25)])

    def test_the_published_values(self) -> None:
        # K. Jordan, 2024: from 0.2 of the rate, the peak at 23 % of the steps, to 0.07 at the end.
        schedule = build_schedule(TriangularConfig(), Span(10, 100))
        assert [schedule.factor(step) for step in (0, 115, 230, 615, 1000)] == pytest.approx([0.2, 0.6, 1, 0.535, 0.07])

    def test_the_peak_may_fall_between_two_steps(self) -> None:
        found = ours(TriangularConfig(rise=0.5, start=0.5, final=0), Span(1, 3))
        # The peak is at step 1.5: two thirds of the way up, then a third of the way down.
        assert found == pytest.approx([RATE * factor for factor in (0.5, 0.5 + 0.5 / 1.5, 1 - 0.5 / 1.5)])
