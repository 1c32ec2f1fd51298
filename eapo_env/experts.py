"""The `ExpertPool` protocol, and expert pools that answer in this process.

A pool takes a batch of queries and returns a reply to each, in the same order. It is a picklable
value that opens nothing before its first use. An expert that fails is an `Unavailable` reply, never
an exception. Pools behind a server are in `openai_experts.py`, recorded ones in `recordings.py`;
`guarded_experts.py` protects the caller from a pool that fails.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import math
import os
import re
import time
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable
from weakref import WeakKeyDictionary

import numpy as np

from eapo_env.types import NO_ANSWER, ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError, at_least, positive, probability, whole

_LAST_DIGIT = re.compile(r"[0-9](?=[^0-9]*\Z)")


@runtime_checkable
class ExpertPool(Protocol):
    """Experts that answer a batch of queries.

    `eapo_env.testing.check_expert_pool` tests an implementation.

    Rollouts and environments ask a pool within a deadline of their own (`GuardedExperts`), on
    another event loop than theirs, so that one that blocks stops nothing else. A pool can be asked
    without that detour, and without its protection, if it has a true attribute `cooperative`. This
    promises three things: it never blocks (no `time.sleep`, no synchronous request), it waits for
    no thread (no `asyncio.to_thread`), and it ends when it is cancelled.
    """

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return one reply per query, in query order.

        An expert that fails, is late or is unknown replies `Unavailable(reason)`; nothing is
        raised for it. May be called concurrently, and from several event loops.
        """
        ...


def is_cooperative(pool: ExpertPool) -> bool:
    """Return whether a pool promises what `ExpertPool` asks of a cooperative one."""
    return bool(getattr(pool, "cooperative", False))


Answer = str | None


@dataclass(frozen=True, slots=True)
class ScriptedExperts:
    """Experts whose replies a function computes, or an `async def` function asks for.

    A plain function is called once for each query, one after the other: it should be quick. One
    that waits, for a server or a database, is an `async def`, called for all queries at once.

    Args:
        answer: the reply to a query, or None for an unavailable expert. A module-level function,
            if the pool is to be pickled.
        names: the experts; slot i of a turn goes to expert i mod n.
        max_live_calls: the most concurrent calls of an `async def` in one event loop; None for no
            limit.
        timeout_s: timeout of one call of an `async def`, from its start.
        cache_size: how many replies are kept, the newest, for when an expert is asked the same
            text about the same problem again; a failure is never kept, a copy of the pool starts
            with none.

    An exception in `answer` makes that reply `Unavailable`, with the exception as its reason, and
    is shown as a RuntimeWarning; so is a value that is neither a string nor None.

    Raises:
        UserError: no function, no name, or a value out of its range.
    """

    answer: Callable[[Query], Answer | Awaitable[Answer]]
    names: tuple[str, ...] = ("scripted",)
    max_live_calls: int | None = None
    timeout_s: float = math.inf
    cache_size: int = 0
    _memory: _Memory = field(
        default_factory=lambda: _Memory(), init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        if not callable(self.answer):
            raise UserError(f"answer must be a function of a query, not {self.answer!r:.200}")
        match self.names:
            case []:
                raise UserError("a pool needs at least one expert name, not ()")
            case [*names] if all(isinstance(name, str) for name in names):
                pass
            case _:
                raise UserError(f"names must be a tuple of strings, not {self.names!r:.200}")
        if self.max_live_calls is not None:
            whole(self, "max_live_calls")
            at_least(1, self, "max_live_calls")
        positive(self, "timeout_s")
        whole(self, "cache_size")
        at_least(0, self, "cache_size")

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the function's answers, in query order."""
        begun = [self._begun(query) for query in queries]
        waiting = [
            self._waited(query, one)
            for query, one in zip(queries, begun, strict=True)
            if isinstance(one, Awaitable)
        ]
        try:
            awaited = iter(await asyncio.gather(*waiting) if waiting else ())
        finally:
            _close_unstarted(begun)
        return [next(awaited) if isinstance(one, Awaitable) else one for one in begun]

    def _begun(self, query: Query) -> ExpertReply | Awaitable[Answer]:
        """Return the reply to a query, or an awaitable of the answer."""
        key = (self._expert(query), query.text, query.statement)
        if key in self._memory.replies:
            self._memory.replies.move_to_end(key)
            return self._memory.replies[key]
        try:
            answer = self.answer(query)
        except Exception as error:
            return warned(error, self._expert(query))
        if isinstance(answer, Awaitable):
            return answer
        return self._kept(query, answer)

    async def _waited(self, query: Query, answer: Awaitable[Answer]) -> ExpertReply:
        asked_s = time.monotonic()
        try:
            async with self._memory.slots(self.max_live_calls), self._timeout() as deadline:
                text = await answer
        except Exception as error:
            if deadline.expired():
                return Unavailable(f"no reply within {self.timeout_s:g} s", self._expert(query))
            return warned(error, self._expert(query))
        return replace(self._kept(query, text), latency_s=time.monotonic() - asked_s)

    def _timeout(self) -> asyncio.Timeout:
        return asyncio.timeout(None if math.isinf(self.timeout_s) else self.timeout_s)

    def _kept(self, query: Query, text: object) -> ExpertReply:
        """Return an answer as a reply, which is remembered."""
        expert = self._expert(query)
        if text is None:
            return Unavailable(NO_ANSWER, expert)
        if not isinstance(text, str):
            return warned(TypeError(f"not a string: {text!r:.80}"), expert)
        reply = Reply(expert, text)
        if self.cache_size:
            self._memory.replies[expert, query.text, query.statement] = reply
            if len(self._memory.replies) > self.cache_size:
                self._memory.replies.popitem(last=False)
        return reply

    def _expert(self, query: Query) -> str:
        return self.names[query.slot % len(self.names)]


class _Memory:
    """What a pool holds while it lives: replies it has given, and each event loop's free calls.

    A copy, pickled or not, starts with none.
    """

    def __init__(self) -> None:
        self.replies: OrderedDict[tuple[str, str, str], Reply] = OrderedDict()
        self._slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore]
        self._slots = WeakKeyDictionary()

    def slots(self, limit: int | None) -> AbstractAsyncContextManager[None]:
        """Return the context of a call on the running event loop, of at most `limit` at a time."""
        if limit is None:
            return nullcontext()
        return self._slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(limit))

    def __reduce__(self) -> tuple[type[_Memory], tuple[()]]:
        return _Memory, ()


