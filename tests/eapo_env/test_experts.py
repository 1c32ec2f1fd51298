"""Experts in process: each pool keeps the protocol, and its errors depend on the query alone."""

from __future__ import annotations

import asyncio
import gc
import pickle
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.experts import (
    ErroneousExperts,
    ExpertPool,
    MeaninglessExperts,
    ScriptedExperts,
    SilentExperts,
    change_last_digit,
)
from eapo_env.testing import check_expert_pool
from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

texts = st.text(st.characters(codec=None), max_size=20)
queries = st.builds(
    Query,
    text=texts,
    statement=texts,
    seed=st.integers(0, 3),
    turn=st.integers(0, 3),
    slot=st.integers(0, 3),
)


def ask(pool: ExpertPool, *asked: Query) -> list[ExpertReply]:
    return list(asyncio.run(pool.ask(asked)))


def texts_of(replies: list[ExpertReply]) -> list[str]:
    return [reply.text for reply in replies if isinstance(reply, Reply)]


def answer_41(query: Query) -> str:
    return "The answer is 41."


def echo(query: Query) -> str:
    return query.text


def evens_only(query: Query) -> str | None:
    return "yes" if query.slot % 2 == 0 else None


def broken(query: Query) -> str:
    return str(int(query.text))


POOLS = [
    ScriptedExperts(echo),
    ScriptedExperts(evens_only, names=("ann", "bob")),
    SilentExperts(),
    MeaninglessExperts(),
    ErroneousExperts(inner=ScriptedExperts(echo), error_rate=0.5),
    ErroneousExperts(inner=SilentExperts(), error_rate=1.0),
]


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: type(pool).__name__)
def test_every_pool_conforms(pool: ExpertPool) -> None:
    asyncio.run(check_expert_pool(pool))


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: type(pool).__name__)
def test_pools_are_values(pool: ExpertPool) -> None:
    assert isinstance(pool, ExpertPool)
    assert pickle.loads(pickle.dumps(pool)) == pool


def test_a_scripted_expert_is_chosen_by_slot() -> None:
    pool = ScriptedExperts(echo, names=("ann", "bob"))
    replies = ask(pool, *(Query(text=str(slot), slot=slot) for slot in range(3)))
    assert replies == [Reply("ann", "0"), Reply("bob", "1"), Reply("ann", "2")]


def test_a_scripted_expert_without_an_answer_is_unavailable() -> None:
    replies = ask(ScriptedExperts(evens_only), Query(text="a", slot=0), Query(text="b", slot=1))
    assert replies == [Reply("scripted", "yes"), Unavailable("no answer", "scripted")]


def test_a_bug_in_a_script_costs_one_reply_and_is_seen() -> None:
    with pytest.warns(RuntimeWarning, match="invalid literal"):
        first, second = ask(ScriptedExperts(broken), Query(text="x"), Query(text="7"))
    assert isinstance(first, Unavailable)
    assert "ValueError" in first.reason
    assert second == Reply("scripted", "7")


def test_a_pool_without_names_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ScriptedExperts(echo, names=())


def test_meaningless_experts_say_what_they_are_told_to() -> None:
    assert ask(MeaninglessExperts("No."), Query(text="?")) == [Reply("meaningless", "No.")]


@given(st.text(max_size=50))
def test_a_changed_digit_changes_one_character(text: str) -> None:
    changed = change_last_digit(text, np.random.default_rng(0))
    if any(character in "0123456789" for character in text):
        differing = [(a, b) for a, b in zip(text, changed, strict=True) if a != b]
        assert len(differing) == 1
        assert all(character in "0123456789" for character in differing[0])
    else:
        assert changed in list("0123456789")


def test_the_last_number_is_the_one_that_changes() -> None:
    changed = {
        change_last_digit(r"3x = 12, so \boxed{4}.", np.random.default_rng(i)) for i in range(99)
    }
    assert changed == {rf"3x = 12, so \boxed{{{digit}}}." for digit in "012356789"}


@given(st.lists(queries, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_errors_do_not_depend_on_batch_or_order(asked: list[Query], random: Random) -> None:
    pool = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.5, seed=7)
    together = dict(zip(asked, ask(pool, *asked), strict=True))
    shuffled = random.sample(asked, len(asked))
    assert dict(zip(shuffled, ask(pool, *shuffled), strict=True)) == together
    assert {query: ask(pool, query)[0] for query in asked} == together


def test_errors_come_at_their_rate() -> None:
    """3,000 draws: the share of a fair rate of 0.3 is within 0.3 +- 0.05 (6 sigma)."""
    pool = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.3)
    asked = [Query(text="?", seed=seed, slot=slot) for seed in range(1000) for slot in range(3)]
    wrong = [text != "The answer is 41." for text in texts_of(ask(pool, *asked))]
    assert len(wrong) == 3000
    assert abs(np.mean(wrong) - 0.3) < 0.05


