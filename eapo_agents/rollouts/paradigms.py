"""Which of the paper's paradigms an episode shows (2.3), by a stated rule; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from eapo_env.episode import Episode

_DIRECT_SHARE = 0.8
"""The share of the statement's tokens that a query about the whole of it holds at least."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


class Paradigm(StrEnum):
    """How an episode uses its experts."""

    SELF_RESOLUTION = "self_resolution"
    """It consults nobody."""
    DIRECT_CONSULTATION = "direct_consultation"
    """It asks for the whole problem: some query repeats it."""
    DECOMPOSITION = "decomposition"
    """It asks, and never for the whole."""


def paradigm_of(episode: Episode) -> Paradigm:
    """Return an episode's paradigm.

    Queries count whether the gate accepts them or not: the paradigm is the policy's choice. One
    query that holds `_DIRECT_SHARE` of the statement's tokens makes a direct consultation, whatever else
    was asked.
    """
    queries = [query.text for one in episode.consultations for query in one.queries]
    if not queries:
        return Paradigm.SELF_RESOLUTION
    statement = episode.problem.statement
    if any(covers(query, statement) for query in queries):
        return Paradigm.DIRECT_CONSULTATION
    return Paradigm.DECOMPOSITION


def covers(query: str, statement: str) -> bool:
    """Tell whether a query holds `_DIRECT_SHARE` of a statement's tokens, each as often as there."""
    wanted, there = Counter(_TOKEN.findall(statement)), Counter(_TOKEN.findall(query))
    return (wanted & there).total() >= _DIRECT_SHARE * max(wanted.total(), 1)


def shares(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the share of each paradigm, as metrics `paradigm/...`; zeros without episodes."""
    counted = Counter(map(paradigm_of, episodes))
    return {f"paradigm/{one}": counted[one] / max(len(episodes), 1) for one in Paradigm}
