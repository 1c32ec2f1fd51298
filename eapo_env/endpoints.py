"""Connections to OpenAI-compatible servers, with a limit on calls, time-outs and a circuit breaker.

A `Connection` holds the client of one endpoint, the limit on live calls, its measured latency and
the state of the breaker. It belongs to the running event loop: opened at the first use, shared by
everything in the loop that names the same endpoint, and closed when the loop shuts down. A `Queue`
shares calls out among the connections to several endpoints of one model.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from json import JSONDecodeError
from typing import TYPE_CHECKING, Literal, get_args
from urllib.parse import urlsplit

from eapo_env.balancing import Load, choose, updated_latency
from eapo_env.breaker import Breaker, Circuit, Closed
from eapo_env.validation import UserError, at_least, positive

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LOG = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 5.0
_MOST_LIVE_CALLS = 1000  # the connections that the client's own pool opens at most
_MAX_REASON_CHARS = 300
_CHECK_TIMEOUT_S = 10.0
_NO_LIST = (404, 405, 501)
_REFUSALS = (400, 422, 429)
_MAX_SHOWN = 5
_MOST_HEDGED = 0.5
_RECENT = 200  # latencies of a model's calls
_LOOK_AGAIN_S = 1.0  # how soon a call that waits for a slot notices that a circuit has cooled down


Thinking = Literal["maybe", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible server and the expert models it serves.

    Args:
        base_url: up to and including `/v1`.
        models: the names under which the server serves the experts.
        api_key_env: the environment variable that holds the key, read when the first connection is
            opened and stored nowhere else; None for a server without a key.
        max_live_calls: the most concurrent calls in one event loop, at most 1000.
        call_timeout_s: timeout of one call once it is sent, retries included.
        max_retries: how often the client repeats a call that was refused with 408, 409, 429 or 5xx
            or lost its connection; it waits as Retry-After says, else 0.5 s, doubled each time.
        breaker: when calls to a dead server stop, and when it is tried again.
        thinking: "maybe" takes a reply that the token limit cut for unfinished reasoning, unless
            the reply or the server tells reasoning apart; "none" is for models that never reason,
            whose cut replies are relayed with a mark.
        hedged_share: a call that takes longer than all but this share of the latest 200 to the
            model is sent to another of its endpoints as well, once one has a slot to spare. The
            first answer counts, the other call is cancelled. In [0, 0.5]; 0 never does.

    Raises:
        UserError: a value out of its range.
    """

    base_url: str
    models: Sequence[str]
    api_key_env: str | None = None
    max_live_calls: int = 64
    call_timeout_s: float = 120.0
    max_retries: int = 2
    breaker: Breaker = field(default_factory=Breaker)
    thinking: Thinking = "maybe"
    hedged_share: float = 0.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        if "@" in urlsplit(self.base_url).netloc:
            raise UserError("base_url must hold no user and password: name a variable, api_key_env")
        if isinstance(self.models, str) or not self.models:
            raise UserError(f"models must be a non-empty tuple of names, not {self.models!r}")
        object.__setattr__(self, "models", tuple(self.models))
        if not 1 <= self.max_live_calls <= _MOST_LIVE_CALLS:
            raise UserError(
                f"max_live_calls must be in [1, {_MOST_LIVE_CALLS}], not {self.max_live_calls}"
            )
        positive(self, "call_timeout_s")
        at_least(0, self, "max_retries")
        if self.thinking not in get_args(Thinking):
            raise UserError(f"thinking must be maybe or none, not {self.thinking!r}")
        if not 0 <= self.hedged_share <= _MOST_HEDGED:
            raise UserError(f"hedged_share must be in [0, {_MOST_HEDGED}], not {self.hedged_share}")

    def check_key(self) -> None:
        """Raise a `UserError` if the environment variable of the key is not set or empty."""
        if self.api_key_env is not None and not _api_key(self):
            raise UserError(f"the environment variable {self.api_key_env} holds no key")


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


