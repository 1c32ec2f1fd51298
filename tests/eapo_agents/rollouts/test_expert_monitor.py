"""The monitor of experts: numbers worked by hand, on a clock that the test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from eapo_agents.rollouts.expert_monitor import ExpertMonitor
from eapo_env.types import ExpertReply, Query, Reply, Unavailable


@dataclass
class Moody:
    """Takes as long as it is told and fails as often."""

    now: float = 1000.0
    plan: list[tuple[float, Sequence[ExpertReply]]] = field(default_factory=list)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        seconds, replies = self.plan.pop(0)
        self.now += seconds
        return replies


DEAD = Unavailable("connection refused", "bob")
FINE = Reply("alice", "7")


def ask(monitor: ExpertMonitor, pool: Moody, seconds: float, *replies: ExpertReply) -> None:
    pool.plan.append((seconds, replies))
    queries = [Query(text="?") for _ in replies]
    assert asyncio.run(monitor.ask(pool, queries)) == replies


def test_latencies_and_failures_are_those_since_the_last_look() -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    assert monitor.metrics() == {}
    for seconds in (1.0, 2.0, 3.0):
        ask(monitor, pool, seconds, FINE, FINE, DEAD)
    assert monitor.metrics() == pytest.approx(
        {"seconds/expert_p50": 2.0, "seconds/expert_p95": 2.9, "expert_failure_rate": 1 / 3}
    )
    ask(monitor, pool, 0.5, FINE)
    assert monitor.metrics() == pytest.approx(
        {"seconds/expert_p50": 0.5, "seconds/expert_p95": 0.5, "expert_failure_rate": 0.0}
    )
    assert monitor.metrics() == {}


def test_a_dead_pool_is_reported_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    for _ in range(150):  # two and a half minutes, a call a second
        ask(monitor, pool, 1.0, DEAD, DEAD)
    assert len(caplog.records) == 3
    assert "8 expert replies did not come" in caplog.messages[0]
    assert "120 expert replies did not come" in caplog.messages[1]
    assert all("bob: connection refused" in message for message in caplog.messages)
    for _ in range(150):
        ask(monitor, pool, 1.0, FINE)
    assert len(caplog.records) == 3


def test_a_reply_that_fails_now_and_then_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    pool = Moody()
    monitor = ExpertMonitor(clock=lambda: pool.now)
    for _ in range(50):
        ask(monitor, pool, 9.0, DEAD, FINE)
    assert caplog.records == []
    assert monitor.metrics()["expert_failure_rate"] == 0.5
