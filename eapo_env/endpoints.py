"""An OpenAI-compatible server as experts use it: its address, its limits and its circuit.

A `Line` is what stands between this process and one endpoint: a client, the limit on live calls,
the state of the breaker. Lines belong to the running event loop. They are opened at the first use,
shared by everything in the loop that names the same endpoint, and closed when the loop shuts down.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from eapo_env.breaker import Breaker, Circuit, Closed
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI

_LOG = logging.getLogger(__name__)
_CONNECT_TIMEOUT_S = 5.0
_MOST_LIVE_CALLS = 1000  # the connections that the client's own pool opens at most
_MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """An OpenAI-compatible server and the expert models it serves.

    Args:
        base_url: up to and including `/v1`.
        models: the names under which the server serves the experts.
        api_key_env: the environment variable that holds the key, read when the first connection is
            opened and stored nowhere else; None for a server that wants no key.
        max_live_calls: the most calls under way at a time in one event loop, at most 1000.
        call_timeout_s: how long one call may take once it is sent, retries included.
        max_retries: how often the client repeats a call that was refused with 408, 409, 429 or 5xx
            or lost its connection; it waits as Retry-After says, else 0.5 s, doubled each time.
        breaker: when calls to a dead server stop, and when it is tried again.

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

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        if isinstance(self.models, str) or not self.models:
            raise UserError(f"models must be a non-empty tuple of names, not {self.models!r}")
        object.__setattr__(self, "models", tuple(self.models))
        if not 1 <= self.max_live_calls <= _MOST_LIVE_CALLS:
            raise UserError(
                f"max_live_calls must be in [1, {_MOST_LIVE_CALLS}], not {self.max_live_calls}"
            )
        if not self.call_timeout_s > 0:
            raise UserError(f"call_timeout_s must be positive, not {self.call_timeout_s}")
        if self.max_retries < 0:
            raise UserError(f"max_retries must be at least 0, not {self.max_retries}")

    def check_key(self) -> None:
        """Raise a `UserError` if a key is wanted and its environment variable holds none."""
        if self.api_key_env is not None and not _api_key(self):
            raise UserError(f"the environment variable {self.api_key_env} holds no key")


@dataclass(frozen=True, slots=True)
class Payload:
    """What an endpoint answered: decoded JSON of any shape, or a text that is none."""

    content: object


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an endpoint did not answer a call that was sent."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The call was not sent, because the circuit is open."""


Outcome = Payload | Failure | Refused


class Line:
    """The way to one endpoint from one event loop; `open_line` returns the loop's."""

    def __init__(self, endpoint: Endpoint, client: AsyncOpenAI) -> None:
        self.endpoint = endpoint
        self.circuit: Circuit = Closed()
        self._client = client
        self._slots = asyncio.Semaphore(endpoint.max_live_calls)
        self._heard_s = float("-inf")

    async def call(self, body: Mapping[str, object]) -> Outcome:
        """Return what the endpoint answers to a chat completion request; never raises."""
        if not self._admits():
            return Refused()
        async with self._slots:
            # Those that waited in the queue while the endpoint died are refused here.
            if not self._admits():
                return Refused()
            self.circuit = self.endpoint.breaker.sent(self.circuit)
            return await self._send(body)

    async def _send(self, body: Mapping[str, object]) -> Payload | Failure:
        sent_s = _now_s()
        try:
            async with asyncio.timeout(self.endpoint.call_timeout_s):
                content = await self._client.post("/chat/completions", body=body, cast_to=object)
        except asyncio.CancelledError:
            # A batch cancels its stragglers together, which is one sign of death and not many.
            if self._silent_since(sent_s):
                self._failed()
                self._heard_s = _now_s()
            raise
        except TimeoutError:
            # A slow reply among answered ones is no sign that the endpoint is dead.
            if self._silent_since(sent_s):
                self._failed()
            return Failure(f"no reply within {self.endpoint.call_timeout_s:g} s")
        except Exception as error:
            if _is_an_answer(error):
                self._answered()
                self._say_if_unwelcome(error)
            else:
                self._failed()
            return Failure(self._reason(error))
        self._answered()
        return Payload(content)

    def _admits(self) -> bool:
        return self.endpoint.breaker.admits(self.circuit, _now_s())

    def _answered(self) -> None:
        self.circuit = self.endpoint.breaker.answered()
        self._heard_s = _now_s()

    def _failed(self) -> None:
        self.circuit = self.endpoint.breaker.failed(self.circuit, _now_s())

    def _say_if_unwelcome(self, error: Exception) -> None:
        """Log a refused key: every further call will be refused as well."""
        if getattr(error, "status_code", None) in (401, 403):
            _say_once(f"{self.endpoint.base_url} does not let us in: {self._reason(error)}")

    def _silent_since(self, sent_s: float) -> bool:
        return self._heard_s <= sent_s

    def _reason(self, error: Exception) -> str:
        # Servers quote the key they were given.
        told = f"{type(error).__name__}: {error}"
        if self.endpoint.api_key_env is not None:
            told = told.replace(self._client.api_key, "[key]")
        return told[:_MAX_REASON_CHARS]


@cache
def _say_once(text: str) -> None:
    """Log what makes a whole run go without an expert; once, however many queries meet it."""
    _LOG.warning(text)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _is_an_answer(error: Exception) -> bool:
    status = getattr(error, "status_code", None)
    return isinstance(error, ValueError) if status is None else int(status) < 500


_Lifetime = AsyncGenerator[Line, None]
_lines: dict[asyncio.AbstractEventLoop, dict[Endpoint, tuple[Line, _Lifetime]]] = {}


async def open_line(endpoint: Endpoint) -> Line | None:
    """Return the running loop's line to an endpoint; None while the key's variable is not set."""
    lines = _lines_of_this_loop()
    if endpoint not in lines:
        api_key = _api_key(endpoint)
        if not api_key:
            _say_once(
                f"{endpoint.base_url} is never asked: the variable {endpoint.api_key_env}"
                " holds no key"
            )
            return None
        # Nothing suspends up to the generator's yield, so no two callers can both get here.
        lifetime = _lifetime(endpoint, api_key)
        lines[endpoint] = await anext(lifetime), lifetime
    return lines[endpoint][0]


async def close_line(endpoint: Endpoint) -> None:
    """Close the running loop's line to an endpoint, if it is open."""
    if opened := _lines_of_this_loop().pop(endpoint, None):
        await opened[1].aclose()


def _lines_of_this_loop() -> dict[Endpoint, tuple[Line, _Lifetime]]:
    loop = asyncio.get_running_loop()
    if loop not in _lines:
        for closed in [other for other in tuple(_lines) if other.is_closed()]:
            _lines.pop(closed, None)
    return _lines.setdefault(loop, {})


async def _lifetime(endpoint: Endpoint, api_key: str) -> _Lifetime:
    # As an asynchronous generator, because a loop that shuts down closes those itself: the
    # connections end with the loop, without a call that a user could forget.
    from openai import AsyncOpenAI, DefaultAioHttpClient, Timeout

    timeout = Timeout(endpoint.call_timeout_s, connect=_CONNECT_TIMEOUT_S)
    client = AsyncOpenAI(
        base_url=endpoint.base_url,
        api_key=api_key,
        timeout=timeout,
        max_retries=endpoint.max_retries,
        http_client=DefaultAioHttpClient(timeout=timeout),
    )
    try:
        yield Line(endpoint, client)
    finally:
        await client.close()


def _api_key(endpoint: Endpoint) -> str:
    return "none" if endpoint.api_key_env is None else os.environ.get(endpoint.api_key_env, "")
