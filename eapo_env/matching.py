"""Comparing collections part by part where a comparison can be undecided (None)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

Part = TypeVar("Part")


def all_same(outcomes: Iterable[bool | None]) -> bool | None:
    """Return False if an outcome is False, else None if one is undecided, else True."""
    undecided = False
    for outcome in outcomes:
        if outcome is False:
            return False
        undecided = undecided or outcome is None
    return None if undecided else True


def same_unordered(
    answer: Sequence[Part], gold: Sequence[Part], same: Callable[[Part, Part], bool | None]
) -> bool | None:
    """Return whether parts can be paired so that `same` holds of each pair; None if undecided.

    Args:
        answer, gold: the parts of either side, of any length.
        same: whether two parts are equal, or None.
    """
    if len(answer) != len(gold):
        return False
    left, undecided = list(gold), False
    for part in answer:
        outcomes = [same(part, other) for other in left]
        if True in outcomes:
            del left[outcomes.index(True)]
        elif None in outcomes:
            undecided = True
        else:
            return False
    return None if undecided else True
