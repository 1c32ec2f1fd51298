"""Decisions: whatever the episode, they become legal turns and what is observed is in its space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_agents.methods.decisions import (
    FEATURES,
    agreement,
    answering,
    consulting,
    features,
    legal,
    replies_received,
)
from eapo_env.actions import Answer, Consult, Malformed, render_consult
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.types import ExpertReply, Problem, Reply, Rules, Unavailable

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(["<consult><query>a</query></consult>", "<consult>", "</query>", "\\boxed{3}"]),
)
REPLIES = st.one_of(TEXTS.map(lambda text: Reply("one", text)), st.just(Unavailable("silent")))
RULES = st.builds(
    Rules,
    turn_budget=st.integers(1, 5),
    acceptance_rate=st.floats(0, 1),
    queries_per_turn=st.integers(0, 4),
)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    """Episodes in any state: fresh, with replies and without, over."""
    statement = draw(TEXTS.filter(str.strip))  # Hypothesis' texts have no lone surrogates
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    episode = begin(Problem(id="p", statement=statement, answer="3"), draw(RULES))
    for _ in range(draw(st.integers(0, 4))):
        if episode.stop_reason:
            break
        questions = draw(st.lists(TEXTS, max_size=5))
        turns = [draw(TEXTS), consulting(questions, draw(st.integers(1, 5)), episode)]
        episode = act(episode, turns[draw(st.integers(0, 1))], rng)
        if episode.pending:
            size = len(episode.pending.queries)
            episode = receive(episode, draw(st.lists(REPLIES, min_size=size, max_size=size)))
    return episode


@given(episodes())
def test_what_is_observed_lies_between_nought_and_one(episode: Episode) -> None:
    observed = features(episode)
    assert observed.shape == (len(FEATURES),)
    assert observed.dtype == np.float32
    assert ((observed >= 0) & (observed <= 1)).all()


@given(
    episodes().filter(lambda episode: episode.stop_reason is None),
    st.integers(0, 6),
    st.lists(TEXTS, max_size=5),
    TEXTS,
)
def test_every_decision_becomes_a_turn_that_does_it(
    episode: Episode, decision: int, questions: list[str], answer: str
) -> None:
    count = legal(decision, episode)
    assert 0 <= count <= min(decision, episode.rules.queries_per_turn)
    text = consulting(questions, count, episode) if count else answering(answer)
    after = act(episode, text, np.random.default_rng(0))
    if count:
        assert after.pending is not None
        assert 1 <= len(after.pending.queries) <= count
        assert after.stop_reason is None
    else:
        assert isinstance(after.actions[-1], Answer | Malformed)


@given(episodes().filter(lambda episode: episode.stop_reason is None), st.integers(1, 6))
def test_experts_are_consulted_exactly_where_their_replies_can_be_used(
    episode: Episode, decision: int
) -> None:
    usable = episode.turns_left > 1 and not episode.rules.is_alone
    assert (legal(decision, episode) > 0) == usable


@pytest.mark.parametrize(
    "block", ["<consult></consult>", "<consult>", "<consult><query>?</query></consult>"]
)
def test_an_answer_beside_a_consult_block_answers(block: str) -> None:
    fresh = begin(Problem(id="p", statement="2 + 2", answer="4"), Rules())
    for text in (rf"{block}\boxed{{4}}", rf"\boxed{{4}} {block}"):
        after = act(fresh, answering(text), np.random.default_rng(0))
        assert after.actions == (Answer("4"),)
    thought = act(fresh, answering(rf"<think>\boxed{{4}}</think>{block}"), np.random.default_rng(0))
    assert isinstance(thought.actions[-1], Malformed), "a thought is no answer"


def test_the_numbers_of_an_episode_worked_by_hand() -> None:
    problem = Problem(id="p", statement="x" * 300, answer="3")
    episode = begin(problem, Rules(turn_budget=4, acceptance_rate=1.0))
    assert features(episode).tolist() == [0.25, 1.0, 0.0, 0.0, 0.0, 0.0, 0.75]
    episode = act(episode, render_consult(Consult(("a", "b", "c"))), np.random.default_rng(0))
    replies: list[ExpertReply] = [
        Reply("one", "7"),
        Unavailable("late"),
        Reply("two", "It is \\boxed{7}."),
    ]
    episode = receive(episode, replies)
    assert replies_received(episode) == ["7", "It is \\boxed{7}."]
    expected = [1 / 3, 1.0, 1 / 2, 2 / 3, 1 / 2, 1.0, 0.75]
    assert features(episode) == pytest.approx(expected)
    episode = act(episode, "\\boxed{3}", np.random.default_rng(0))
    assert features(episode)[0] == 0.0


def test_a_refused_reply_is_not_observed() -> None:
    problem = Problem(id="p", statement="x", answer="3")
    episode = begin(problem, Rules(acceptance_rate=0.0))
    episode = act(episode, render_consult(Consult(("a", "b"))), np.random.default_rng(0))
    episode = receive(episode, [Reply("one", "7"), Reply("two", "7")])
    named = dict(zip(FEATURES, features(episode).tolist(), strict=True))
    assert (named["replies"], named["agreement"]) == (0.0, 0.0)
    assert named["unanswered"] == pytest.approx(2 / 3)


def test_replies_agree_when_their_answers_do() -> None:
    assert agreement([]) == 0.0
    assert agreement(["yes", " yes ", "no"]) == pytest.approx(2 / 3)
    assert agreement(["so \\boxed{7}", "\\boxed{7}", "\\boxed{8}", "none"]) == 0.5


def test_the_first_questions_are_asked_and_the_whole_problem_without_any() -> None:
    episode = begin(Problem(id="p", statement="2 + 2?", answer="4"), Rules())
    for questions, expected in (
        (["a", " ", "b", "c"], ("a", "b")),
        ([], ("2 + 2?", "2 + 2?")),
        (["</query>a"], ("&lt;/query>a",)),
    ):
        text = consulting(questions, 2, episode)
        assert act(episode, text, np.random.default_rng(0)).actions[-1] == Consult(expected)
