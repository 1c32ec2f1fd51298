"""The careless student: its demonstrations are real episodes, and its habits are as stated."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eapo_env.acceptance import replies_in_slots
from eapo_env.actions import Answer, Consult, parse_action
from eapo_env.answers import extract_answer
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.prompts import Prompts
from eapo_env.synthetic import apply, mistaken_apply, work_out
from eapo_env.types import Query, Reply, Rules, StopReason

CAREFUL = NoisyDemonstrator(step_error_rate=0.0)


def demonstrations(student: NoisyDemonstrator, count: int, seed: int = 0) -> list[Episode]:
    rng = np.random.default_rng(seed)
    return [student.demonstrate(rng) for _ in range(count)]


def is_correct(episode: Episode) -> bool:
    return int(extract_answer(episode.response) or -1) == int(episode.problem.answer)


def share(hits: list[bool], expected: float) -> bool:
    """Whether the share of hits is within four standard deviations of the expected one."""
    tolerance = 4 * (expected * (1 - expected) / len(hits)) ** 0.5
    return bool(abs(sum(hits) / len(hits) - expected) <= tolerance)


@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.35, 1.0]))
@settings(deadline=None)
def test_a_demonstration_is_an_episode_of_the_real_core(seed: int, step_error_rate: float) -> None:
    episode = NoisyDemonstrator(step_error_rate=step_error_rate).demonstrate(
        np.random.default_rng(seed)
    )
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.prompts == Prompts.terse()
    assert all(isinstance(action, Consult | Answer) for action in episode.actions)
    assert played_again(episode) == episode


def played_again(shown: Episode) -> Episode:
    """Play the same completions through the core, with the gate's decisions as they were."""
    episode = begin(shown.problem, shown.rules, shown.prompts)
    decisions = iter(shown.consultations)
    for text in [m.content for m in shown.messages if m.role == "assistant"]:
        episode = act(episode, text, np.random.default_rng(0))
        if episode.pending:
            decided = replace(episode.pending, accepted=next(decisions).accepted)
            episode = replace(episode, consultations=(*episode.consultations[:-1], decided))
            answers = [Reply("calculator", work_out(query) or "") for query in decided.queries]
            episode = receive(episode, replies_in_slots(decided, "post", answers))
    return episode


def test_without_slips_every_answer_is_right() -> None:
    shown = demonstrations(CAREFUL, 600)
    assert all(map(is_correct, shown))
    kinds = {(e.rules.is_alone, len(e.consultations)) for e in shown}
    assert {(True, 0), (False, 0), (False, 1), (False, 2)} <= kinds, "every mode occurs"


def test_a_right_answer_follows_from_the_lines_before_it() -> None:
    for episode in demonstrations(CAREFUL, 100):
        for step in episode.response.partition(" \\boxed")[0].replace(";", ",").split(","):
            expression, equals, value = step.partition("=")
            if equals:
                found = work_out(Query(text=expression)) if expression.strip("abc") else value
                assert found == value


def test_slips_make_working_alone_unreliable_and_leave_experts_useful() -> None:
    alone = NoisyDemonstrator(alone=1.0)
    asking = NoisyDemonstrator(alone=0.0, consult=1.0, again=1.0)
    by_itself = np.mean([is_correct(e) for e in demonstrations(alone, 400)])
    helped = [e for e in demonstrations(asking, 400) if e.rules.acceptance_rate > 0.9]
    assert 0.02 < by_itself < 0.5
    assert np.mean([is_correct(e) for e in helped]) > by_itself + 0.3
    assert (
        sum(map(is_correct, demonstrations(NoisyDemonstrator(alone=1.0, step_error_rate=1.0), 400)))
        < 40
    )


@pytest.mark.parametrize("rate", [0.0, 0.6, 1.0])
def test_a_wrong_belief_makes_the_same_mistake_where_something_is_carried(rate: float) -> None:
    student = NoisyDemonstrator(step_error_rate=rate, error="carry", carry_rate=1.0, alone=1.0)
    mistakes = []
    for episode in demonstrations(student, 150):
        for step in re.findall(r"(\d\d)([-+*])(\d)=(\d\d)", episode.response):
            left, operation, right, value = int(step[0]), step[1], int(step[2]), int(step[3])
            right_one, wrong_one = (f(operation, left, right) for f in (apply, mistaken_apply))
            assert value in (right_one, wrong_one)
            if right_one != wrong_one:
                mistakes.append(value == wrong_one)
    assert len(mistakes) > 300
    assert share(mistakes, rate)


