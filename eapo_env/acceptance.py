"""The acceptance gate: which expert replies are written into the history (paper 2.3).

The decision is one uniform draw per query slot, in query order, made before anything is asked:
neither the order in which replies arrive nor a lost reply can shift a later draw. `"pre"` never
asks a refused slot; `"post"` asks first and drops, as the paper describes. Both give the same
histories; `"post"` costs the experts' work and yields call statistics. A pool whose budget is
spent closes the gate: the draws stay as they are, and what it refuses is not accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress

import numpy as np

from eapo_env.types import Consultation, ExpertReply, Gate, Query, Unavailable

REFUSED = Unavailable("refused by the gate")
"""The reply to a query that the gate refused, or a pool whose budget is spent."""


def draw_acceptance(
    num_queries: int, acceptance_rate: float, rng: np.random.Generator
) -> tuple[bool, ...]:
    """Return one decision per query slot: accepted when a uniform u < acceptance_rate."""
    return tuple((rng.random(num_queries) < acceptance_rate).tolist())


def still_accepted(consultation: Consultation, replies: Sequence[ExpertReply]) -> tuple[bool, ...]:
    """Return the decisions on a consultation once it is known what its pool refused."""
    pairs = zip(consultation.accepted, replies, strict=True)
    return tuple([accepted and reply != REFUSED for accepted, reply in pairs])


def queries_to_ask(consultation: Consultation, gate: Gate) -> tuple[Query, ...]:
    """Return the queries to send to the experts, in query order."""
    if gate == "post":
        return consultation.queries
    return tuple(compress(consultation.queries, consultation.accepted))


def replies_in_slots(
    consultation: Consultation, gate: Gate, replies: Sequence[ExpertReply]
) -> tuple[ExpertReply, ...]:
    """Return one reply per query slot from the replies to `queries_to_ask`, in the same order.

    Raises:
        ValueError: the pool returned more or fewer replies than it was asked for, or something
            else; texts must be `Reply` values.
    """
    num_asked = len(consultation.queries) if gate == "post" else sum(consultation.accepted)
    if len(replies) != num_asked:
        raise ValueError(f"the expert pool returned {len(replies)} replies to {num_asked} queries")
    for reply in replies:
        if not isinstance(reply, ExpertReply):
            raise ValueError(
                f"the expert pool returned {reply!r:.80}, which is neither Reply nor Unavailable"
            )
    if gate == "post":
        return tuple(replies)
    answered = iter(replies)
    return tuple([next(answered) if accepted else REFUSED for accepted in consultation.accepted])