@pytest.mark.parametrize(
    "other",
    [
        Query(text="!"),
        Query(text="?", statement="!"),
        Query(text="?", seed=1),
        Query(text="?", turn=1),
        Query(text="?", slot=1),
    ],
)
def test_each_part_of_a_query_has_its_own_luck(other: Query) -> None:
    def fates(query: Query) -> list[ExpertReply]:
        inner = ScriptedExperts(answer_41)
        pools = [ErroneousExperts(inner=inner, error_rate=0.5, seed=seed) for seed in range(64)]
        return [ask(pool, query)[0] for pool in pools]

    assert fates(Query(text="?")) == fates(Query(text="?"))
    assert fates(Query(text="?")) != fates(other)


def test_error_rates_0_and_1_are_certain() -> None:
    asked = [Query(text="?", seed=seed) for seed in range(50)]
    never = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.0)
    always = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=1.0)
    assert texts_of(ask(never, *asked)) == ["The answer is 41."] * 50
    assert "The answer is 41." not in texts_of(ask(always, *asked))


def shout(text: str, rng: np.random.Generator) -> str:
    return text.upper()


def test_the_corruption_is_the_users() -> None:
    pool = ErroneousExperts(inner=ScriptedExperts(echo), error_rate=1.0, corrupt=shout)
    assert ask(pool, Query(text="two")) == [Reply("scripted", "TWO")]


def break_down(text: str, rng: np.random.Generator) -> str:
    raise LookupError("no idea how")


def test_a_bug_in_a_corruption_costs_one_reply_and_is_seen() -> None:
    pool = ErroneousExperts(inner=ScriptedExperts(echo), error_rate=1.0, corrupt=break_down)
    line = break_down.__code__.co_firstlineno + 1
    with pytest.warns(RuntimeWarning, match=rf"no idea how.*test_experts\.py:{line}\)"):
        (reply,) = ask(pool, Query(text="two"))
    assert reply == Unavailable("failed: LookupError('no idea how')", "scripted")


def test_an_unavailable_expert_makes_no_errors() -> None:
    pool = ErroneousExperts(inner=SilentExperts("gone"), error_rate=1.0)
    assert ask(pool, Query(text="?")) == [Unavailable("gone")]


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_an_impossible_error_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"error_rate must be in \[0, 1\]"):
        ErroneousExperts(inner=SilentExperts(), error_rate=rate)


# --- functions that wait


class Calls:
    """An `async def` that counts its calls, and how many are live at once."""

    def __init__(self) -> None:
        self.asked: list[Query] = []
        self.live = self.most_live = 0

    async def __call__(self, query: Query) -> str | None:
        self.asked.append(query)
        self.live += 1
        self.most_live = max(self.most_live, self.live)
        try:
            await asyncio.sleep(0)
            if query.text == "hang":
                await asyncio.sleep(3600)
            if query.text == "raise":
                raise ConnectionError("quota exceeded")
            return None if query.text == "nothing" else query.text.upper()
        finally:
            self.live -= 1


async def shout_later(query: Query) -> str:
    await asyncio.sleep(0)
    return query.text.upper()


def test_an_async_function_conforms() -> None:
    asyncio.run(check_expert_pool(ScriptedExperts(shout_later, max_live_calls=2, cache_size=3)))


def test_an_async_function_is_asked_everything_at_once() -> None:
    calls = Calls()
    asked = [Query(text=text, slot=slot) for slot, text in enumerate(["a", "b", "nothing"])]
    replies = ask(ScriptedExperts(calls, names=("ann", "bob")), *asked)
    assert replies == [Reply("ann", "A"), Reply("bob", "B"), Unavailable("no answer", "ann")]
    assert calls.most_live == 3
    assert all(reply.latency_s is not None for reply in replies), "each call is measured"
    assert all(reply.latency_s is None for reply in ask(ScriptedExperts(echo), *asked))


@given(st.integers(1, 4), st.integers(0, 12))
def test_no_more_calls_are_live_than_allowed(limit: int, number: int) -> None:
    calls = Calls()
    pool = ScriptedExperts(calls, max_live_calls=limit)
    asked = [Query(text=str(slot), slot=slot) for slot in range(number)]

    async def from_several() -> None:
        await asyncio.gather(*(pool.ask(asked[start::2]) for start in range(2)))

    asyncio.run(from_several())
    assert len(calls.asked) == number
    assert calls.most_live == min(limit, number)


