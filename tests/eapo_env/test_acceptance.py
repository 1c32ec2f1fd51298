"""The gate: its law, and what cannot move it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.acceptance import REFUSED, draw_acceptance, queries_to_ask, replies_in_slots
from eapo_env.actions import Consult, render_consult
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.types import (
    Consultation,
    ExpertReply,
    Gate,
    Problem,
    Query,
    Reply,
    Rules,
    Unavailable,
)

PROBLEM = Problem(id="p", statement="What is $1+1$?", answer="2")
RATES = st.floats(0, 1)
SEEDS = st.integers(0, 2**32)
TURNS = st.lists(st.integers(1, 4), max_size=4)


@given(st.integers(0, 50), SEEDS)
def test_rate_zero_accepts_nothing_and_rate_one_everything(num_queries: int, seed: int) -> None:
    assert not any(draw_acceptance(num_queries, 0.0, np.random.default_rng(seed)))
    assert all(draw_acceptance(num_queries, 1.0, np.random.default_rng(seed)))


@given(st.integers(0, 20), RATES, SEEDS)
def test_the_kth_decision_depends_on_the_kth_uniform_alone(
    num_queries: int, rate: float, seed: int
) -> None:
    uniforms = np.random.default_rng(seed).random(num_queries).tolist()
    for threshold in (rate, *uniforms):
        decisions = draw_acceptance(num_queries, threshold, np.random.default_rng(seed))
        assert decisions == tuple(u < threshold for u in uniforms)


@given(st.lists(st.integers(1, 5), max_size=5), RATES, SEEDS)
def test_how_queries_are_spread_over_turns_does_not_matter(
    turns: list[int], rate: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    apart = [accepted for turn in turns for accepted in draw_acceptance(turn, rate, rng)]
    together = draw_acceptance(sum(turns), rate, np.random.default_rng(seed))
    assert tuple(apart) == together


@given(st.integers(0, 20), RATES, RATES, SEEDS)
def test_a_higher_rate_accepts_whatever_a_lower_one_does(
    num_queries: int, one: float, other: float, seed: int
) -> None:
    few = draw_acceptance(num_queries, min(one, other), np.random.default_rng(seed))
    many = draw_acceptance(num_queries, max(one, other), np.random.default_rng(seed))
    assert all(b for a, b in zip(few, many, strict=True) if a)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9])
def test_the_share_accepted_is_the_rate(rate: float) -> None:
    num_draws = 100_000
    share = np.mean(draw_acceptance(num_draws, rate, np.random.default_rng(7)))
    # Five standard deviations of a binomial share.
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / num_draws)


def expert(query: Query) -> Reply:
    return Reply("ada", f"{query.text} in turn {query.turn}, slot {query.slot}")


def expert_pool(asked: Sequence[Query]) -> Sequence[ExpertReply]:
    return [expert(query) for query in asked]


def play(
    turns: Sequence[int],
    rules: Rules,
    seed: int,
    gate: Gate,
    ask: Callable[[Sequence[Query]], Sequence[ExpertReply]] = expert_pool,
) -> Episode:
    """Return the episode in which turn t asks turns[t] questions."""
    rng = np.random.default_rng(seed)
    episode = begin(PROBLEM, rules, seed=seed)
    for turn, num_queries in enumerate(turns):
        if episode.stop_reason:
            break
        texts = tuple(f"q{turn}.{slot}" for slot in range(num_queries))
        episode = act(episode, render_consult(Consult(texts)), rng)
        if episode.pending:
            asked = queries_to_ask(episode.pending, gate)
            episode = receive(episode, replies_in_slots(episode.pending, gate, ask(asked)))
    return episode


@given(TURNS, RATES, SEEDS)
def test_pre_and_post_give_the_same_histories(turns: list[int], rate: float, seed: int) -> None:
    rules = Rules(turn_budget=5, acceptance_rate=rate)
    pre, post = (play(turns, rules, seed, gate) for gate in ("pre", "post"))
    assert pre.messages == post.messages
    assert pre.actions == post.actions
    assert [c.accepted for c in pre.consultations] == [c.accepted for c in post.consultations]


@given(TURNS, SEEDS, st.data())
def test_lost_replies_do_not_shift_the_gate(
    turns: list[int], seed: int, data: st.DataObject
) -> None:
    def unreliable(asked: Sequence[Query]) -> list[ExpertReply]:
        lost = data.draw(st.lists(st.booleans(), min_size=len(asked), max_size=len(asked)))
        return [
            Unavailable("fault") if gone else expert(query)
            for query, gone in zip(asked, lost, strict=True)
        ]

    rules = Rules(turn_budget=5, acceptance_rate=0.5)
    steady = play(turns, rules, seed, "pre")
    shaken = play(turns, rules, seed, "pre", unreliable)
    assert [c.accepted for c in steady.consultations] == [c.accepted for c in shaken.consultations]
    assert [c.queries for c in steady.consultations] == [c.queries for c in shaken.consultations]


@given(TURNS, SEEDS, st.randoms(use_true_random=False))
def test_the_order_in_which_replies_arrive_does_not_matter(
    turns: list[int], seed: int, random: Random
) -> None:
    def out_of_order(asked: Sequence[Query]) -> Sequence[ExpertReply]:
        order = list(range(len(asked)))
        random.shuffle(order)

        async def race() -> Sequence[ExpertReply]:
            loop = asyncio.get_running_loop()
            pending: list[asyncio.Future[ExpertReply]] = [loop.create_future() for _ in asked]
            for k in order:
                loop.call_soon(pending[k].set_result, expert(asked[k]))
            return await asyncio.gather(*pending)

        return asyncio.run(race())

    rules = Rules(turn_budget=5, acceptance_rate=0.5)
    assert play(turns, rules, seed, "pre", out_of_order) == play(turns, rules, seed, "pre")


def consultation(accepted: tuple[bool, ...]) -> Consultation:
    return Consultation(tuple(Query(text=f"q{k}", slot=k) for k in range(len(accepted))), accepted)


@given(st.lists(st.booleans(), min_size=1, max_size=6).map(tuple))
def test_pre_asks_the_accepted_slots_and_post_all(accepted: tuple[bool, ...]) -> None:
    asked = queries_to_ask(consultation(accepted), "pre")
    assert [query.slot for query in asked] == [k for k, yes in enumerate(accepted) if yes]
    assert queries_to_ask(consultation(accepted), "post") == consultation(accepted).queries
    replies = replies_in_slots(consultation(accepted), "pre", [expert(query) for query in asked])
    for query, yes, reply in zip(consultation(accepted).queries, accepted, replies, strict=True):
        assert reply == (expert(query) if yes else REFUSED)


@pytest.mark.parametrize(
    ("gate", "num_replies"), [("pre", 2), ("pre", 0), ("post", 1), ("post", 3)]
)
def test_a_pool_that_answers_another_number_is_an_error(gate: Gate, num_replies: int) -> None:
    with pytest.raises(ValueError, match=f"returned {num_replies} replies"):
        replies_in_slots(consultation((True, False)), gate, [Reply("ada", "x")] * num_replies)


def test_the_gate_draws_from_the_episodes_own_generator() -> None:
    rules = Rules(turn_budget=5, acceptance_rate=0.5, queries_per_turn=3)
    rng = np.random.default_rng(3)
    episode = act(begin(PROBLEM, rules), render_consult(Consult(("a", "b", "c", "d"))), rng)
    assert episode.pending is not None
    assert len(episode.pending.accepted) == 3
    untouched = np.random.default_rng(3)
    untouched.random(3)
    assert rng.random() == untouched.random()


def test_a_reply_that_is_none_is_refused() -> None:
    texts: list[Any] = ["42"]
    consultation = Consultation(queries=(Query(text="q"),), accepted=(True,))
    with pytest.raises(ValueError, match="returned '42', which is neither Reply nor Unavailable"):
        replies_in_slots(consultation, "pre", texts)
