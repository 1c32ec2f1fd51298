"""Experts in process: the protocol's conformance test, the doubles, and whose luck it is."""

import asyncio
import pickle
from dataclasses import dataclass

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
    check_expert_pool,
)
from eapo_env.types import Query, Reply, Unavailable

texts = st.text(st.characters(codec=None), max_size=20)
queries = st.builds(
    Query,
    text=texts,
    statement=texts,
    seed=st.integers(0, 3),
    turn=st.integers(0, 3),
    slot=st.integers(0, 3),
)


def ask(pool, *asked):
    return list(asyncio.run(pool.ask(asked)))


def answer_41(query):
    return "The answer is 41."


def echo(query):
    return query.text


def evens_only(query):
    return "yes" if query.slot % 2 == 0 else None


def broken(query):
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
def test_every_pool_conforms(pool):
    asyncio.run(check_expert_pool(pool))


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: type(pool).__name__)
def test_pools_are_values(pool):
    assert isinstance(pool, ExpertPool)
    assert pickle.loads(pickle.dumps(pool)) == pool


@dataclass(frozen=True)
class Misbehaving:
    """A pool that breaks the protocol as `how` says."""

    how: str

    async def ask(self, queries):
        replies = [Reply("x", query.text) for query in queries]
        match self.how:
            case "one too many":
                return [*replies, Unavailable("surplus")]
            case "empty batch":
                return replies if replies else None
            case "raises":
                return [Reply("x", str(int(query.text))) for query in queries]
            case "no reply":
                return [query.text for query in queries]
            case "no text":
                return [Reply("x", None) for _ in queries]
        return replies


@dataclass(frozen=True)
class OneAtATime:
    """A pool that fails when asked while it is busy."""

    busy: list

    async def ask(self, queries):
        if self.busy:
            raise RuntimeError("busy")
        self.busy.append(True)
        await asyncio.sleep(0)
        self.busy.clear()
        return [Unavailable("later")] * len(queries)


@dataclass(frozen=True)
class Unpicklable:
    """A pool that holds what no other process can have."""

    answer: object

    async def ask(self, queries):
        return [Unavailable("no")] * len(queries)


@pytest.mark.parametrize("how", ["one too many", "empty batch", "raises", "no reply", "no text"])
def test_the_conformance_test_finds_what_is_wrong(how):
    with pytest.raises(AssertionError):
        asyncio.run(check_expert_pool(Misbehaving(how)))


def test_the_conformance_test_asks_concurrently():
    with pytest.raises(AssertionError, match="busy"):
        asyncio.run(check_expert_pool(OneAtATime([])))


def test_the_conformance_test_pickles():
    with pytest.raises(AssertionError, match="cannot be pickled"):
        asyncio.run(check_expert_pool(Unpicklable(lambda query: None)))


def test_the_conformance_test_accepts_a_users_own_pool():
    asyncio.run(check_expert_pool(Misbehaving("not at all")))


def test_a_scripted_expert_is_chosen_by_slot():
    pool = ScriptedExperts(echo, names=("ann", "bob"))
    replies = ask(pool, *(Query(text=str(slot), slot=slot) for slot in range(3)))
    assert replies == [Reply("ann", "0"), Reply("bob", "1"), Reply("ann", "2")]


def test_a_scripted_expert_without_an_answer_is_unavailable():
    replies = ask(ScriptedExperts(evens_only), Query(text="a", slot=0), Query(text="b", slot=1))
    assert replies == [Reply("scripted", "yes"), Unavailable("no answer", "scripted")]


def test_a_bug_in_a_script_costs_one_reply_and_is_seen():
    with pytest.warns(RuntimeWarning, match="invalid literal"):
        first, second = ask(ScriptedExperts(broken), Query(text="x"), Query(text="7"))
    assert isinstance(first, Unavailable)
    assert "ValueError" in first.reason
    assert second == Reply("scripted", "7")


def test_a_pool_without_names_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        ScriptedExperts(echo, names=())


def test_meaningless_experts_say_what_they_are_told_to():
    assert ask(MeaninglessExperts("No."), Query(text="?")) == [Reply("meaningless", "No.")]


@given(st.text(max_size=50))
def test_a_changed_digit_changes_one_character(text):
    changed = change_last_digit(text, np.random.default_rng(0))
    if any(character in "0123456789" for character in text):
        differing = [(a, b) for a, b in zip(text, changed, strict=True) if a != b]
        assert len(differing) == 1
        assert all(character in "0123456789" for character in differing[0])
    else:
        assert changed in list("0123456789")


def test_the_last_number_is_the_one_that_changes():
    changed = {
        change_last_digit(r"3x = 12, so \boxed{4}.", np.random.default_rng(i)) for i in range(99)
    }
    assert changed == {rf"3x = 12, so \boxed{{{digit}}}." for digit in "012356789"}


@given(st.lists(queries, max_size=8, unique=True), st.randoms(use_true_random=False))
def test_errors_do_not_depend_on_batch_or_order(asked, random):
    pool = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.5, seed=7)
    together = dict(zip(asked, ask(pool, *asked), strict=True))
    shuffled = random.sample(asked, len(asked))
    assert dict(zip(shuffled, ask(pool, *shuffled), strict=True)) == together
    assert {query: ask(pool, query)[0] for query in asked} == together


def test_errors_come_at_their_rate():
    """3,000 draws: the share of a fair rate of 0.3 is within 0.3 +- 0.05 (6 sigma)."""
    pool = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.3)
    asked = [Query(text="?", seed=seed, slot=slot) for seed in range(1000) for slot in range(3)]
    wrong = [reply.text != "The answer is 41." for reply in ask(pool, *asked)]
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
def test_each_part_of_a_query_has_its_own_luck(other):
    def fates(query):
        inner = ScriptedExperts(answer_41)
        pools = [ErroneousExperts(inner=inner, error_rate=0.5, seed=seed) for seed in range(64)]
        return [ask(pool, query)[0] for pool in pools]

    assert fates(Query(text="?")) == fates(Query(text="?"))
    assert fates(Query(text="?")) != fates(other)


def test_error_rates_0_and_1_are_certain():
    asked = [Query(text="?", seed=seed) for seed in range(50)]
    never = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=0.0)
    always = ErroneousExperts(inner=ScriptedExperts(answer_41), error_rate=1.0)
    assert {reply.text for reply in ask(never, *asked)} == {"The answer is 41."}
    assert "The answer is 41." not in {reply.text for reply in ask(always, *asked)}


def shout(text, rng):
    return text.upper()


def test_the_corruption_is_the_users():
    pool = ErroneousExperts(inner=ScriptedExperts(echo), error_rate=1.0, corrupt=shout)
    assert ask(pool, Query(text="two")) == [Reply("scripted", "TWO")]


def break_down(text, rng):
    raise LookupError("no idea how")


def test_a_bug_in_a_corruption_costs_one_reply_and_is_seen():
    pool = ErroneousExperts(inner=ScriptedExperts(echo), error_rate=1.0, corrupt=break_down)
    with pytest.warns(RuntimeWarning, match="no idea how"):
        (reply,) = ask(pool, Query(text="two"))
    assert reply == Unavailable("failed: LookupError('no idea how')", "scripted")


def test_an_unavailable_expert_makes_no_errors():
    pool = ErroneousExperts(inner=SilentExperts("gone"), error_rate=1.0)
    assert ask(pool, Query(text="?")) == [Unavailable("gone")]


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_an_impossible_error_rate_is_refused(rate):
    with pytest.raises(ValueError, match=r"error_rate must be in \[0, 1\]"):
        ErroneousExperts(inner=SilentExperts(), error_rate=rate)
