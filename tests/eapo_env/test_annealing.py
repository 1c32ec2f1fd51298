"""Annealing: the paper's schedules and ours, by hand and as properties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.annealing import _NOT_BY_CLOCK, Annealing, Schedule, TurnPace

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
BY_CLOCK: list[Schedule] = [name for name in SCHEDULES if name not in _NOT_BY_CLOCK]


@st.composite
def annealings(draw: st.DrawFn) -> Annealing:
    schedule, matched_to = draw(st.sampled_from(SCHEDULES)), draw(st.sampled_from(BY_CLOCK))
    rate = draw(st.none() | st.floats(0, 1)) if schedule == "constant" else None
    own: dict[str, Any] = {"constant": {"matched_to": matched_to} if rate is None else {}}
    own["ours_by_success"] = {"success_goal": draw(st.floats(0.01, 1))}
    shape = matched_to if schedule == "constant" and rate is None else schedule
    return Annealing(
        steps=draw(st.integers(1, 2_000)),
        schedule=schedule,
        exponent=draw(st.floats(0, 4)) if shape == "power" else 1.0,
        rate=rate,
        turn_budget=draw(st.integers(1, 12)),
        turn_pace=draw(st.sampled_from(get_args(TurnPace))),
        queries_per_turn=draw(st.integers(0, 5)),
        initial_acceptance_rate=draw(st.floats(0, 0.6)),
        **own.get(schedule, {}),
    )


ANNEALINGS = annealings()
STEPS = st.integers(1, 4_000)
LAST_DRAW = math.nextafter(1.0, 0.0)
DRAWS = st.floats(0, 1, exclude_max=True) | st.sampled_from([0.0, 0.5, LAST_DRAW])


@pytest.mark.parametrize(
    ("schedule", "rates", "budgets"),
    [
        ({"schedule": "power"}, [1, 1 / 2, 1 / 3, 1 / 4, 0], [4, 2.5, 2, 1.75, 1]),
        ({"schedule": "power", "exponent": 2.0}, [1, 1 / 4, 1 / 9, 1 / 16, 0], None),
        ({"schedule": "power", "exponent": 0.5}, [1, 2**-0.5, 3**-0.5, 1 / 2, 0], None),
        # (1 + 1/2 + 1/3 + 1/4) / 4 = 25/48
        ({"schedule": "constant"}, [25 / 48] * 4 + [0], [4, 4, 4, 4, 1]),
        ({"schedule": "constant", "rate": 0.3}, [0.3] * 4 + [0], [4, 4, 4, 4, 1]),
        # (1 + 3/4 + 1/2 + 1/4) / 4 = 5/8
        ({"schedule": "constant", "matched_to": "ours_linear"}, [5 / 8] * 4 + [0], None),
        ({"schedule": "ours_linear"}, [1, 0.75, 0.5, 0.25, 0], [4, 3.25, 2.5, 1.75, 1]),
        ({"schedule": "ours_slow"}, [1, 0.9375, 0.75, 0.4375, 0], [4, 3.8125, 3.25, 2.3125, 1]),
        ({"schedule": "ours_fast"}, [1, 0.5625, 0.25, 0.0625, 0], [4, 2.6875, 1.75, 1.1875, 1]),
    ],
)
def test_the_schedules_by_hand(
    schedule: dict[str, Any], rates: list[float], budgets: list[float] | None
) -> None:
    annealing = Annealing(steps=4, turn_budget=4, **schedule)
    steps = range(1, 6)
    assert [annealing.acceptance_rate_at(s) for s in steps] == pytest.approx(rates)
    assert [annealing.turn_budget_at(s) for s in steps] == pytest.approx([4, 3.25, 2.5, 1.75, 1])
    in_pace = replace(annealing, turn_pace="acceptance")
    if budgets is not None:
        assert [in_pace.turn_budget_at(s) for s in steps] == pytest.approx(budgets)


def test_acceptance_by_success_by_hand() -> None:
    annealing = Annealing(
        steps=4, schedule="ours_by_success", initial_acceptance_rate=0.6, success_goal=0.4
    )
    rates = [annealing.acceptance_rate_at(s, 0.1) for s in range(1, 6)]
    assert rates == pytest.approx([0.45, 0.45, 0.45, 0.3, 0])  # 0.6 (1 - 1/4); the deadline last
    assert annealing.acceptance_rate_at(1, 0.4) == annealing.acceptance_rate_at(1, 1.0) == 0
    with pytest.raises(ValueError, match="initial_acceptance_rate of ours_by_success must be at"):
        Annealing(steps=4, schedule="ours_by_success")


def test_by_default_it_is_the_papers() -> None:
    annealing = Annealing(steps=200)
    assert [annealing.acceptance_rate_at(s) for s in (1, 2, 10, 200)] == [1, 0.5, 0.1, 0.005]
    assert annealing.rules_at(1).turn_budget == 10
    assert annealing.rules_at(1).queries_per_turn == 3
    total = sum(annealing.acceptance_rate_at(s) for s in range(1, 201))
    assert total == pytest.approx(5.878, abs=1e-3)  # the harmonic number of 200
    matched = Annealing(steps=200, schedule="constant")
    assert matched.acceptance_rate_at(7) == pytest.approx(0.0294, abs=1e-4)


@given(ANNEALINGS, STEPS, STEPS, DRAWS, st.floats(0, 1), st.floats(0, 1))
def test_help_stays_in_range_and_never_grows(
    annealing: Annealing, one: int, other: int, draw: float, little: float, much: float
) -> None:
    """Neither with the steps nor with what the policy can do alone."""
    early, late = sorted((one, other))
    worse, better = sorted((little, much))
    rate = annealing.acceptance_rate_at(early, worse)
    later_rate = annealing.acceptance_rate_at(late, better)
    assert 0 <= later_rate <= rate <= 1
    budget = annealing.rules_at(early, draw, worse).turn_budget
    later_budget = annealing.rules_at(late, draw, better).turn_budget
    assert 1 <= later_budget <= budget <= annealing.turn_budget


@given(ANNEALINGS, DRAWS, st.integers(1, 10**9))
def test_it_begins_with_the_whole_budget_and_ends_alone(
    annealing: Annealing, draw: float, later: int
) -> None:
    assert annealing.rules_at(1, draw).turn_budget == annealing.turn_budget
    last = annealing.rules_at((annealing.steps or 0) + later, draw)
    assert (last.turn_budget, last.acceptance_rate) == (1, 0.0)
    assert last.is_alone


@given(ANNEALINGS, st.sampled_from(BY_CLOCK), st.floats(0, 4))
def test_a_matched_constant_spends_what_the_other_schedule_does(
    annealing: Annealing, matched_to: Schedule, exponent: float
) -> None:
    assert annealing.steps is not None
    steps = range(1, annealing.steps + 1)
    constant = Annealing(
        steps=annealing.steps,
        schedule="constant",
        matched_to=matched_to,
        exponent=exponent if matched_to == "power" else 1.0,
        initial_acceptance_rate=annealing.initial_acceptance_rate,
    )
    other = replace(constant, schedule=matched_to, matched_to="power")
    spent, matched = (math.fsum(map(one.acceptance_rate_at, steps)) for one in (constant, other))
    assert spent == pytest.approx(matched)


@given(ANNEALINGS, STEPS)
def test_slow_keeps_more_help_than_linear_and_fast_less(annealing: Annealing, step: int) -> None:
    slow, linear, fast = (
        Annealing(steps=annealing.steps, schedule=schedule).acceptance_rate_at(step)
        for schedule in SCHEDULES[3:4] + SCHEDULES[2:3] + SCHEDULES[4:5]
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
    for step in range(1, 12):
        budgets = [annealing.rules_at(step, draw).turn_budget for draw in draws]
        assert np.mean(budgets) == pytest.approx(annealing.turn_budget_at(step), abs=2e-4)


def test_the_default_rounds_to_the_nearest() -> None:
    annealing = Annealing(steps=10, turn_budget=4)
    budgets = [annealing.rules_at(step).turn_budget for step in range(1, 12)]
    assert budgets == [4, 4, 3, 3, 3, 3, 2, 2, 2, 1, 1]


def test_the_rules_carry_the_queries_a_turn() -> None:
    assert Annealing(steps=10, queries_per_turn=2).rules_at(3).queries_per_turn == 2


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"steps": 10, "schedule": "cosine"}, "schedule must be .*not 'cosine'"),
        ({"steps": 10, "turn_pace": "fast"}, "turn_pace must be .*not 'fast'"),
        ({"steps": 10, "matched_to": "constant"}, "matched_to must be .*not 'constant'"),
        ({"steps": 10, "exponent": -1.0}, "exponent must be at least 0, not -1.0"),
        ({"steps": 10, "exponent": math.inf}, "exponent must be finite, not inf"),
        ({"steps": 10, "exponent": "fast"}, "exponent must be a number, not 'fast'"),
        ({"steps": 10.5}, "steps must be a whole number, not 10.5"),
        ({"steps": 10, "rate": 1.5}, "rate must be in .*not 1.5"),
        ({"steps": 10, "success_goal": 0}, "success_goal must be positive, not 0"),
        ({"steps": 10, "initial_acceptance_rate": 1.5}, "initial_acceptance_rate .*not 1.5"),
        ({"steps": 10, "initial_acceptance_rate": math.nan}, "initial_acceptance_rate .*not nan"),
        ({"steps": 10, "turn_budget": 0}, "turn_budget must be at least 1, not 0"),
        ({"steps": 10, "queries_per_turn": -1}, "queries_per_turn must be at least 0, not -1"),
        ({"matched_to": "ours_linear"}, "matched_to=ours_linear means nothing for .* power"),
        ({"schedule": "constant", "rate": 0.5, "matched_to": "ours_fast"}, "beside rate=0.5"),
        ({"success_goal": 0.5}, "success_goal=0.5 means nothing for the schedule power"),
        ({"schedule": "ours_linear", "rate": 0.5}, "rate=0.5 means nothing for .* ours_linear"),
        ({"schedule": "ours_fast", "exponent": 2.0}, "exponent=2.0 means nothing for .* ours_fast"),
        ({"schedule": "constant", "rate": 0.5, "exponent": 2.0}, "exponent=2.0 means nothing for"),
    ],
)
def test_values_out_of_range_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annealing(**fields)


def test_a_step_and_a_draw_have_ranges() -> None:
    with pytest.raises(ValueError, match="step must be at least 1, not 0"):
        Annealing(steps=10).rules_at(0)
    with pytest.raises(ValueError, match=r"draw must be in \[0, 1\), not 1.0"):
        Annealing(steps=10).rules_at(1, 1.0)
