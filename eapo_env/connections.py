"""[edge] Connections to endpoints, with a limit on calls, time-outs and a circuit breaker.

A `Connection` holds the client of one endpoint, the limit on live calls, its measured latency and
the state of the breaker. It belongs to the running event loop: opened at the first use, shared by
everything in the loop that names the same endpoint, and closed when the loop shuts down. While its
server is not reached, it asks for the server's health.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eapo_env.api_client import MAX_REASON_CHARS, is_an_answer, log_once, open_client, told
from eapo_env.balancing import Load, updated_latency
from eapo_env.breaker import Circuit, Closed, Open
from eapo_env.call_queue import Queue
from eapo_env.endpoints import Endpoint
from eapo_env.reachability import is_healthy, warn_of_unserved
from eapo_env.shared_slots import LOOK_AGAIN_S, SharedSlots

if TYPE_CHECKING:
    from openai import AsyncOpenAI


_HEALTH_EVERY_S = 1.0
_LOOK_AGAIN_S = 1.0
_NOT_REACHED = (None, 502, 503, 504)
"""The HTTP statuses, or none at all, of a server that is not there."""


@dataclass(frozen=True, slots=True)
class Payload:
    """An endpoint's answer: decoded JSON of any shape, or a text that is not JSON."""

    content: object


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that was sent and not answered: the reason, and the HTTP status if there is one.

    It is lost if the endpoint itself failed (it was not reached, hung up, or answered 5xx):
    another endpoint of the model may answer.
    """

    reason: str
    status: int | None = None
    lost: bool = False


@dataclass(frozen=True, slots=True)
class CircuitOpen:
    """A call that was not sent, because the circuit is open."""


CallResult = Payload | Failure | CircuitOpen


LOST_RACE = "another endpoint answered first"
"""The message of a cancellation that says nothing against the endpoint."""


class Connection:
    """The connection of an event loop to an endpoint; `open_connection` returns it."""

    def __init__(self, endpoint: Endpoint, client: AsyncOpenAI, shared: SharedSlots | None) -> None:
        self.endpoint = endpoint
        self.circuit: Circuit = Closed()
        self.last_failure = "no reply"
        """Why the endpoint did not answer the last call that it failed."""
        self.system_role: dict[str, bool] = {}
        """Whether a model takes a system role, once that is known."""
        self.queues: dict[str, Queue] = {}
        """The calls for a model that wait for a slot here or at its other endpoints."""
        self.freed: set[asyncio.Event] = set()
        """What to set when a call ends."""
        self._client = client
        self._in_flight = 0
        self._latency_s: float | None = None
        self._heard_s = float("-inf")
        self._watching: asyncio.Task[None] | None = None
        self._shared = shared

    @property
    def load(self) -> Load:
        """Its calls in flight, limit and measured latency now."""
        return Load(
            in_flight=self._in_flight,
            limit=self.endpoint.max_live_calls,
            latency_s=self._latency_s,
        )

    @property
    def admits(self) -> bool:
        """Whether its circuit lets a call through now."""
        return self.endpoint.breaker.admits(self.circuit, _now_s())

    @property
    def look_again_s(self) -> float:
        """How soon a waiting call looks again: other processes free slots, a circuit cools down."""
        return _LOOK_AGAIN_S if self._shared is None else LOOK_AGAIN_S

    def take_slot(self) -> bool:
        """Count a call that will be sent at once, and `free_slot` follow; False if none is free."""
        if self._shared and not self._shared.take():
            return False
        self._in_flight += 1
        self.circuit = self.endpoint.breaker.sent(self.circuit)
        return True

    def free_slot(self) -> None:
        """Count a call as ended."""
        self._in_flight -= 1
        if not self._in_flight:
            self.circuit = self.endpoint.breaker.gave_up(self.circuit, _now_s())
        if self._shared:
            self._shared.free()
        self._wake()

    def _wake(self) -> None:
        for event in self.freed:
            event.set()

    async def close(self) -> None:
        """End what it does, and its client."""
        if self._watching:
            self._watching.cancel()
            await asyncio.wait([self._watching])
        await self._client.close()

    async def call(self, body: Mapping[str, object]) -> CallResult:
        """Return the endpoint's answer to a chat completion request, or why there is none.

        Never raises.
        """
        async with self.queue(str(body.get("model"))).slot([self]) as connection:
            return CircuitOpen() if connection is None else await self.send(body)

    def queue(self, model: str) -> Queue:
        """Return the queue of calls for a model of which this is the first endpoint."""
        return self.queues.setdefault(model, Queue())

    async def send(self, body: Mapping[str, object]) -> Payload | Failure:
        """Return what `call` returns, for a call that has a slot."""
        sent_s = _now_s()
        try:
            async with asyncio.timeout(self.endpoint.call_timeout_s):
                content = await self._client.post("/chat/completions", body=body, cast_to=object)
        except asyncio.CancelledError as error:
            # A batch cancels its stragglers together, which is one sign of death and not many.
            lost_race = LOST_RACE in error.args
            if self._silent_since(sent_s) and not lost_race:
                self._failed("no reply before the deadline")
                self._heard_s = _now_s()
            if self._latency_s is not None or not lost_race:  # as a first measurement, too short
                self._took_longer_than(_now_s() - sent_s)
            raise
        except TimeoutError:
            self._took_longer_than(_now_s() - sent_s)
            reason = f"no reply within {self.endpoint.call_timeout_s:g} s"
            # A slow reply among answered ones is no sign that the endpoint is dead.
            if self._silent_since(sent_s):
                self._failed(reason)
            return Failure(reason)
        except Exception as error:
            status = getattr(error, "status_code", None)
            if not is_an_answer(error):
                self._failed(self._reason(error))
                if status in _NOT_REACHED:
                    self._watch()
                return Failure(self.last_failure, status, lost=True)
            self._answered()
            self._log_if_refused(error)
            return Failure(self._reason(error), status)
        self._answered()
        self._latency_s = updated_latency(self._latency_s, _now_s() - sent_s)
        return Payload(content)

    def _watch(self) -> None:
        """Look after a server whose circuit has opened, unless that is being done."""
        watched = self._watching and not self._watching.done()
        if isinstance(self.circuit, Open) and not watched:
            self._watching = asyncio.create_task(self._until_it_is_back())

    async def _until_it_is_back(self) -> None:
        """Ask for the server's health again and again; close the circuit once it answers."""
        while not isinstance(self.circuit, Closed):
            await asyncio.sleep(_HEALTH_EVERY_S)
            if await is_healthy(self.endpoint, self._client):
                self.circuit = self.endpoint.breaker.healthy()
                self._wake()

    def _took_longer_than(self, seconds: float) -> None:
        """Let a call without an answer count for the latency as far as it shows a longer one."""
        if self._latency_s is None or seconds > self._latency_s:
            self._latency_s = updated_latency(self._latency_s, seconds)

    def _answered(self) -> None:
        self.circuit = self.endpoint.breaker.answered()
        self._heard_s = _now_s()

    def _failed(self, reason: str) -> None:
        self.last_failure = reason
        self.circuit = self.endpoint.breaker.failed(self.circuit, _now_s())

    def _log_if_refused(self, error: Exception) -> None:
        """Log a refused key, since every further call will be refused as well."""
        if getattr(error, "status_code", None) in (401, 403):
            log_once(f"{self.endpoint.base_url} refuses the key: {self._reason(error)}")

    def _silent_since(self, sent_s: float) -> bool:
        return self._heard_s <= sent_s

    def _reason(self, error: Exception) -> str:
        # Error messages of servers can quote the key.
        text = told(error)
        if self.endpoint.api_key_env is not None:
            text = text.replace(self._client.api_key, "[key]")
        return text[:MAX_REASON_CHARS]


