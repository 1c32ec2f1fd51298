"""Dynamic sampling: which groups are kept, and that it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eapo_agents.rollouts.dynamic_sampling import DynamicSampling, Sampled
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules, StopReason

PROBLEM = Problem(id="p", statement="3 + 4 = ?", answer="7")


def made(number: int, correct: Sequence[bool]) -> Group:
    problem = replace(PROBLEM, id=str(number))
    episode = replace(begin(problem, Rules.alone()), stop_reason=StopReason.ANSWERED)
    members = [
        Trajectory(
            token_ids=np.array([1, 2], np.int32),
            mask=np.array([False, True]),
            logprobs=np.array([0.0, -1.0], np.float32),
            reward=float(right),
            status="correct" if right else "wrong",
            correct=right,
            episode=episode,
        )
        for right in correct
    ]
    return Group(problem=problem, trajectories=tuple(members))


def sampled(
    sampling: DynamicSampling, has_signal: Callable[[int], bool], first: int, delays: list[int]
) -> Sampled:
    async def one(number: int) -> Group:
        for _ in range(delays[number % len(delays)]):
            await asyncio.sleep(0)
        return made(number, (True, not has_signal(number)))

    return asyncio.run(sampling.sample(one, first))


@given(
    signals=st.lists(st.booleans(), min_size=1, max_size=12),
    sampling=st.builds(
        DynamicSampling,
        groups_per_step=st.integers(1, 8),
        problems_per_round=st.integers(1, 6),
        max_rounds=st.integers(1, 4),
    ),
    first=st.integers(0, 1000),
    delays=st.lists(st.integers(0, 5), min_size=1, max_size=7),
)
@settings(max_examples=80, deadline=None)
def test_dynamic_sampling_is_bounded_and_keeps_groups_with_signal_in_order(
    signals: list[bool], sampling: DynamicSampling, first: int, delays: list[int]
) -> None:
    def has_signal(number: int) -> bool:
        return signals[number % len(signals)]

    found = sampled(sampling, has_signal, first, delays)
    numbers = [int(group.problem.id) for group in found.played]
    rounds, rest = divmod(len(numbers), sampling.problems_per_round)
    assert rest == 0
    assert 1 <= rounds <= sampling.max_rounds
    assert numbers == list(range(first, first + len(numbers)))
    useful = [number for number in numbers if has_signal(number)]
    kept = [int(group.problem.id) for group in found.kept]
    assert kept == useful[: sampling.groups_per_step]
    before_last = numbers[: -sampling.problems_per_round]
    assert sum(map(has_signal, before_last)) < sampling.groups_per_step or rounds == 1
    if len(kept) < sampling.groups_per_step:
        assert rounds == sampling.max_rounds
    assert found == sampled(sampling, has_signal, first, delays[::-1])


def test_dynamic_sampling_makes_do_when_nothing_teaches() -> None:
    sampling = DynamicSampling(groups_per_step=4, problems_per_round=3, max_rounds=2)
    found = sampled(sampling, lambda number: False, 0, [0])
    assert (len(found.kept), len(found.played)) == (0, 6)


@pytest.mark.parametrize("name", ["groups_per_step", "problems_per_round", "max_rounds"])
def test_dynamic_sampling_refuses_zero(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        DynamicSampling(**dict[str, Any]({name: 0}))