class Connection:
    """The connection of an event loop to an endpoint; `open_connection` returns it."""

    def __init__(self, endpoint: Endpoint, client: AsyncOpenAI) -> None:
        self.endpoint = endpoint
        self.circuit: Circuit = Closed()
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

    def take_slot(self) -> None:
        """Count a call that will be sent at once; `free_slot` must follow."""
        self._in_flight += 1
        self.circuit = self.endpoint.breaker.sent(self.circuit)

    def free_slot(self) -> None:
        """Count a call as ended."""
        self._in_flight -= 1
        for event in self.freed:
            event.set()

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
        except asyncio.CancelledError:
            # A batch cancels its stragglers together, which is one sign of death and not many.
            if self._silent_since(sent_s):
                self._failed()
                self._heard_s = _now_s()
            self._took_longer_than(_now_s() - sent_s)
            raise
        except TimeoutError:
            self._took_longer_than(_now_s() - sent_s)
            # A slow reply among answered ones is no sign that the endpoint is dead.
            if self._silent_since(sent_s):
                self._failed()
            return Failure(f"no reply within {self.endpoint.call_timeout_s:g} s")
        except Exception as error:
            status = getattr(error, "status_code", None)
            if not _is_an_answer(error):
                self._failed()
                return Failure(self._reason(error), status, lost=True)
            self._answered()
            self._log_if_refused(error)
            return Failure(self._reason(error), status)
        self._answered()
        self._latency_s = updated_latency(self._latency_s, _now_s() - sent_s)
        return Payload(content)

    def _took_longer_than(self, seconds: float) -> None:
        """Let a call without an answer count for the latency as far as it shows a longer one."""
        if self._latency_s is None or seconds > self._latency_s:
            self._latency_s = updated_latency(self._latency_s, seconds)

    def _answered(self) -> None:
        self.circuit = self.endpoint.breaker.answered()
        self._heard_s = _now_s()

    def _failed(self) -> None:
        self.circuit = self.endpoint.breaker.failed(self.circuit, _now_s())

    def _log_if_refused(self, error: Exception) -> None:
        """Log a refused key, since every further call will be refused as well."""
        if getattr(error, "status_code", None) in (401, 403):
            _log_once(f"{self.endpoint.base_url} refuses the key: {self._reason(error)}")

    def _silent_since(self, sent_s: float) -> bool:
        return self._heard_s <= sent_s

    def _reason(self, error: Exception) -> str:
        # Error messages of servers can quote the key.
        text = f"{type(error).__name__}: {_said(error)}"
        if self.endpoint.api_key_env is not None:
            text = text.replace(self._client.api_key, "[key]")
        return text[:_MAX_REASON_CHARS]


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
    async def slot(self, connections: Sequence[Connection]) -> AsyncIterator[Connection | None]:
        """Take a slot at the endpoint that `choose` names, among those whose circuit admits a call.

        Yields None if no circuit does. The call must be sent at once.
        """
        connection = await self._taken(connections)
        with _freed_at_the_end(connection):
            yield connection

    @asynccontextmanager
    async def spare_slot(self, connections: Sequence[Connection]) -> AsyncIterator[Connection]:
        """Take a slot once one is free that no call waits for."""
        async with self._first_to_hedge:
            while self._num_waiting or not (connection := self._free(connections, 1)):
                await _a_slot_is_freed(connections)
        with _freed_at_the_end(connection):
            yield connection

    async def _taken(self, connections: Sequence[Connection]) -> Connection | None:
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

    def _free(self, connections: Sequence[Connection], num_waiting: int) -> Connection | None:
        admitting = [one for one in connections if one.admits]
        chosen = choose([one.load for one in admitting], num_waiting)
        if chosen is None:
            return None
        admitting[chosen].take_slot()
        return admitting[chosen]


@contextmanager
def _freed_at_the_end(connection: Connection | None) -> Iterator[None]:
    try:
        yield
    finally:
        if connection is not None:
            connection.free_slot()


async def _a_slot_is_freed(connections: Sequence[Connection]) -> None:
    freed = asyncio.Event()
    for connection in connections:
        connection.freed.add(freed)
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_AGAIN_S):
                await freed.wait()
    finally:
        for connection in connections:
            connection.freed.discard(freed)


def _said(error: Exception) -> str:
    """Return what an error says: the server's message if there is one, else the error's cause.

    The text of openai's own errors has more or less of that, depending on its version.
    """
    match getattr(error, "status_code", None), getattr(error, "body", None):
        case int(status), {"message": str(message)}:
            return f"Error code: {status} - {message}"
    return str(error.__cause__ or "") or str(error)