def _shared_slots(endpoint: Endpoint) -> SharedSlots | None:
    if endpoint.shared_slots is None:
        return None
    return SharedSlots(endpoint.shared_slots, endpoint.base_url, endpoint.max_live_calls)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


_Lifetime = AsyncGenerator[Connection, None]
_connections: dict[asyncio.AbstractEventLoop, dict[Endpoint, tuple[Connection, _Lifetime]]] = {}


async def open_connection(endpoint: Endpoint) -> Connection | None:
    """Return the running loop's connection to an endpoint; None while the key is not set.

    Raises:
        UserError: the folder of its `shared_slots` cannot be made.
    """
    connections = _connections_of_this_loop()
    if endpoint not in connections:
        api_key = endpoint.api_key
        if not api_key:
            log_once(
                f"{endpoint.base_url} is never asked: the variable {endpoint.api_key_env}"
                " holds no key"
            )
            return None
        # Nothing suspends up to the generator's yield, so no two callers can both get here.
        lifetime = _lifetime(endpoint, api_key)
        connections[endpoint] = await anext(lifetime), lifetime
    return connections[endpoint][0]


async def close_connection(endpoint: Endpoint) -> None:
    """Close the running loop's connection to an endpoint, if it is open."""
    if opened := _connections_of_this_loop().pop(endpoint, None):
        await opened[1].aclose()


def _connections_of_this_loop() -> dict[Endpoint, tuple[Connection, _Lifetime]]:
    loop = asyncio.get_running_loop()
    if loop not in _connections:
        for closed in [other for other in tuple(_connections) if other.is_closed()]:
            _connections.pop(closed, None)
    return _connections.setdefault(loop, {})


async def _lifetime(endpoint: Endpoint, api_key: str) -> _Lifetime:
    # An asynchronous generator, because a loop that shuts down closes those itself: the connection
    # ends with the loop, without a call that a user could forget.
    client = open_client(endpoint, api_key, timeout_s=endpoint.call_timeout_s)
    connection = Connection(endpoint, client, _shared_slots(endpoint))
    asking = asyncio.create_task(warn_of_unserved(endpoint, client))
    try:
        yield connection
    finally:
        asking.cancel()
        await asyncio.wait([asking])
        await connection.close()
