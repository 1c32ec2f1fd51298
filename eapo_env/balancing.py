"""Load balancing: which endpoint of a model the next call goes to, and when a second one is asked.

Latencies are means over recent calls, in seconds; None before the first answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_MEASURED = 20
"""So many latencies must be known before a call is hedged."""

_WEIGHT = 0.1  # of the last call in the mean, which so covers about the last ten


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The load of an endpoint: calls in flight, the most it takes, and the mean latency (s)."""

    in_flight: int
    limit: int
    latency_s: float | None = None


def choose(loads: Sequence[Load], num_waiting: int) -> int | None:
    """Return the index of the endpoint for the first of the waiting calls; None: wait for a slot.

    Of the endpoints with a free slot it is the one with the least (calls in flight + 1) x latency,
    the first of those that are equal. If it is slower than full ones that are expected to answer
    all waiting calls sooner than it would answer this one, the call waits for those. An endpoint
    without a measured latency is taken to be as fast as the fastest.
    """
    measured = [load.latency_s for load in loads if load.latency_s is not None]
    fastest_s = min(measured, default=1.0)
    latencies_s = [fastest_s if load.latency_s is None else load.latency_s for load in loads]
    free = [index for index, load in enumerate(loads) if load.in_flight < load.limit]
    if not free:
        return None
    best = min(free, key=lambda index: (loads[index].in_flight + 1) * latencies_s[index])
    faster = [
        (load.limit, latency_s)
        for load, latency_s in zip(loads, latencies_s, strict=True)
        if load.in_flight >= load.limit and latency_s < latencies_s[best]
    ]
    if not faster:
        return best
    calls_per_s = sum(limit / latency_s for limit, latency_s in faster)
    all_answered_s = max(latency_s for _, latency_s in faster) + num_waiting / calls_per_s
    return None if all_answered_s < latencies_s[best] else best


def updated_latency(mean_s: float | None, last_s: float) -> float:
    """Return the mean latency after one more call: an exponentially weighted mean."""
    return last_s if mean_s is None else mean_s + _WEIGHT * (last_s - mean_s)


def hedge_after(recent_s: Sequence[float], share: float) -> float | None:
    """Return after how long (s) a call is among the slowest share of the recent ones.

    None for a share of 0, and before enough latencies are known.
    """
    if not share or len(recent_s) < FEWEST_MEASURED:
        return None
    return sorted(recent_s)[-1 - math.floor(share * len(recent_s))]
