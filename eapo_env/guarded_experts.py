"""Asking any expert pool within a deadline: its failures are replies, counted and said.

A custom pool can hang, block, raise, or return too few replies. `GuardedExperts` stands
between it and an episode: each query gets a reply in time, `Unavailable` if need be.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import ClassVar, TypeGuard

import numpy as np

from eapo_env.acceptance import REFUSED
from eapo_env.event_loop import submit
from eapo_env.experts import ExpertPool, described, is_cooperative
from eapo_env.spending import Spent
from eapo_env.types import ExpertReply, Query, Reply, Unavailable, Usage
from eapo_env.validation import UserError, at_least, positive

_LOG = logging.getLogger(__name__)
_RECENT = 8
_ALL = ""
"""The name of all experts together, and of none in a reply that names none."""
_LONGEST_REASON = 300


@dataclass(slots=True)
class ExpertMonitor:
    """Measures what is asked of experts, and warns, at most once a minute, when they fail.

    A single failed reply is normal: the warning comes when most of the last few have failed, or all
    of the first two and more, of all or of one expert, or when the pool itself did. An expert that
    has no answer (`NO_ANSWER`) has not failed.

    Args:
        clock: the time in seconds, from any origin.
        every_s: the shortest time between two warnings.
    """

    clock: Callable[[], float] = time.monotonic
    every_s: float = 60.0
    _latencies: list[float] = field(default_factory=list)
    _recent: dict[str, deque[bool]] = field(default_factory=dict)
    _waiting: dict[int, tuple[float, int]] = field(default_factory=dict)
    _num_asked: int = 0
    _num_replies: int = 0
    _num_failed: int = 0
    _num_hedged: int = 0
    _num_errors: int = 0
    _usages: list[Usage] = field(default_factory=list)
    _unreported: int = 0
    _warned_s: float = float("-inf")

    @property
    def waiting(self) -> tuple[int, float]:
        """How many replies are awaited now, and for how long the first of them (s)."""
        waits = list(self._waiting.values())
        if not waits:
            return 0, 0.0
        return sum(count for _, count in waits), self.clock() - min(start for start, _ in waits)

    @contextmanager
    def asking(self, num_queries: int) -> Iterator[Callable[[], float]]:
        """Measure the time in this context as that of one consultation; yield what tells it (s)."""
        number, start = self._num_asked, self.clock()
        self._num_asked += 1
        self._waiting[number] = start, num_queries
        try:
            yield lambda: self.clock() - start
        finally:
            del self._waiting[number]

    def heard(self, replies: Sequence[ExpertReply], latency_s: float) -> None:
        """Count the replies to a consultation but for those that the gate refused."""
        replies = [reply for reply in replies if reply != REFUSED]
        if not replies:
            return
        self._latencies.append(latency_s)
        failed = [reply for reply in replies if _has_failed(reply)]
        self._usages += [reply.usage for reply in replies if reply.usage]
        self._num_replies += len(replies)
        self._num_failed += len(failed)
        self._num_hedged += sum(reply.hedged for reply in replies)
        self._unreported += len(failed)
        for reply in replies:
            for expert in {_ALL, reply.expert}:
                recent = self._recent.setdefault(expert, deque(maxlen=_RECENT))
                recent.append(_has_failed(reply))
        failing = [one for one in failed if self._fails(one.expert) or self._fails(_ALL)]
        if failing:
            self._warn(failing[-1])

    def broke(self, replies: Sequence[Unavailable], latency_s: float) -> None:
        """Count a consultation in which the pool itself failed: it raised, hung, or miscounted."""
        self._num_errors += 1
        self.heard(replies, latency_s)
        if replies:
            self._warn(replies[-1])

    def metrics(self) -> dict[str, float]:
        """Return latencies of consultations (s), the failure rate and errors since the last call.

        With them the share of hedged queries, if there were any, and what the replies used
        (`_usage_metrics`). Empty when no expert was asked.
        """
        if not self._latencies:
            return {}
        p50, p95 = np.quantile(self._latencies, [0.5, 0.95])
        found = {
            "seconds/expert_p50": float(p50),
            "seconds/expert_p95": float(p95),
            "expert_failure_rate": self._num_failed / max(self._num_replies, 1),
            "expert_errors": float(self._num_errors),
        }
        if self._num_hedged:
            found["expert_hedge_rate"] = self._num_hedged / self._num_replies
        self._latencies, self._num_replies, self._num_failed, self._num_errors = [], 0, 0, 0
        found |= _usage_metrics(self._usages)
        self._num_hedged, self._usages = 0, []
        return found

    def _fails(self, expert: str) -> bool:
        """Return whether most of the latest replies of an expert have failed, or all so far."""
        recent = self._recent[expert]
        if len(recent) < _RECENT:
            return len(recent) > 1 and all(recent)
        return sum(recent) > _RECENT / 2

    def _warn(self, last: Unavailable) -> None:
        if self.clock() - self._warned_s < self.every_s:
            return
        _LOG.warning(
            "%d expert replies did not come; it goes on without them. The last: %s",
            self._unreported,
            f"{last.expert}: {last.reason}" if last.expert else last.reason,
        )
        self._warned_s, self._unreported = self.clock(), 0


def _has_failed(reply: ExpertReply) -> TypeGuard[Unavailable]:
    return isinstance(reply, Unavailable) and reply.is_failure


def _usage_metrics(usages: Sequence[Usage]) -> dict[str, float]:
    """Return the known tokens and costs in all, and the share of usages that are unknown.

    Without a cost if none is known, without a share if all are; empty where nobody counts.
    """
    if not usages:
        return {}
    found = Spent.of(usages).metrics()
    if all(usage.cost is None for usage in usages):
        del found["expert_cost"]
    unknown = [None in (usage.prompt_tokens, usage.completion_tokens) for usage in usages]
    if any(unknown):
        found["expert_unknown_usage_rate"] = sum(unknown) / len(usages)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardedExperts:
    """An expert pool that replies to every query in time, whatever the pool in it does.

    A pool that is late, raises, or returns anything but one reply per query makes these replies
    `Unavailable`. Only a `UserError` is passed on: the user can put it right. A pool that blocks
    its event loop blocks no other: it is asked on the background loop (`event_loop.py`), unless it
    is cooperative (`ExpertPool`). A reply whose latency the pool did not measure gets that of the
    consultation.

    Args:
        inner: the pool.
        timeout_s: timeout of a batch of queries; infinite for none.
        monitor: counts and measures.
        grace_s: how long after the timeout a pool that keeps it by itself may hand over the replies
            that came, and how long after that one that blocks is waited for.

    Raises:
        UserError: a timeout that is not positive, or a negative grace.
    """

    inner: ExpertPool
    timeout_s: float = 300.0
    monitor: ExpertMonitor = field(default_factory=ExpertMonitor)
    grace_s: float = 1.0
    cooperative: ClassVar[bool] = True

    def __post_init__(self) -> None:
        positive(self, "timeout_s")
        at_least(0, self, "grace_s")

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return one reply per query, in query order; seconds after the timeout at the latest."""
        with self.monitor.asking(len(queries)) as latency_s:
            if is_cooperative(self.inner):
                outcome = await self._outcome(queries)
            else:
                asked = submit(self._outcome(queries))
                try:
                    future = asyncio.wrap_future(asked.future)
                    outcome = await asyncio.wait_for(future, self._patience(2))
                except TimeoutError:
                    asked.abandon_loop()
                    outcome = self._late
            return self._replies(outcome, queries, latency_s())

    def ask_now(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return what `ask` returns, for a caller that is not asynchronous."""
        with self.monitor.asking(len(queries)) as latency_s:
            asked = submit(self._outcome(queries))
            try:
                outcome = asked.future.result(self._patience(2))
            except TimeoutError:
                asked.abandon_loop()
                outcome = self._late
            finally:
                asked.future.cancel()
            return self._replies(outcome, queries, latency_s())

    async def _outcome(self, queries: Sequence[Query]) -> Sequence[ExpertReply] | _Broke:
        """Return the pool's replies, or how it failed."""
        try:
            async with asyncio.timeout(self._patience(1)) as deadline:
                asked: object = self.inner.ask(queries)
                if not inspect.isawaitable(asked):
                    return _Broke(f"the pool's ask must be async def: it returned {asked!r:.80}")
                return _checked(await asked, queries)
        except UserError:
            raise
        except BaseException as error:
            # It met text that a model wrote: that must neither end a run nor be hidden.
            if _is_interruption(error):
                raise
            return self._late if deadline.expired() else _failure(error)

    def _replies(
        self, outcome: Sequence[ExpertReply] | _Broke, queries: Sequence[Query], latency_s: float
    ) -> Sequence[ExpertReply]:
        if not isinstance(outcome, _Broke):
            self.monitor.heard(outcome, latency_s)
            return [
                replace(one, latency_s=latency_s) if one.latency_s is None else one
                for one in outcome
            ]
        unavailable = [Unavailable(outcome.reason, latency_s=latency_s)] * len(queries)
        self.monitor.broke(unavailable, latency_s)
        return unavailable

    @property
    def _late(self) -> _Broke:
        return _Broke(f"no reply within {self.timeout_s:g} s")

    def _patience(self, graces: int) -> float | None:
        return None if math.isinf(self.timeout_s) else self.timeout_s + graces * self.grace_s


@dataclass(frozen=True, slots=True)
class _Broke:
    """A pool did not keep its promise to reply, with the reason."""

    reason: str


def _failure(error: BaseException) -> _Broke:
    return _Broke(f"the pool failed: {described(error)}"[:_LONGEST_REASON])


def _is_interruption(error: BaseException) -> bool:
    """Return whether an exception comes from the caller, not from the pool."""
    match error:
        case asyncio.CancelledError():
            task = asyncio.current_task()
            return task is None or task.cancelling() > 0
        case KeyboardInterrupt():  # Ctrl-C comes in the main thread only
            return threading.current_thread() is threading.main_thread()
        case _:
            return False


def _checked(replies: object, queries: Sequence[Query]) -> Sequence[ExpertReply] | _Broke:
    if not isinstance(replies, Sequence) or len(replies) != len(queries):
        shown = f"{len(replies)} replies" if isinstance(replies, Sequence) else f"{replies!r:.80}"
        return _Broke(f"the pool returned {shown} to {len(queries)} queries")
    for reply in replies:
        match reply:
            case Reply(str(), str(), latency, usage=None | Usage()) | Unavailable(
                str(), str(), latency, usage=None | Usage()
            ):
                if not _is_latency(latency):
                    return _Broke(
                        f"the pool returned {reply!r:.80}, which took latency_s={latency!r:.40}"
                    )
            case _:
                return _Broke(f"the pool returned {reply!r:.80}, no Reply or Unavailable of text")
    return replies


def _is_latency(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and 0 <= value < math.inf)
