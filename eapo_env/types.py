"""The data types of the environment: problems, messages, queries, replies, consultations, rules.

Every value here is frozen and compares by content. What an episode does with them is defined in
`episode.py`; the words are those of `docs/glossary.md`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from eapo_env.validation import UserError, at_least, probability, whole

Role = Literal["user", "assistant"]
Gate = Literal["pre", "post"]

LONE_SURROGATE = re.compile("[\ud800-\udfff]")
"""A character that a Python string can hold and UTF-8 cannot."""


class StopReason(StrEnum):
    """The reason why an episode ended; every finished episode has exactly one."""

    ANSWERED = "answered"
    """The policy committed to an answer."""
    TURN_BUDGET = "turn_budget"
    """The last turn was used without an answer (a termination: the budget is part of the MDP)."""
    LENGTH = "length"
    """An outside limit on tokens cut the episode off (a truncation)."""
    WALL_CLOCK = "wall_clock"
    """An outside limit on time cut the episode off (a truncation)."""

    @property
    def truncated(self) -> bool:
        """Whether an outside limit, rather than the rules, ended the episode."""
        return self in (StopReason.LENGTH, StopReason.WALL_CLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A statement and its verifiable answer.

    Raises:
        UserError: an empty id, statement or answer, or one with a lone surrogate.
    """

    id: str
    statement: str
    answer: str
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("id", "statement", "answer"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise UserError(f"a problem's {name} must be a non-empty string, not {value!r}")
            if LONE_SURROGATE.search(value):
                raise UserError(f"a problem's {name} must fit in UTF-8, not {value!r}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the history: the role of its author, and its text."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question to one expert.

    `text` is what the policy wrote; `statement` is the problem it is working on, for experts that
    want the context. `seed`, `turn` and `slot` identify the question within a run: an expert that
    derives its random seed from them gives the same reply in whatever batch the question arrives.
    """

    text: str
    statement: str = ""
    seed: int = 0
    turn: int = 0
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The tokens of a reply's prompt and completion, as the server counted, and their cost.

    None is unknown: the server did not say, or its tokens have no price.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """An expert's answer, and the expert's name.

    `latency_s` is the time from the question to the answer, in seconds; None if nobody measured it.
    `hedged` says whether a second endpoint was asked because the first was slow. `usage` is what it
    used; None where nobody counts tokens. These take no part in comparisons: the same words are the
    same reply.
    """

    expert: str
    text: str
    latency_s: float | None = field(default=None, compare=False, repr=False)
    hedged: bool = field(default=False, compare=False, repr=False)
    usage: Usage | None = field(default=None, compare=False, repr=False)


NO_ANSWER = "no answer"
"""The reason of an expert that has nothing to say to a query, which is no failure."""


@dataclass(frozen=True, slots=True)
class Unavailable:
    """A query without an answer. The reason is for the records; the policy never reads it.

    `latency_s` is the time until that was known; `hedged` and `usage` are as in `Reply`.
    """

    reason: str
    expert: str = ""
    latency_s: float | None = field(default=None, compare=False, repr=False)
    hedged: bool = field(default=False, compare=False, repr=False)
    usage: Usage | None = field(default=None, compare=False, repr=False)

    @property
    def is_failure(self) -> bool:
        """Whether an answer should have come: the expert did not say that it has none."""
        return self.reason != NO_ANSWER


ExpertReply = Reply | Unavailable


@dataclass(frozen=True, slots=True)
class Consultation:
    """The queries of one turn, the gate's decisions on them, and (once received) the replies.

    `accepted` is drawn before anything is asked, one decision per query, in query order; a query
    that a pool refuses in the gate's name (`acceptance.REFUSED`) then counts as not accepted.
    `replies` is empty while the consultation is pending, else one per query.
    """

    queries: tuple[Query, ...]
    accepted: tuple[bool, ...]
    replies: tuple[ExpertReply, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The rules of one episode: turns, experts, acceptance rate, length of replies.

    Args:
        turn_budget: the most turns the episode may take, at least 1 (paper 2.3: 4 at first; its
            later version, as `Annealing`, 10).
        acceptance_rate: p_s, the probability that an expert reply enters the history (2.3).
        queries_per_turn: M, the most experts asked in parallel (2.3: 3); 0 means no experts.
        max_reply_chars: a longer reply is cut there, with a mark.

    Raises:
        UserError: a value out of its range.
    """

    turn_budget: int = 4
    acceptance_rate: float = 1.0
    queries_per_turn: int = 3
    max_reply_chars: int = 16_384

    def __post_init__(self) -> None:
        whole(self, "turn_budget", "queries_per_turn", "max_reply_chars")
        at_least(1, self, "turn_budget", "max_reply_chars")
        at_least(0, self, "queries_per_turn")
        probability(self, "acceptance_rate")

    @classmethod
    def alone(cls) -> Rules:
        """Return the rules of evaluation: one turn, no experts (paper 2.1)."""
        return cls(turn_budget=1, acceptance_rate=0.0, queries_per_turn=0)

    @property
    def is_alone(self) -> bool:
        """Whether no expert can be consulted: then the prompt mentions none."""
        return self.turn_budget == 1 or self.queries_per_turn == 0
