"""Whose summaries a path of LeaP reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Router = Literal["dispersed", "clustered", "hybrid"]


def route(summaries: Sequence[str], router: Router, peers: int) -> list[list[int]]:
    """Return, for each path, whose summaries it reads, in order; never its own.

    Of equally similar peers the next ones count first, so that no path is favoured.
    """
    return [_peers_of(i, summaries, router, peers) for i in range(len(summaries))]


def similarity(one: str, other: str) -> float:
    """Return the share of common words, |A & B| / |A | B|, in lower case; 1 for none."""
    a, b = (set(text.lower().split()) for text in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def _peers_of(path: int, summaries: Sequence[str], router: Router, peers: int) -> list[int]:
    others = [(path + step) % len(summaries) for step in range(1, len(summaries))]
    far = sorted(others, key=lambda other: similarity(summaries[path], summaries[other]))
    near = sorted(others, key=lambda other: -similarity(summaries[path], summaries[other]))
    match router:
        case "dispersed":
            return far[:peers]
        case "clustered":
            return near[:peers]
        case "hybrid":
            distant = far[: peers // 2]
            return distant + [i for i in near if i not in distant][: peers - len(distant)]
