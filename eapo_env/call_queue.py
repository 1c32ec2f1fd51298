"""The calls that wait for a slot at one of several endpoints of a model.

`balancing.py` says which endpoint a call goes to; here it waits until that one is free.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

from eapo_env.balancing import Load, choose

_RECENT = 200  # latencies of a model's calls


class Counter(Protocol):
    """What a queue needs of an endpoint's connection."""

    @property
    def freed(self) -> set[asyncio.Event]:
        """What to set when a call ends."""

    @property
    def load(self) -> Load:
        """Its calls in flight, limit and measured latency now."""

    @property
    def admits(self) -> bool:
        """Whether its circuit lets a call through now."""

    @property
    def look_again_s(self) -> float:
        """How soon a waiting call should look again for what no event tells."""

    def take_slot(self) -> bool:
        """Count a call that will be sent at once, and `free_slot` follow; False if none is free."""

    def free_slot(self) -> None:
        """Count a call as ended."""


C = TypeVar("C", bound=Counter)


class Queue:
    """The calls that wait for a slot at one of several endpoints, served in order of arrival.

    It belongs to an event loop. Endpoints may be in several queues.
    """

    def __init__(self) -> None:
        self.recent_s: deque[float] = deque(maxlen=_RECENT)
        """How long the latest calls took, from when the first endpoint was asked (s)."""
        self._first_in_line = asyncio.Lock()
        self._first_to_hedge = asyncio.Lock()
        self._num_waiting = 0

    @asynccontextmanager
    async def slot(self, connections: Sequence[C]) -> AsyncIterator[C | None]:
        """Take a slot at the endpoint that `choose` names, among those whose circuit admits a call.

        Yields None if no circuit does. The call must be sent at once.
        """
        connection = await self._taken(connections)
        with _freed_at_the_end(connection):
            yield connection

    @asynccontextmanager
    async def spare_slot(self, connections: Sequence[C]) -> AsyncIterator[C]:
        """Take a slot once one is free that no call waits for."""
        async with self._first_to_hedge:
            while self._num_waiting or not (connection := self._free(connections, 1)):
                await _a_slot_is_freed(connections)
        with _freed_at_the_end(connection):
            yield connection

    async def _taken(self, connections: Sequence[C]) -> C | None:
        self._num_waiting += 1
        try:
            async with self._first_in_line:
                while any(one.admits for one in connections):
                    if connection := self._free(connections, self._num_waiting):
                        return connection
                    await _a_slot_is_freed(connections)
                return None
        finally:
            self._num_waiting -= 1

    def _free(self, connections: Sequence[C], num_waiting: int) -> C | None:
        admitting = [one for one in connections if one.admits]
        while (chosen := choose([one.load for one in admitting], num_waiting)) is not None:
            connection = admitting.pop(chosen)
            if connection.take_slot():
                return connection
        return None


@contextmanager
def _freed_at_the_end(connection: Counter | None) -> Iterator[None]:
    try:
        yield
    finally:
        if connection is not None:
            connection.free_slot()


async def _a_slot_is_freed(connections: Sequence[Counter]) -> None:
    freed = asyncio.Event()
    for connection in connections:
        connection.freed.add(freed)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(min(one.look_again_s for one in connections)):
                await freed.wait()
    finally:
        for connection in connections:
            connection.freed.discard(freed)
