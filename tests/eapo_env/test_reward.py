"""The reward: a correct answer always earns more; overlong shaping by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.actions import Consult, render_consult
from eapo_env.episode import Episode, act, begin, receive, truncate
from eapo_env.reward import Overlong, RewardRule
from eapo_env.types import Problem, Rules, StopReason, Unavailable

PROBLEM = Problem(id="p", statement="What is $1+1$?", answer="2")
PENALTIES = st.floats(0, 1e300)


def consulted(num_queries: int, acceptance_rate: float = 0.0) -> Episode:
    """Return an episode that has asked so many queries, over as many turns as they need."""
    rules = Rules(turn_budget=20, acceptance_rate=acceptance_rate)
    rng = np.random.default_rng(0)
    episode = begin(PROBLEM, rules)
    while episode.num_queries < num_queries:
        texts = ("q",) * min(rules.queries_per_turn, num_queries - episode.num_queries)
        episode = act(episode, render_consult(Consult(texts)), rng)
        episode = receive(episode, [Unavailable("silent")] * len(texts))
    return act(episode, r"\boxed{2}", rng)


EPISODES = [consulted(num_queries) for num_queries in range(13)]


@given(PENALTIES, st.sampled_from(EPISODES), st.sampled_from(EPISODES))
def test_a_correct_answer_beats_a_wrong_one_whatever_the_penalty(
    penalty: float, right: Episode, wrong: Episode
) -> None:
    rule = RewardRule(consultation_penalty=penalty)
    assert rule.reward(right, True) > rule.reward(wrong, False)


@given(PENALTIES, st.sampled_from(EPISODES), st.booleans())
def test_asking_less_never_earns_less(penalty: float, episode: Episode, correct: bool) -> None:
    rule = RewardRule(consultation_penalty=penalty)
    assert rule.reward(EPISODES[0], correct) >= rule.reward(episode, correct)


@given(st.floats(0, 0.4), st.floats(0, 1), st.floats(0, 1), st.sampled_from(EPISODES))
def test_a_higher_score_never_earns_less(
    format_reward: float, one: float, other: float, episode: Episode
) -> None:
    rule, (low, high) = RewardRule(format_reward=format_reward), sorted((one, other))
    assert rule.reward(episode, low) <= rule.reward(episode, high)


@pytest.mark.parametrize(
    ("num_queries", "correct", "reward"),
    [(0, True, 1.0), (0, False, 0.0), (2, True, 0.8), (3, False, -0.3), (9, True, 0.5)],
)
def test_the_penalty_by_hand(num_queries: int, correct: bool, reward: float) -> None:
    rule = RewardRule(format_reward=0.0, consultation_penalty=0.1)
    assert rule.reward(EPISODES[num_queries], correct) == pytest.approx(reward)


@pytest.mark.parametrize(
    ("score", "reward"), [(1.0, 1.0), (0.4, 0.4), (0.05, 0.1), (0.0, 0.1), (True, 1.0)]
)
def test_by_default_the_reward_is_the_papers(score: float, reward: float) -> None:
    """F1, or 0.1 for a wrong answer in the right format, whatever was asked and written."""
    for episode in EPISODES:
        assert RewardRule().reward(episode, score, num_policy_tokens=10**6) == reward


def test_without_an_answer_or_with_a_malformed_turn_the_format_is_wrong() -> None:
    rng = np.random.default_rng(0)
    fresh = begin(PROBLEM, Rules(turn_budget=2))
    answered = act(fresh, r"\boxed{3}", rng)
    malformed_first = act(act(fresh, "Hm.", rng), r"\boxed{3}", rng)
    never = act(act(fresh, "Hm.", rng), "Hm.", rng)
    cut = truncate(fresh, StopReason.LENGTH, r"so \boxe")
    episodes = (answered, malformed_first, never, cut)
    assert [RewardRule().reward(one, 0.0) for one in episodes] == [0.1, 0, 0, 0]
    assert [RewardRule(format_reward=0.3).reward(one, 0.0) for one in episodes] == [0.3, 0, 0, 0]
    assert RewardRule().reward(malformed_first, 1.0) == 1


def test_a_query_counts_whether_or_not_the_gate_accepts_it() -> None:
    rule = RewardRule(consultation_penalty=0.05)
    refused, accepted = consulted(3, acceptance_rate=0.0), consulted(3, acceptance_rate=1.0)
    assert [sum(e.consultations[0].accepted) for e in (refused, accepted)] == [0, 3]
    assert rule.reward(refused, True) == rule.reward(accepted, True)


@pytest.mark.parametrize(
    ("num_tokens", "penalty"),
    [
        (0, 0.0),
        (16_384, 0.0),
        (16_385, -1 / 4096),
        (17_408, -0.25),
        (18_432, -0.5),
        (20_480, -1.0),
        (20_481, -1.0),
        (10**9, -1.0),
    ],
)
def test_overlong_by_hand(num_tokens: int, penalty: float) -> None:
    assert Overlong().penalty(num_tokens) == penalty
    rule = RewardRule(overlong=Overlong())
    assert rule.reward(EPISODES[0], True, num_tokens) == 1.0 + penalty
    assert Overlong(factor=0.5).penalty(num_tokens) == penalty / 2


@given(
    st.integers(1, 10_000).flatmap(lambda c: st.tuples(st.just(c), st.integers(c, 30_000))),
    st.integers(0, 60_000),
    st.integers(0, 60_000),
)
def test_overlong_falls_with_length_and_stays_in_range(
    sizes: tuple[int, int], one: int, other: int
) -> None:
    overlong = Overlong(cushion=sizes[0], limit=sizes[1])
    short, long = sorted((one, other))
    assert -1.0 <= overlong.penalty(long) <= overlong.penalty(short) <= 0.0


@pytest.mark.parametrize(
    ("rule", "fields"),
    [
        (RewardRule, {"consultation_penalty": -0.1}),
        (RewardRule, {"consultation_penalty": math.nan}),
        (RewardRule, {"format_reward": "0.1"}),
        (Overlong, {"limit": "5"}),
        (RewardRule, {"consultation_penalty": math.inf}),
        (Overlong, {"cushion": 0}),
        (Overlong, {"cushion": 5, "limit": 4}),
        (Overlong, {"factor": -1.0}),
        (Overlong, {"factor": math.nan}),
    ],
)
def test_values_out_of_range_are_refused(rule: Any, fields: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(fields))} must be .*not"):
        rule(**fields)
