"""Classification of episodes by how they use experts: the paradigms of the paper's 2.3; pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from eapo_env.episode import Episode

_DIRECT_SHARE = 0.8
"""A query that contains this share of the statement's tokens asks about the whole problem."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


class Paradigm(StrEnum):
    """How an episode uses its experts."""

    SELF_RESOLUTION = "self_resolution"
    """It consults no expert."""
    DIRECT_CONSULTATION = "direct_consultation"
    """It asks about the whole problem: some query repeats it."""
    DECOMPOSITION = "decomposition"
    """It asks, and never about the whole problem."""


def paradigm_of(episode: Episode) -> Paradigm:
    """Return an episode's paradigm.

    Queries count whether the gate accepts them or not: the paradigm is the policy's choice. One
    query about the whole problem (`covers`) makes a direct consultation, whatever else was asked.
    """
    queries = [query.text for one in episode.consultations for query in one.queries]
    if not queries:
        return Paradigm.SELF_RESOLUTION
    statement = episode.problem.statement
    if any(covers(query, statement) for query in queries):
        return Paradigm.DIRECT_CONSULTATION
    return Paradigm.DECOMPOSITION


def covers(query: str, statement: str) -> bool:
    """Return whether a query contains most of a statement's tokens, each at least as often."""
    wanted, there = Counter(_TOKEN.findall(statement)), Counter(_TOKEN.findall(query))
    return (wanted & there).total() >= _DIRECT_SHARE * max(wanted.total(), 1)


def shares(episodes: Sequence[Episode]) -> dict[str, float]:
    """Return the share of each paradigm, as metrics `paradigm/...`; zeros without episodes."""
    counted = Counter(map(paradigm_of, episodes))
    return {f"paradigm/{one}": counted[one] / max(len(episodes), 1) for one in Paradigm}