def _close_unstarted(begun: Sequence[object]) -> None:
    """Close the coroutines that a cancellation has left unstarted."""
    for one in begun:
        if inspect.iscoroutine(one) and inspect.getcoroutinestate(one) == inspect.CORO_CREATED:
            one.close()


@dataclass(frozen=True, slots=True)
class SilentExperts:
    """Experts that are never available."""

    reason: str = "silent"
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return an unavailable reply to each query."""
        return [Unavailable(self.reason)] * len(queries)


@dataclass(frozen=True, slots=True)
class MeaninglessExperts:
    """Experts that reply to every query with the same sentence, which says nothing (Appendix E)."""

    text: str = "There is nothing I can tell you about this; you will have to work it out yourself."
    name: str = "meaningless"
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the sentence, once per query."""
        return [Reply(self.name, self.text)] * len(queries)


def change_last_digit(text: str, rng: np.random.Generator) -> str:
    """Return the text with its last digit replaced by another one.

    A text without a digit is replaced by a digit.
    """
    match = _LAST_DIGIT.search(text)
    if match is None:
        return str(rng.integers(10))
    digit = (int(match[0]) + int(rng.integers(1, 10))) % 10
    return f"{text[: match.start()]}{digit}{text[match.end() :]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErroneousExperts:
    """An expert pool with a share of its replies corrupted (paper, Appendix E).

    Whether a reply is corrupted, and how, depends on `seed` and the query alone, so it is the same
    in whatever batch and order the query arrives. An unavailable reply stays as it is.

    Args:
        inner: the pool that answers.
        error_rate: the probability that a reply is corrupted.
        corrupt: (reply text, generator) -> the wrong text; the default changes the last number.
            An exception in it makes the reply `Unavailable` and is shown as a RuntimeWarning.
        seed: random seed of the errors.

    Raises:
        UserError: `error_rate` outside [0, 1].
    """

    inner: ExpertPool
    error_rate: float
    corrupt: Callable[[str, np.random.Generator], str] = change_last_digit
    seed: int = 0

    def __post_init__(self) -> None:
        probability(self, "error_rate")

    @property
    def cooperative(self) -> bool:
        """Whether the inner pool is cooperative, and no custom function could block."""
        return self.corrupt is change_last_digit and is_cooperative(self.inner)

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the inner pool's replies, some of them corrupted, in query order."""
        replies = await self.inner.ask(queries)
        return [
            self._perturbed(query, reply) for query, reply in zip(queries, replies, strict=True)
        ]

    def _perturbed(self, query: Query, reply: ExpertReply) -> ExpertReply:
        rng = query_rng(query, self.seed)
        if not isinstance(reply, Reply) or rng.random() >= self.error_rate:
            return reply
        try:
            return replace(reply, text=self.corrupt(reply.text, rng))
        except Exception as error:
            return warned(error, reply.expert)


def warned(error: Exception, expert: str) -> Unavailable:
    """Return the failure of an expert whose function raised this error, after a warning."""
    # The user's function met text that a model wrote: that must neither end a run nor be hidden.
    told, place = described(error), _place(error)
    # Python shows equal warnings once; the text of this error may quote the query, and differ.
    kind = expert, type(error).__name__, place
    if kind not in _shown:
        _shown.add(kind)
        text = f"the expert {expert!r} failed: {told:.{_LONGEST_WARNING}}{place}"
        warnings.warn(text, RuntimeWarning, stacklevel=3)
    return Unavailable(f"failed: {told}", expert)


_LONGEST_WARNING = 300
_shown: set[tuple[str, str, str]] = set()
"""The failures that were warned of: expert, kind of error, place."""


def _place(error: Exception) -> str:
    """Return the line of the user's code that an error came from."""
    frames = traceback.extract_tb(error.__traceback__)
    package = os.path.dirname(__file__)
    outside = [frame for frame in frames if os.path.dirname(frame.filename) != package]
    return f" ({outside[0].filename}:{outside[0].lineno})" if outside else ""


def described(error: BaseException) -> str:
    """Return an exception as text, also one that cannot be shown."""
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


def query_rng(query: Query, seed: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the query alone."""
    identity = repr((seed, query.seed, query.turn, query.slot, query.text, query.statement))
    digest = hashlib.sha256(identity.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
