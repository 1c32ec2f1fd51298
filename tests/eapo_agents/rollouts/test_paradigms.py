"""The paradigms of an episode: cases by hand, and what holds of any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_agents.rollouts.paradigms import Paradigm, covers, paradigm_of, shares
from eapo_env.actions import Consult, render_consult
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.types import Problem, Rules, Unavailable

STATEMENT = "a:((47+8)*6) b:((12*9)-5) a+b mod 100"
texts = st.text(
    st.characters(blacklist_categories=["Cs"], blacklist_characters="<>\0"), max_size=40
)


def played(*turns: Sequence[str], statement: str = STATEMENT) -> Episode:
    luck = np.random.default_rng(0)
    problem = Problem(id="p", statement=statement, answer="2")
    episode = begin(problem, Rules(turn_budget=9, queries_per_turn=9, acceptance_rate=0.0), seed=0)
    for queries in turns:
        episode = act(episode, render_consult(Consult(tuple(queries))), luck)
        episode = receive(episode, [Unavailable("refused")] * len(queries))
    return act(episode, r"\boxed{2}", luck)


@pytest.mark.parametrize(
    ("turns", "paradigm"),
    [
        ([], Paradigm.SELF_RESOLUTION),
        ([[STATEMENT]], Paradigm.DIRECT_CONSULTATION),
        ([[f"Please solve {STATEMENT} for me."]], Paradigm.DIRECT_CONSULTATION),
        ([["a:((47+8)*6)", "b:((12*9)-5)"]], Paradigm.DECOMPOSITION),
        ([["a:((47+8)*6)"], ["b:((12*9)-5)"]], Paradigm.DECOMPOSITION),
        ([["a:((47+8)*6)"], [STATEMENT]], Paradigm.DIRECT_CONSULTATION),
        ([["a:((47+8)*6) b:((12*9)-5)"]], Paradigm.DIRECT_CONSULTATION),  # 20 of 25 tokens
    ],
)
def test_cases_by_hand(turns: list[list[str]], paradigm: Paradigm) -> None:
    assert paradigm_of(played(*turns)) == paradigm


@given(query=texts, statement=texts.filter(str.strip), more=texts)
def test_more_words_never_make_a_query_cover_less(query: str, statement: str, more: str) -> None:
    assert covers(statement, statement)
    assert covers(f"{more} {statement} {more}", statement)
    if covers(query, statement):
        assert covers(f"{query} {more}", statement)


@given(st.lists(st.lists(texts.filter(str.strip), min_size=1, max_size=3), max_size=3))
def test_whoever_asks_is_no_self_resolver_and_the_order_does_not_matter(
    turns: list[list[str]],
) -> None:
    found = paradigm_of(played(*turns))
    assert (found == Paradigm.SELF_RESOLUTION) == (not turns)
    assert paradigm_of(played(*reversed(turns))) == found


def test_shares_add_up() -> None:
    episodes = [played(), played([STATEMENT]), played(["1+1"]), played(["2+2"])]
    assert shares(episodes) == {
        "paradigm/self_resolution": 0.25,
        "paradigm/direct_consultation": 0.25,
        "paradigm/decomposition": 0.5,
    }
    assert set(shares([]).values()) == {0.0}
