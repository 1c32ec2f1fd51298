"""[edge] How long experts take and how often they fail; says so, once a minute, while they do."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from eapo_env.experts import ExpertPool
from eapo_env.types import ExpertReply, Query, Unavailable

_LOG = logging.getLogger(__name__)


@dataclass(slots=True)
class ExpertWatch:
    """Notes what happens between a rollout and its experts.

    Args:
        clock: seconds, of which only differences count.
        every_s: the least time between two warnings.
    """

    clock: Callable[[], float] = time.monotonic
    every_s: float = 60.0
    _latencies: list[float] = field(default_factory=list)
    _num_replies: int = 0
    _num_failed: int = 0
    _unsaid: int = 0
    _said_s: float = float("-inf")

    async def ask(self, pool: ExpertPool, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the pool's replies."""
        start = self.clock()
        replies = await pool.ask(queries)
        self._latencies.append(self.clock() - start)
        failed = [reply for reply in replies if isinstance(reply, Unavailable)]
        self._num_replies += len(replies)
        self._num_failed += len(failed)
        if failed:
            self._warn(failed)
        return replies

    def metrics(self) -> dict[str, float]:
        """Return what happened since the last call: latencies (s) of consultations, failures.

        Nothing where nobody was asked.
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

    def _warn(self, failed: Sequence[Unavailable]) -> None:
        self._unsaid += len(failed)
        if self.clock() - self._said_s < self.every_s:
            return
        last = failed[-1]
        _LOG.warning(
            "%d expert replies did not come; training goes on without them. The last: %s",
            self._unsaid,
            f"{last.expert}: {last.reason}" if last.expert else last.reason,
        )
        self._said_s, self._unsaid = self.clock(), 0
