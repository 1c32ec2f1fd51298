"""The loop of an episode: write a turn, act, consult, receive, until it is over; then grade it.

Asynchronous, one coroutine per episode, so that thousands of episodes can wait for a model, experts
and a grader at the same time. The rules themselves are the pure functions of `episode.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import numpy as np

from eapo_env.episode import (
    Episode,
    TurnText,
    pairs_to_grade,
    queries_to_send,
    receive_replies,
    take_turn,
    truncate,
)
from eapo_env.experts import ExpertPool
from eapo_env.types import Gate, StopReason
from eapo_env.verifier import Grader, Status, Verdict

WriteTurn = Callable[[Episode], Awaitable[TurnText | None]]
"""Writes the policy's next turn of an episode; None when no token may be written any more."""


async def play_episode(
    episode: Episode,
    write: WriteTurn,
    experts: ExpertPool,
    rng: np.random.Generator,
    *,
    gate: Gate = "pre",
) -> Episode:
    """Return the finished episode, played from where it stands.

    Args:
        episode: a fresh one (`begin`), or one in which it is the policy's turn.
        write: the policy; if it returns None, the episode is truncated.
        experts: who is consulted, for as long as they take; `GuardedExperts` has a timeout.
        rng: the acceptance gate's generator: one uniform number per query, nothing else.
        gate: "pre" never sends a query that the gate refuses, "post" sends all.

    Raises:
        ValueError: the pool broke its protocol; and whatever `write` raises.
    """
    while episode.stop_reason is None:
        turn = await write(episode)
        if turn is None:
            return truncate(episode, StopReason.LENGTH)
        episode = await consult(take_turn(episode, turn, rng), experts, gate=gate)
    return episode


async def consult(episode: Episode, experts: ExpertPool, *, gate: Gate = "pre") -> Episode:
    """Return the episode after the experts' replies, if it waits for any.

    Raises:
        ValueError: the pool returned more or fewer replies than queries, or something else.
    """
    queries = queries_to_send(episode, gate)
    replies = await experts.ask(queries) if queries else ()
    return receive_replies(episode, gate, replies)


async def grade(episode: Episode, grader: Grader) -> Verdict:
    """Return the verdict on a finished episode; without an answer, the grader is not asked."""
    pairs = pairs_to_grade(episode)
    return (await grader.averify(pairs))[0] if pairs else Verdict(Status.NO_ANSWER)
