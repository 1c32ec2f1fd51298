"""Experts of any behaviour behind their guard, and the monitor, on a clock that the test sets."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_env.endpoints import Endpoint
from eapo_env.env import EAPOMathEnv
from eapo_env.event_loop import run
from eapo_env.experts import (
    ErroneousExperts,
    ExpertPool,
    ScriptedExperts,
    SilentExperts,
    is_cooperative,
)
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.openai_experts import OpenAIExperts, by_question, read_with_reasoning
from eapo_env.synthetic import synthetic_experts
from eapo_env.testing import check_expert_pool
from eapo_env.types import NO_ANSWER, ExpertReply, Problem, Query, Reply, Unavailable
from eapo_env.validation import UserError
from eapo_env.vector_env import EAPOMathVectorEnv

PROBLEM = Problem(id="p", statement="What is 3 + 4?", answer="7")
CONSULT = "<consult><query>3 + 4?</query><query>4 + 3?</query></consult>"
DEAD = Unavailable("connection refused", "bob")
FINE = Reply("alice", "7")


@dataclass
class Moody:
    """Takes as long as it is told and fails as often."""

    now: float = 1000.0
    plan: list[tuple[float, Sequence[ExpertReply]]] = field(default_factory=list)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        seconds, replies = self.plan.pop(0)
        self.now += seconds
        return replies


def ask(monitor: ExpertMonitor, pool: Moody, seconds: float, *replies: ExpertReply) -> None:
    pool.plan.append((seconds, replies))
    queries = [Query(text="?") for _ in replies]
    experts = GuardedExperts(inner=pool, monitor=monitor)
    assert asyncio.run(asked(experts, queries)) == list(replies)


async def asked(experts: ExpertPool, queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return await experts.ask(queries)


def test_latencies_and_failures_are_those_since_the_last_look() -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    assert monitor.metrics() == {}
    for seconds in (1.0, 2.0, 3.0):
        ask(monitor, pool, seconds, FINE, FINE, DEAD)
    assert monitor.metrics() == pytest.approx(
        {
            "seconds/expert_p50": 2.0,
            "seconds/expert_p95": 2.9,
            "expert_failure_rate": 1 / 3,
            "expert_errors": 0.0,
        }
    )
    ask(monitor, pool, 0.5, FINE)
    assert monitor.metrics() == pytest.approx(
        {
            "seconds/expert_p50": 0.5,
            "seconds/expert_p95": 0.5,
            "expert_failure_rate": 0.0,
            "expert_errors": 0.0,
        }
    )
    assert monitor.metrics() == {}


def test_hedged_queries_are_counted() -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    ask(monitor, pool, 1.0, replace(FINE, hedged=True), FINE, replace(DEAD, hedged=True), DEAD)
    assert monitor.metrics()["expert_hedge_rate"] == 0.5
    ask(monitor, pool, 1.0, FINE)
    assert "expert_hedge_rate" not in monitor.metrics()


def test_a_reply_has_the_latency_that_its_pool_measured_or_that_of_the_consultation() -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    experts = GuardedExperts(inner=pool, monitor=monitor)
    measured = Reply("alice", "7", latency_s=0.25)
    pool.plan.append((2.0, [measured, FINE, DEAD]))
    found = asyncio.run(asked(experts, [Query(text="?")] * 3))
    assert [reply.latency_s for reply in found] == [0.25, 2.0, 2.0]
    pool.plan.append((3.0, []))
    found = asyncio.run(asked(experts, [Query(text="?")]))
    assert [(type(reply), reply.latency_s) for reply in found] == [(Unavailable, 3.0)]
    assert (FINE, repr(FINE)) == (measured, repr(measured)), "the same words are the same reply"


def test_a_dead_pool_is_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    for _ in range(150):  # two and a half minutes, a call a second
        ask(monitor, pool, 1.0, DEAD, DEAD)
    assert len(caplog.records) == 3
    assert "2 expert replies did not come" in caplog.messages[0]
    assert "120 expert replies did not come" in caplog.messages[1]
    assert all("bob: connection refused" in message for message in caplog.messages)
    for _ in range(150):
        ask(monitor, pool, 1.0, FINE)
    assert len(caplog.records) == 3


def test_a_reply_that_fails_now_and_then_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    for _ in range(50):
        ask(monitor, pool, 9.0, DEAD, replace(FINE, expert=DEAD.expert))
    assert caplog.records == []
    assert monitor.metrics()["expert_failure_rate"] == 0.5


def test_one_expert_of_three_that_always_fails_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    ask(monitor, pool, 0.1, FINE, FINE, DEAD)
    assert caplog.records == []
    ask(monitor, pool, 0.1, FINE, FINE, DEAD)
    assert "2 expert replies did not come" in caplog.text
    assert "bob: " in caplog.text


def test_an_expert_that_has_answered_is_reported_once_most_of_eight_replies_failed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    ask(monitor, pool, 0.1, replace(FINE, expert=DEAD.expert))
    for _ in range(6):
        ask(monitor, pool, 0.1, DEAD)
    assert caplog.records == []
    ask(monitor, pool, 0.1, DEAD)
    assert "7 expert replies did not come" in caplog.text


def test_an_expert_that_has_no_answer_has_not_failed(caplog: pytest.LogCaptureFixture) -> None:
    """Scripted experts whose function returns None have none."""
    pool, nothing = Moody(), Unavailable(NO_ANSWER, "bob")
    monitor = ExpertMonitor(clock=lambda: pool.now)
    for _ in range(50):
        ask(monitor, pool, 9.0, nothing, nothing, nothing, DEAD)
    assert caplog.records == []
    assert monitor.metrics()["expert_failure_rate"] == 0.25
    silent = ScriptedExperts(lambda query: None, names=("bob",))
    assert asyncio.run(silent.ask([Query(text="?")])) == [nothing]
    assert asyncio.run(synthetic_experts().ask([Query(text="?")])) == [
        replace(nothing, expert="calculator")
    ]


def test_it_is_known_how_many_replies_are_awaited_and_for_how_long() -> None:
    now = 5.0
    monitor = ExpertMonitor(clock=lambda: now)
    assert monitor.waiting == (0, 0.0)
    with monitor.asking(2):
        now = 7.0
        with monitor.asking(3):
            now = 15.0
            assert monitor.waiting == (5, 10.0)
        assert monitor.waiting == (2, 10.0)
    assert monitor.waiting == (0, 0.0)


@dataclass(frozen=True)
class Custom:
    """A pool whose `ask` is a function of the test."""

    answer: Callable[[Sequence[Query]], Any]
    cooperative: bool = False

    def ask(self, queries: Sequence[Query]) -> Coroutine[Any, Any, Sequence[ExpertReply]]:
        made: Coroutine[Any, Any, Sequence[ExpertReply]] = self.answer(queries)
        return made


async def answers(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return [FINE] * len(queries)


async def answers_later(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    await asyncio.sleep(0.1)
    return [FINE] * len(queries)


async def sleeps(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    await asyncio.sleep(3600)
    return [FINE] * len(queries)


async def will_not_be_cancelled(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            if not queries[0].text:
                raise


async def blocks(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    time.sleep(8)
    return [FINE] * len(queries)


async def raises(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise ConnectionError("quota exceeded")


async def times_out(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise TimeoutError("of its own")


async def is_cancelled(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise asyncio.CancelledError


async def exits(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise SystemExit("of its own")


class UnspeakableError(Exception):
    def __repr__(self) -> str:
        raise LookupError


async def raises_what_cannot_be_shown(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise UnspeakableError


async def raises_a_long_text(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    raise ValueError("x" * 10_000)


async def miscounts(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return [FINE] * (len(queries) + 1)


async def returns_none(queries: Sequence[Query]) -> None:
    return None


async def returns_text(queries: Sequence[Query]) -> Sequence[str]:
    return ["7"] * len(queries)


async def replies_with_a_number(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return [Reply("alice", 7)] * len(queries)  # type: ignore[arg-type]


async def replies_before_it_is_asked(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return [Reply("alice", "7", latency_s=-1.0)] * len(queries)


def is_not_async(queries: Sequence[Query]) -> Sequence[ExpertReply]:
    return [FINE] * len(queries)


BROKEN: dict[Callable[[Sequence[Query]], Any], str] = {
    sleeps: "no reply within 0.1 s",
    raises: "the pool failed: ConnectionError('quota exceeded')",
    times_out: "the pool failed: TimeoutError('of its own')",
    is_cancelled: "the pool failed: CancelledError()",
    exits: "the pool failed: SystemExit('of its own')",
    raises_what_cannot_be_shown: "the pool failed: UnspeakableError",
    raises_a_long_text: "the pool failed: ValueError('" + "x" * 271,
    miscounts: "the pool returned 3 replies to 2 queries",
    returns_none: "the pool returned None to 2 queries",
    returns_text: "the pool returned '7', no Reply or Unavailable of text",
    replies_with_a_number: "the pool returned Reply(expert='alice', text=7), no Reply or"
    " Unavailable of text",
    replies_before_it_is_asked: "the pool returned Reply(expert='alice', text='7'), which took"
    " latency_s=-1.0",
    is_not_async: "the pool's ask must be async def: it returned [Reply(expert='alice', text='7'),"
    " Reply(expert='alice', text='7')]",
}
TWO = (Query(text="3 + 4?"), Query(text="4 + 3?", slot=1))


@pytest.mark.parametrize("cooperative", [False, True])
@pytest.mark.parametrize("behaviour", BROKEN, ids=lambda behaviour: behaviour.__name__)
def test_whatever_a_pool_does_wrong_each_query_has_a_reply(
    behaviour: Callable[[Sequence[Query]], Any], cooperative: bool, caplog: pytest.LogCaptureFixture
) -> None:
    monitor = ExpertMonitor()
    pool = Custom(behaviour, cooperative)
    experts = GuardedExperts(inner=pool, timeout_s=0.1, monitor=monitor)
    expected = [Unavailable(BROKEN[behaviour])] * 2
    assert asyncio.run(asked(experts, TWO)) == expected
    assert experts.ask_now(TWO) == expected
    found = monitor.metrics()
    assert (found["expert_errors"], found["expert_failure_rate"]) == (2, 1)
    [told] = caplog.messages  # once a minute
    assert told.startswith("2 expert replies did not come")
    assert BROKEN[behaviour] in told


@pytest.mark.parametrize("behaviour", [will_not_be_cancelled, blocks])
def test_a_pool_that_cannot_be_stopped_is_left_behind(
    behaviour: Callable[[Sequence[Query]], Any],
) -> None:
    """The next pool is asked on an event loop that nothing blocks."""
    experts = GuardedExperts(inner=Custom(behaviour), timeout_s=0.1, grace_s=0.1)
    late = [Unavailable("no reply within 0.1 s")] * 2
    assert asyncio.run(asked(experts, TWO)) == late
    assert experts.ask_now(TWO) == late
    assert GuardedExperts(inner=Custom(answers), timeout_s=60).ask_now(TWO) == [FINE] * 2


@pytest.mark.parametrize("error", [SystemExit("mine"), KeyboardInterrupt("mine")])
def test_what_a_task_of_a_pool_raises_ends_no_other(error: BaseException) -> None:
    async def fail() -> ExpertReply:
        raise error

    async def gathers(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return await asyncio.gather(*(fail() for _ in queries))

    async def both() -> tuple[Sequence[ExpertReply], Sequence[ExpertReply]]:
        slow = GuardedExperts(inner=Custom(answers_later)).ask(TWO)
        failing = GuardedExperts(inner=Custom(gathers)).ask(TWO)
        replies, others = await asyncio.gather(failing, slow)
        return replies, others

    failed = [Unavailable(f"the pool failed: {error!r}")] * 2
    assert asyncio.run(both()) == (failed, [FINE] * 2)


def test_ctrl_c_while_a_cooperative_pool_is_asked_is_not_the_pools() -> None:
    async def interrupted(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        signal.raise_signal(signal.SIGINT)
        return ()

    experts = GuardedExperts(inner=Custom(interrupted, cooperative=True))
    with closing(asyncio.new_event_loop()) as loop, pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(experts.ask(TWO))


class Booked:
    """One call at a time, by a semaphore that belongs to the loop on which it first waits."""

    def __init__(self) -> None:
        self.room = asyncio.Semaphore(1)
        self.released = threading.Event()

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return await asyncio.gather(*map(self._reply, queries))

    async def _reply(self, query: Query) -> ExpertReply:
        async with self.room:
            if query.text == "block":
                self.released.wait()
            await asyncio.sleep(0)
            return FINE


def test_a_pool_that_has_blocked_finds_its_event_loop_again() -> None:
    pool = Booked()
    experts = GuardedExperts(inner=pool, timeout_s=0.1, grace_s=0.1)
    patient = GuardedExperts(inner=pool)
    assert patient.ask_now(TWO) == [FINE] * 2
    assert experts.ask_now([Query(text="block")]) == [Unavailable("no reply within 0.1 s")]
    assert "different event loop" in str(patient.ask_now(TWO))
    pool.released.set()
    while patient.ask_now(TWO) != [FINE] * 2:
        time.sleep(0.01)


def test_a_pool_that_blocks_does_not_stop_what_asks_it() -> None:
    async def watch() -> int:
        experts = GuardedExperts(inner=Custom(blocks), timeout_s=0.5)
        waiting = asyncio.ensure_future(experts.ask(TWO))
        turns = 0
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0.01)
        assert waiting.result() == [Unavailable("no reply within 0.5 s")] * 2
        return turns

    assert asyncio.run(watch()) > 10


def test_an_error_that_the_user_can_put_right_is_passed_on() -> None:
    async def refuse(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        raise UserError("there is no recording x.jsonl")

    for cooperative in (False, True):
        experts = GuardedExperts(inner=Custom(refuse, cooperative))
        with pytest.raises(UserError, match="no recording"):
            asyncio.run(asked(experts, TWO))
        with pytest.raises(UserError, match="no recording"):
            experts.ask_now(TWO)


@pytest.mark.parametrize("timeout_s", [0, -1.0])
def test_a_timeout_that_is_not_positive_is_refused(timeout_s: float) -> None:
    with pytest.raises(UserError, match=f"timeout_s must be positive, not {timeout_s}"):
        GuardedExperts(inner=SilentExperts(), timeout_s=timeout_s)


def test_a_cooperative_pool_is_asked_where_the_episode_is() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def where(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        loops.append(asyncio.get_running_loop())
        return [FINE] * len(queries)

    async def both() -> asyncio.AbstractEventLoop:
        await GuardedExperts(inner=Custom(where, cooperative=True)).ask(TWO)
        await GuardedExperts(inner=Custom(where)).ask(TWO)
        return asyncio.get_running_loop()

    here = asyncio.run(both())
    assert [loop is here for loop in loops] == [True, False]
    assert not is_cooperative(ErroneousExperts(inner=Custom(where), error_rate=0.5))
    assert is_cooperative(ErroneousExperts(inner=SilentExperts(), error_rate=0.5))


def changed(text: str, rng: np.random.Generator) -> str:
    return text


def first(query: Query, num_experts: int) -> int:
    return 0


def read(content: object, model: str) -> ExpertReply:
    return FINE


def test_a_pool_with_a_custom_function_is_not_cooperative() -> None:
    assert not is_cooperative(
        ErroneousExperts(inner=SilentExperts(), error_rate=0.5, corrupt=changed)
    )
    endpoints = [Endpoint(base_url="http://127.0.0.1:9/v1", models=("m",))]
    asked = OpenAIExperts(endpoints=endpoints, route=by_question, read=read_with_reasoning)
    assert is_cooperative(asked)
    assert not is_cooperative(replace(asked, route=first))
    assert not is_cooperative(replace(asked, read=read))


def test_without_a_timeout_it_waits() -> None:
    async def slow(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        await asyncio.sleep(0.2)
        return [FINE] * len(queries)

    experts = GuardedExperts(inner=Custom(slow), timeout_s=float("inf"))
    assert asyncio.run(asked(experts, TWO)) == [FINE] * 2


def test_a_cancelled_question_is_cancelled_in_the_pool() -> None:
    came: list[str] = []

    async def listens(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        came.append("asked")
        try:
            await asyncio.sleep(3600)
        finally:
            came.append("cancelled")
        return ()

    async def interrupted() -> None:
        waiting = asyncio.ensure_future(GuardedExperts(inner=Custom(listens)).ask(TWO))
        while not came:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(interrupted())
    run(asyncio.sleep(0.05))  # on the loop of the pool
    assert came == ["asked", "cancelled"]


def test_guarded_experts_are_a_pool() -> None:
    asyncio.run(check_expert_pool(GuardedExperts(inner=SilentExperts())))


@given(st.lists(st.sampled_from([FINE, DEAD, "raise"]), min_size=2, max_size=2))
def test_in_an_environment_accepted_counts_the_replies_that_were_read(outcomes: list[Any]) -> None:
    async def as_told(queries: Sequence[Query]) -> Sequence[ExpertReply]:
        if "raise" in outcomes:
            raise RuntimeError("as told")
        return outcomes

    env = EAPOMathEnv(problems=[PROBLEM], experts=Custom(as_told))
    env.reset(seed=0)
    *_, info = env.step(CONSULT)
    assert info["queries"] == 2
    assert info["accepted"] == (0 if "raise" in outcomes else outcomes.count(FINE))
    env.close()


def test_experts_that_hang_cost_an_environment_their_replies() -> None:
    arguments: dict[str, Any] = {
        "problems": [PROBLEM],
        "experts": Custom(sleeps),
        "expert_timeout_s": 0.1,
    }
    env = EAPOMathEnv(**arguments)
    env.reset(seed=0)
    observation, _, terminated, _, info = env.step(CONSULT)
    assert (terminated, info["accepted"]) == (False, 0)
    assert "No expert" in observation
    env.reset(seed=0)
    assert asyncio.run(env.step_async(CONSULT))[0] == observation
    env.close()
    many = EAPOMathVectorEnv(2, **arguments)
    many.reset(seed=0)
    observations, *_, infos = many.step([CONSULT, CONSULT])
    assert observations == (observation, observation)
    assert infos["accepted"].tolist() == [0, 0]
    many.close()
    with pytest.raises(UserError, match="expert_timeout_s must be positive, not 0"):
        EAPOMathEnv(expert_timeout_s=0)


def test_a_pool_that_is_empty_as_a_container_is_asked_all_the_same() -> None:
    class Caching:
        def __len__(self) -> int:
            return 0

        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            return [FINE] * len(queries)

    env = EAPOMathEnv(experts=Caching())
    env.reset(seed=0)
    assert env.step(CONSULT)[-1]["accepted"] == 2
    env.close()
