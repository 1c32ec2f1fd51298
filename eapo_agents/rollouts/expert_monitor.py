"""[edge] Latency and failure rate of expert calls, with a warning at most once a minute.

A single failed reply is normal; the warning comes when most of the last few have failed.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from eapo_env.experts import ExpertPool
from eapo_env.types import ExpertReply, Query, Unavailable

_LOG = logging.getLogger(__name__)
_RECENT = 8


@dataclass(slots=True)
class ExpertMonitor:
    """Measures the calls from a rollout to its experts.

    Args:
        clock: the time in seconds, from any origin.
        every_s: the shortest time between two warnings.
    """

    clock: Callable[[], float] = time.monotonic
    every_s: float = 60.0
    _latencies: list[float] = field(default_factory=list)
    _recent: deque[bool] = field(default_factory=lambda: deque(maxlen=_RECENT))
    _num_replies: int = 0
    _num_failed: int = 0
    _unreported: int = 0
    _warned_s: float = float("-inf")

    async def ask(self, pool: ExpertPool, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the pool's replies."""
        start = self.clock()
        replies = await pool.ask(queries)
        self._latencies.append(self.clock() - start)
        failed = [reply for reply in replies if isinstance(reply, Unavailable)]
        self._num_replies += len(replies)
        self._num_failed += len(failed)
        self._unreported += len(failed)
        self._recent.extend(isinstance(reply, Unavailable) for reply in replies)
        if failed and len(self._recent) == _RECENT and sum(self._recent) > _RECENT / 2:
            self._warn(failed[-1])
        return replies

    def metrics(self) -> dict[str, float]:
        """Return latencies of consultations (s) and the failure rate since the last call.

        Empty when no expert was asked.
        """
        if not self._latencies:
            return {}
        p50, p95 = np.quantile(self._latencies, [0.5, 0.95])
        found = {
            "seconds/expert_p50": float(p50),
            "seconds/expert_p95": float(p95),
            "expert_failure_rate": self._num_failed / max(self._num_replies, 1),
        }
        self._latencies, self._num_replies, self._num_failed = [], 0, 0
        return found

    def _warn(self, last: Unavailable) -> None:
        if self.clock() - self._warned_s < self.every_s:
            return
        _LOG.warning(
            "%d expert replies did not come; it goes on without them. The last: %s",
            self._unreported,
            f"{last.expert}: {last.reason}" if last.expert else last.reason,
        )
        self._warned_s, self._unreported = self.clock(), 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitoredExperts:
    """An expert pool whose calls are measured by a monitor."""

    inner: ExpertPool
    monitor: ExpertMonitor = field(default_factory=ExpertMonitor)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the experts' replies."""
        return await self.monitor.ask(self.inner, queries)