@cache
def _log_once(text: str) -> None:
    """Log why a whole run does without an expert; once, not at every query."""
    _LOG.warning(text)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_an_answer(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    return isinstance(error, ValueError) if status is None else int(status) < 500


_Lifetime = AsyncGenerator[Connection, None]
_connections: dict[asyncio.AbstractEventLoop, dict[Endpoint, tuple[Connection, _Lifetime]]] = {}


async def open_connection(endpoint: Endpoint) -> Connection | None:
    """Return the running loop's connection to an endpoint; None while the key is not set."""
    connections = _connections_of_this_loop()
    if endpoint not in connections:
        api_key = _api_key(endpoint)
        if not api_key:
            _log_once(
                f"{endpoint.base_url} is never asked: the variable {endpoint.api_key_env}"
                " holds no key"
            )
            return None
        # Nothing suspends up to the generator's yield, so no two callers can both get here.
        lifetime = _lifetime(endpoint, api_key)
        connections[endpoint] = await anext(lifetime), lifetime
    return connections[endpoint][0]


async def unreachable(endpoint: Endpoint) -> str:
    """Return why an endpoint cannot be asked; "" if it can.

    It is asked for its list of models or, where it has none, as some gateways, for a token of each.
    """
    if not (api_key := _api_key(endpoint)):
        return f"the environment variable {endpoint.api_key_env} holds no key"
    client = _client(endpoint, api_key, timeout_s=_CHECK_TIMEOUT_S)
    try:
        served = await _served(client)
        if not served:
            for model in dict.fromkeys(endpoint.models):
                await _say_something(client, model)
            return ""
    except Exception as error:
        return str(error.__cause__ or error).replace(api_key, "[key]")[:_MAX_REASON_CHARS]
    finally:
        await client.close()
    return _unserved(endpoint, served)


def _unserved(endpoint: Endpoint, served: Sequence[str]) -> str:
    """Return which models of an endpoint are not among those served; "" if there is no list."""
    missing = [model for model in endpoint.models if model not in served] if served else []
    return f"serves {', '.join(served[:_MAX_SHOWN])}, not {', '.join(missing)}" if missing else ""


async def endpoint_at(url: str) -> Endpoint:
    """Return the endpoint of all models that a server without a key lists.

    Args:
        url: with or without `/v1` at its end.

    Raises:
        UserError: it does not answer, or lists no model.
    """
    base_url = url.rstrip("/")
    base_url += "" if base_url.endswith("/v1") else "/v1"
    endpoint = Endpoint(base_url=base_url, models=("any",))
    client = _client(endpoint, _api_key(endpoint), timeout_s=_CHECK_TIMEOUT_S)
    try:
        served = await _served(client)
    except Exception as error:
        raise UserError(f"{base_url}: {error.__cause__ or error}") from None
    finally:
        await client.close()
    if not served:
        raise UserError(f"{base_url} lists no models: name them in experts.endpoints")
    return replace(endpoint, models=served)


async def _served(client: AsyncOpenAI) -> list[str]:
    """Return the names of the models that a server lists; none if it has no list."""
    try:
        return [model.id for model in (await client.models.list()).data]
    except JSONDecodeError:
        return []
    except Exception as error:
        if getattr(error, "status_code", None) in _NO_LIST:
            return []
        raise


async def _say_something(client: AsyncOpenAI, model: str) -> None:
    """Ask a model for a token; a refusal of the request is an answer, too."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    try:
        await client.post("/chat/completions", body=body, cast_to=object)
    except JSONDecodeError:
        return
    except Exception as error:
        if getattr(error, "status_code", None) not in _REFUSALS:
            raise


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
    client = _client(endpoint, api_key, timeout_s=endpoint.call_timeout_s)
    asking = asyncio.create_task(_warn_of_unserved(endpoint, client))
    try:
        yield Connection(endpoint, client)
    finally:
        asking.cancel()
        await asyncio.wait([asking])
        await client.close()


async def _warn_of_unserved(endpoint: Endpoint, client: AsyncOpenAI) -> None:
    """Log the models that a server does not list: some servers answer with another in its place."""
    once = client.with_options(timeout=_CHECK_TIMEOUT_S, max_retries=0)
    try:
        served = await _served(once)
    except Exception:
        return  # the calls will say what is wrong
    if missing := _unserved(endpoint, served):
        _log_once(f"{endpoint.base_url} {missing}: what it answers may be another model's")


def _client(endpoint: Endpoint, api_key: str, *, timeout_s: float) -> AsyncOpenAI:
    from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout

    timeout = Timeout(timeout_s, connect=_CONNECT_TIMEOUT_S)
    return AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=api_key,
        timeout=timeout,
        max_retries=endpoint.max_retries,
        http_client=DefaultAioHttpClient(timeout=timeout),
    )


def _api_key(endpoint: Endpoint) -> str:
    return "none" if endpoint.api_key_env is None else os.environ.get(endpoint.api_key_env, "")