def test_a_call_has_a_timeout_and_its_error_is_shown() -> None:
    pool = ScriptedExperts(Calls(), timeout_s=0.1)
    with pytest.warns(RuntimeWarning, match="quota exceeded"):
        replies = ask(pool, Query(text="hang"), Query(text="raise"), Query(text="a"))
    assert replies == [
        Unavailable("no reply within 0.1 s", "scripted"),
        Unavailable("failed: ConnectionError('quota exceeded')", "scripted"),
        Reply("scripted", "A"),
    ]


async def exhausted(query: Query) -> str:
    raise TimeoutError("db pool exhausted")


def test_a_timeout_of_the_answers_own_is_shown_as_such() -> None:
    with pytest.warns(RuntimeWarning, match="db pool exhausted"):
        replies = [
            *ask(ScriptedExperts(exhausted, timeout_s=60), Query(text="a")),
            *ask(ScriptedExperts(exhausted, timeout_s=float("inf")), Query(text="a")),
        ]
    assert replies == [Unavailable("failed: TimeoutError('db pool exhausted')", "scripted")] * 2


async def quoting(query: Query) -> str:
    raise KeyError(query.text * 1000)


def test_failures_of_one_kind_are_warned_of_once_and_in_short() -> None:
    queries = [Query(text=text) for text in "abc"]
    with pytest.warns(RuntimeWarning) as caught:
        replies = ask(ScriptedExperts(quoting), *queries)
    assert len(caught) == 1
    assert len(str(caught[0].message)) < 600
    assert "KeyError('aaa" in str(caught[0].message)
    assert [len(reply.reason) for reply in replies if isinstance(reply, Unavailable)] == [1020] * 3


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_calls_that_had_not_begun_are_closed_when_they_are_cancelled(turns: int) -> None:
    """Otherwise Python warns, which fails the test, that a coroutine was never awaited."""
    pool = ScriptedExperts(Calls(), max_live_calls=1)

    async def interrupted() -> None:
        asked = [Query(text="hang"), Query(text="a"), Query(text="b")]
        waiting = asyncio.ensure_future(pool.ask(asked))
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(interrupted())
    gc.collect()


@given(st.lists(queries, max_size=12), st.integers(0, 4))
def test_a_cache_changes_how_often_is_asked_and_nothing_else(
    asked: list[Query], cache_size: int
) -> None:
    """The newest answers are kept: with room for all, no expert is asked one thing twice."""
    plain, cached = Calls(), Calls()
    names = ("ann", "bob")
    one = ScriptedExperts(plain, names=names)
    other = ScriptedExperts(cached, names=names, cache_size=cache_size)
    for query in asked:
        assert ask(one, query) == ask(other, query)
    different = {(query.text, query.statement, query.slot % 2) for query in asked}
    if cache_size == 0:
        assert len(cached.asked) == len(asked)
    elif len(different) <= cache_size:
        assert len(cached.asked) == len(different)


def test_failures_are_not_kept_and_the_oldest_answer_goes_first() -> None:
    calls = Calls()
    pool = ScriptedExperts(calls, cache_size=2)
    for text in ("nothing", "nothing", "a", "b", "a", "c", "a", "b"):
        ask(pool, Query(text=text))
    assert [query.text for query in calls.asked] == ["nothing", "nothing", "a", "b", "c", "b"]


def test_what_a_function_returns_is_a_string_or_nothing() -> None:
    pool = ScriptedExperts(lambda query: 7)  # type: ignore[arg-type, return-value]
    with pytest.warns(RuntimeWarning, match="not a string: 7"):
        [reply] = ask(pool, Query(text="?"))
    assert reply == Unavailable("failed: TypeError('not a string: 7')", "scripted")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"max_live_calls": 0}, "max_live_calls must be at least 1, not 0"),
        ({"timeout_s": 0}, "timeout_s must be positive, not 0"),
        ({"cache_size": -1}, "cache_size must be at least 0, not -1"),
        ({"names": ()}, "a pool needs at least one expert name"),
        ({"answer": {"x": "4"}}, "answer must be a function of a query, not {'x': '4'}"),
        ({"names": "ab"}, "names must be a tuple of strings, not 'ab'"),
        ({"names": (1,)}, r"names must be a tuple of strings, not \(1,\)"),
        ({"max_live_calls": 1.5}, "max_live_calls must be a whole number, not 1.5"),
        ({"cache_size": True}, "cache_size must be a whole number, not True"),
        ({"timeout_s": "3"}, "timeout_s must be a number, not '3'"),
        ({"timeout_s": None}, "timeout_s must be a number, not None"),
    ],
)
def test_bad_settings_of_scripted_experts_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        ScriptedExperts(**({"answer": echo} | settings))