def test_a_wrong_belief_is_right_by_chance_about_once_in_a_hundred_times() -> None:
    student = NoisyDemonstrator(
        step_error_rate=1.0, error="carry", carry_rate=1.0, alone=1.0, max_brackets=3
    )
    assert np.mean([is_correct(e) for e in demonstrations(student, 2000)]) < 0.04


def test_the_modes_have_their_shares() -> None:
    student = NoisyDemonstrator()
    shown = demonstrations(student, 3000)
    assert share([e.rules.is_alone for e in shown], student.alone)
    with_experts = [e for e in shown if not e.rules.is_alone]
    first = [parse_action(e.messages[1].content) for e in with_experts]
    assert share([isinstance(action, Consult) for action in first], student.consult)
    assert share([e.rules.turn_budget == 3 for e in with_experts], 1 / 3)
    wholes = [
        action.queries[0] == episode.problem.statement
        for episode, action in zip(with_experts, first, strict=True)
        if isinstance(action, Consult) and "a+b" in episode.problem.statement
    ]
    assert share(wholes, student.whole)
    gates = [a for e in with_experts for c in e.consultations for a in c.accepted]
    assert 0.4 < np.mean(gates) < 0.6


def test_the_extreme_habits() -> None:
    never = demonstrations(NoisyDemonstrator(alone=0.0, consult=0.0, again=0.0), 100)
    assert not any(e.consultations for e in never)
    always_alone = demonstrations(NoisyDemonstrator(alone=1.0), 100)
    assert {e.rules for e in always_alone} == {Rules.alone()}
    insists = NoisyDemonstrator(alone=0.0, consult=1.0, again=1.0, whole=0.0, max_brackets=3)
    for episode in demonstrations(insists, 200):
        first, *others = episode.consultations
        for before, after in pairwise((first, *others)):
            refused = [
                q.text for q, a in zip(before.queries, before.accepted, strict=True) if not a
            ]
            assert [query.text for query in after.queries] == refused
        assert others or all(first.accepted) or episode.rules.turn_budget == 2


def test_with_one_query_a_turn_the_parts_are_asked_about_one_after_another() -> None:
    one_by_one = NoisyDemonstrator(alone=0.0, consult=1.0, again=0.0, whole=0.0, queries_per_turn=1)
    shown = demonstrations(one_by_one, 200)
    assert {e.rules.queries_per_turn for e in shown} == {1}
    for episode in shown:
        asked = [query.text[0] for c in episode.consultations for query in c.queries]
        parts = episode.problem.statement.count(":")
        assert asked == list("abc")[: min(parts, episode.rules.turn_budget - 1)]
    assert {len(e.consultations) for e in shown} == {1, 2, 3}


def test_difficulty_is_bounded() -> None:
    shown = demonstrations(NoisyDemonstrator(max_brackets=2, operations=3), 200)
    statements = [e.problem.statement for e in shown]
    assert {s.count(":") for s in statements} == {1, 2}
    assert max(s.count("(") for s in statements) == 6


def test_luck_is_the_generators_alone() -> None:
    assert demonstrations(NoisyDemonstrator(), 20, seed=3) == demonstrations(
        NoisyDemonstrator(), 20, seed=3
    )
    assert demonstrations(NoisyDemonstrator(), 20, seed=3) != demonstrations(
        NoisyDemonstrator(), 20, seed=4
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"step_error_rate": 1.5}, r"step_error_rate must be in \[0, 1\], not 1.5"),
        ({"alone": -0.1}, r"alone must be in \[0, 1\], not -0.1"),
        ({"queries_per_turn": 0}, "queries_per_turn must be at least 1, not 0"),
        ({"max_brackets": 0}, "max_brackets must be at least 1, not 0"),
        ({"operations": 0}, "operations must be at least 1, not 0"),
    ],
)
def test_a_value_out_of_range_is_refused(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NoisyDemonstrator(**bad)
