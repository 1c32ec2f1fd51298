"""The `ExpertPool` protocol, and expert pools that answer in this process.

A pool takes a batch of queries and returns a reply to each, in the same order. It is a picklable
value that opens nothing before its first use. An expert that fails is an `Unavailable` reply, never
an exception. Pools behind a server are in `openai_experts.py`, recorded ones in `recordings.py`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import numpy as np

from eapo_env.types import ExpertReply, Query, Reply, Unavailable
from eapo_env.validation import UserError

_LAST_DIGIT = re.compile(r"[0-9](?=[^0-9]*\Z)")


@runtime_checkable
class ExpertPool(Protocol):
    """Experts that answer a batch of queries.

    `eapo_env.testing.check_expert_pool` tests an implementation.
    """

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return one reply per query, in query order.

        An expert that fails, is late or is unknown replies `Unavailable(reason)`; nothing is
        raised for it. May be called concurrently, and from several event loops.
        """
        ...


@dataclass(frozen=True, slots=True)
class ScriptedExperts:
    """Experts whose replies a function computes.

    Args:
        answer: the reply to a query, or None for an unavailable expert. A module-level function,
            if the pool is to be pickled.
        names: the experts; slot i of a turn goes to expert i mod n.

    An exception in `answer` makes that reply `Unavailable`, with the exception as its reason, and
    is shown as a RuntimeWarning.
    """

    answer: Callable[[Query], str | None]
    names: tuple[str, ...] = ("scripted",)

    def __post_init__(self) -> None:
        if not self.names:
            raise UserError("a pool needs at least one expert name, not ()")

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the function's answers, in query order."""
        return [self._reply(query) for query in queries]

    def _reply(self, query: Query) -> ExpertReply:
        expert = self.names[query.slot % len(self.names)]
        try:
            text = self.answer(query)
        except Exception as error:
            return _warned(error, expert)
        return Unavailable("no answer", expert) if text is None else Reply(expert, text)


@dataclass(frozen=True, slots=True)
class SilentExperts:
    """Experts that are never available."""

    reason: str = "silent"

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return an unavailable reply to each query."""
        return [Unavailable(self.reason)] * len(queries)


@dataclass(frozen=True, slots=True)
class MeaninglessExperts:
    """Experts that reply to every query with the same sentence, which says nothing (Appendix E)."""

    text: str = "There is nothing I can tell you about this; you will have to work it out yourself."
    name: str = "meaningless"

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
        if not 0.0 <= self.error_rate <= 1.0:
            raise UserError(f"error_rate must be in [0, 1], not {self.error_rate}")

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
            return _warned(error, reply.expert)


def _warned(error: Exception, expert: str) -> Unavailable:
    # The user's function met text that a model wrote: that must neither end a run nor be hidden.
    warnings.warn(f"the expert {expert!r} failed: {error!r}", RuntimeWarning, stacklevel=3)
    return Unavailable(f"failed: {error!r}", expert)


def query_rng(query: Query, seed: int) -> np.random.Generator:
    """Return a generator that depends on the seed and the query alone."""
    identity = repr((seed, query.seed, query.turn, query.slot, query.text, query.statement))
    digest = hashlib.sha256(identity.encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))
