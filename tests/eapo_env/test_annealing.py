"""Annealing: the schedules of Appendix H, by hand and as properties."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.annealing import Annealing, Schedule

SCHEDULES: list[Schedule] = ["linear", "slow", "fast", "constant"]
ANNEALINGS = st.builds(
    Annealing,
    steps=st.integers(1, 10_000),
    schedule=st.sampled_from(SCHEDULES),
    turn_budget=st.integers(1, 9),
    queries_per_turn=st.integers(0, 5),
    initial_acceptance_rate=st.floats(0, 1),
)
STEPS = st.integers(0, 20_000)
LAST_DRAW = math.nextafter(1.0, 0.0)
DRAWS = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, LAST_DRAW])


@pytest.mark.parametrize(
    ("schedule", "rates", "budgets"),
    [
        ("linear", [1, 0.75, 0.5, 0.25, 0], [4, 3.25, 2.5, 1.75, 1]),
        ("slow", [1, 0.9375, 0.75, 0.4375, 0], [4, 3.8125, 3.25, 2.3125, 1]),
        ("fast", [1, 0.5625, 0.25, 0.0625, 0], [4, 2.6875, 1.75, 1.1875, 1]),
        ("constant", [0.5, 0.5, 0.5, 0.5, 0], [4, 3.25, 2.5, 1.75, 1]),
    ],
)
def test_the_schedules_by_hand(
    schedule: Schedule, rates: list[float], budgets: list[float]
) -> None:
    annealing = Annealing(steps=4, schedule=schedule, turn_budget=4)
    assert [annealing.acceptance_rate_at(s) for s in range(5)] == rates
    assert [annealing.turn_budget_at(s) for s in range(5)] == budgets


@given(ANNEALINGS, STEPS, STEPS, DRAWS)
def test_help_stays_in_range_and_never_grows(
    annealing: Annealing, one: int, other: int, draw: float
) -> None:
    early, late = sorted((one, other))
    rate, later_rate = annealing.acceptance_rate_at(early), annealing.acceptance_rate_at(late)
    assert 0 <= later_rate <= rate <= annealing.initial_acceptance_rate
    budget = annealing.rules_at(early, draw).turn_budget
    later_budget = annealing.rules_at(late, draw).turn_budget
    assert 1 <= later_budget <= budget <= annealing.turn_budget


@given(ANNEALINGS, DRAWS, st.integers(0, 10**9))
def test_it_begins_with_the_whole_budget_and_ends_alone(
    annealing: Annealing, draw: float, later: int
) -> None:
    first = annealing.rules_at(0, draw)
    assert first.turn_budget == annealing.turn_budget
    share = 0.5 if annealing.schedule == "constant" else 1.0
    assert first.acceptance_rate == annealing.initial_acceptance_rate * share
    last = annealing.rules_at((annealing.steps or 0) + later, draw)
    assert (last.turn_budget, last.acceptance_rate) == (1, 0.0)
    assert last.is_alone


@given(st.integers(1, 3000), st.floats(0, 1))
def test_constant_accepts_as_much_in_total_as_linear(steps: int, initial: float) -> None:
    def total(schedule: Schedule) -> float:
        annealing = Annealing(steps=steps, schedule=schedule, initial_acceptance_rate=initial)
        # The trapezoid rule: step s stands for the stretch from s to s + 1.
        rates = [annealing.acceptance_rate_at(s) for s in range(steps)]
        end = annealing.acceptance_rate_at(steps) if schedule == "linear" else rates[-1]
        return math.fsum([*rates, (end - rates[0]) / 2])

    assert total("constant") == pytest.approx(steps * initial / 2)
    assert total("linear") == pytest.approx(total("constant"))


@given(ANNEALINGS, STEPS)
def test_slow_keeps_more_help_than_linear_and_fast_less(annealing: Annealing, step: int) -> None:
    slow, linear, fast = (
        Annealing(steps=annealing.steps, schedule=schedule).acceptance_rate_at(step)
        for schedule in ("slow", "linear", "fast")
    )
    assert fast <= linear <= slow


@given(ANNEALINGS, STEPS, DRAWS)
def test_a_fractional_budget_is_rounded_to_a_neighbour(
    annealing: Annealing, step: int, draw: float
) -> None:
    mean = annealing.turn_budget_at(step)
    assert annealing.rules_at(step, draw).turn_budget in (math.floor(mean), math.ceil(mean))


def test_rounding_at_random_has_the_right_mean() -> None:
    annealing = Annealing(steps=10, turn_budget=4)
    draws = (np.arange(10_000) + 0.5) / 10_000
    for step in range(11):
        budgets = [annealing.rules_at(step, draw).turn_budget for draw in draws]
        assert np.mean(budgets) == pytest.approx(annealing.turn_budget_at(step), abs=2e-4)


def test_the_default_rounds_to_the_nearest() -> None:
    annealing = Annealing(steps=10, turn_budget=4)
    budgets = [annealing.rules_at(step).turn_budget for step in range(11)]
    assert budgets == [4, 4, 3, 3, 3, 3, 2, 2, 2, 1, 1]


def test_the_rules_carry_the_queries_a_turn() -> None:
    assert Annealing(steps=10, queries_per_turn=2).rules_at(3).queries_per_turn == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 10, "schedule": "cosine"}, "schedule must be .*not 'cosine'"),
        ({"steps": 10, "initial_acceptance_rate": 1.5}, "initial_acceptance_rate .*not 1.5"),
        ({"steps": 10, "initial_acceptance_rate": math.nan}, "initial_acceptance_rate .*not nan"),
        ({"steps": 10, "turn_budget": 0}, "turn_budget must be at least 1, not 0"),
        ({"steps": 10, "queries_per_turn": -1}, "queries_per_turn must be at least 0, not -1"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annealing(**fields)


def test_a_step_and_a_draw_have_ranges() -> None:
    with pytest.raises(ValueError, match="step must be at least 0, not -1"):
        Annealing(steps=10).rules_at(-1)
    with pytest.raises(ValueError, match=r"draw must be in \[0, 1\), not 1.0"):
        Annealing(steps=10).rules_at(0, 1.0)
