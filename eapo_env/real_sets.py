r"""Sets of real numbers in any notation: intervals, unions, inequalities, set builders.

`real_set` reads `(-\infty,2)\cup(3,\infty)`, `x<2 or x>3`, `\{x \mid 0\le x<1\}`, `x\ne0`,
`\mathbb{R}\setminus\{0\}` and `]0,1[` into intervals, so that any notation equals any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from typing import Literal

from eapo_env.matching import all_same, same_unordered
from eapo_env.notation import RELATION, TURNED, bracketed, relation_of
from eapo_env.quantities import number

_BUILDER = re.compile(
    r"\A\\?\{ ?(?P<name>[A-Za-z](?:_\d)?) ?(?:\\in ?(?:\\mathbb ?\{?R\}?|\(-\\infty, ?\\infty\)))?"
    r" ?[|:] ?(?P<condition>.+?)\\?\}\Z",
    re.DOTALL,
)
_WITHOUT = re.compile(
    r"\A(?:\\mathbb ?\{?R\}?|\(-\\infty, ?\\infty\)) ?(?:\\setminus|-|\\) ?\\\{(?P<points>.+)\\\}\Z"
)
_REAL = re.compile(
    r"\A[A-Za-z] ?\\in ?(?:\\mathbb ?\{?R\}?|\(-\\infty, ?\\infty\)),? ?(?:and )?(?=[A-Za-z] ?\\ne)"
)
_MEMBER = re.compile(r"\A[A-Za-z](?:_\d)? ?\\in ?(?=[\[(\]\\])")
_REVERSED = re.compile(r"\A(?P<open>[\](\[]) ?(?P<low>[^\[\](),;]+) ?[,;] ?(?P<high>[^\[\](),;]+)"
                       r" ?(?P<close>[\[)\]])\Z")  # fmt: skip
_POINTS = re.compile(r"\A\\\{(?P<points>[^{}]+)\\\}\Z")
_VARIABLE = re.compile(
    r"\A ?(?:[A-Za-z](?:_\w|_\{\w{1,4}\})?|\\(?:theta|alpha|beta|lambda|phi|omega|mu|sigma)) ?\Z"
)
_SIZE_OF = re.compile(r"\A ?\| ?(?P<name>[A-Za-z]) ?\| ?\Z")
_UNION = re.compile(r"\\cup(?![A-Za-z])")
_OR = re.compile(r",? or |\\lor(?![A-Za-z])|\\cup(?![A-Za-z])")
_AND = re.compile(r",? and |\\land(?![A-Za-z])| but ")
_MOST = 12

Same = Callable[[str, str], bool | None]
"""Whether two end points are equal; None where that is undecided."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A connected set of reals; its ends are texts, `-\\infty` and `\\infty` among them."""

    low: str
    low_closed: bool
    high: str
    high_closed: bool


@dataclass(frozen=True, slots=True)
class RealSet:
    """A set of reals as written: its intervals, and the variable of an inequality or ""."""

    intervals: tuple[Interval, ...]
    variable: str = ""


def real_set(text: str) -> RealSet | None:
    """Return the set of reals that a text writes, or None if the text is something else."""
    text = _MEMBER.sub("", _REAL.sub("", text.strip())).strip()
    if (builder := _BUILDER.match(text)) and builder["name"] in builder["condition"]:
        described = _of_condition(builder["condition"])
        return replace(described, variable="") if described else None
    if without := _WITHOUT.match(text):
        return _named(_all_but(without["points"].split(",")))
    parts = [part.strip() for part in _UNION.split(text)]
    if len(parts) > _MOST:
        return None
    if len(parts) > 1 and not RELATION.search(text):
        found = [_of_part(part) for part in parts]
        return None if None in found else RealSet(tuple(i for part in found if part for i in part))
    return _named(_of_part(text)) or _of_condition(text)


def _named(intervals: tuple[Interval, ...] | None) -> RealSet | None:
    return None if intervals is None else RealSet(intervals)


def is_compound(text: str) -> bool:
    """Return whether a text can be a set of reals in a notation other than one bracketed pair."""
    return bool(
        RELATION.search(text) or "\\cup" in text or "\\setminus" in text or text[:1] == "]"
    ) or text.endswith("[")  # fmt: skip


def same_set(answer: Sequence[Interval], gold: Sequence[Interval], same: Same) -> bool | None:
    """Return whether two lists of intervals hold the same numbers; None if `same` cannot decide.

    Intervals whose ends are plain numbers are put together where they overlap or touch.
    """
    spans = _spans(answer), _spans(gold)
    if spans[0] is not None and spans[1] is not None:
        return _merged(spans[0]) == _merged(spans[1])
    return same_unordered(answer, gold, partial(_same_interval, same=same))


def _same_interval(a: Interval, b: Interval, same: Same) -> bool | None:
    if (a.low_closed, a.high_closed) != (b.low_closed, b.high_closed):
        return False
    return all_same((same(a.low, b.low), same(a.high, b.high)))


def _of_part(text: str) -> tuple[Interval, ...] | None:
    """Return one bracketed interval or a set of points."""
    if points := _POINTS.match(text):
        values = [part.strip() for part in points["points"].split(",")]
        exact = all(number(value) for value in values)
        return tuple(Interval(v, True, v, True) for v in values) if exact else None
    if "]" in text[:1] or "[" in text[-1:]:
        match = _REVERSED.match(text)
        if match is None:
            return None
        return (
            Interval(match["low"].strip(), match["open"] == "[", match["high"].strip(),
                     match["close"] == "]"),
        )  # fmt: skip
    pair = bracketed(text) if text[:1] in "[(" else None
    if pair is None or len(pair[1]) != 2:
        return None
    low, high = pair[1]
    return (Interval(low, pair[0][0] == "[", high.removeprefix("+"), pair[0][1] == "]"),)


def _of_condition(text: str) -> RealSet | None:
    """Return the set that inequalities joined by `or`, or by `and`, describe.

    Of the alternatives some may be single values (`x=0 or x>1`), but not all: those are a list.
    """
    variables: set[str] = set()
    union: list[Interval] = []
    choices = _OR.split(text)
    if len(choices) > _MOST:
        return None
    points = [_point(choice, variables) for choice in choices]
    if all(points):
        return None
    for choice, point in zip(choices, points, strict=True):
        both: tuple[Interval, ...] | None = point
        for part in () if point else _AND.split(choice):
            found = _of_inequality(part.strip(), variables)
            if found is None:
                return None
            both = found if both is None else _intersection(both, found)
            if both is None:
                return None
        union.extend(both or ())
    return RealSet(tuple(union), *variables) if len(variables) == 1 else None


def _point(text: str, variables: set[str]) -> tuple[Interval, ...] | None:
    """Return the one value that `x = 2` gives a variable, as an interval; None for other texts."""
    relation = relation_of(text.strip())
    if relation is None or relation[1] != "=" or len(RELATION.findall(text)) != 1:
        return None
    name, _, value = relation
    if not _VARIABLE.match(name) or number(value) is None:
        return None
    variables.add(name)
    return (Interval(value, True, value, True),)


def _of_inequality(text: str, variables: set[str]) -> tuple[Interval, ...] | None:
    found = [*RELATION.finditer(text)]
    sides = [part.strip() for part in RELATION.split(text)]
    signs = [relation[1] for match in found if (relation := relation_of(f"a {match[0]} b"))]
    if len(signs) != len(found) or not all(sides):
        return None
    if len(found) == 2 and _VARIABLE.match(sides[1]):
        low, name, high = sides
        if set(signs) <= {"\\ge", "\\gt"}:
            low, high, signs = high, low, [TURNED[sign] for sign in reversed(signs)]
        if not set(signs) <= {"\\le", "\\lt"}:
            return None
        variables.add(name)
        return (Interval(low, signs[0] == "\\le", high, signs[1] == "\\le"),)
    if len(found) != 1:
        return None
    first, second = sides
    sign = signs[0]
    if (size := _SIZE_OF.match(first)) and sign in TURNED and not second.startswith("-"):
        variables.add(size["name"])
        closed = sign in ("\\le", "\\ge")
        if sign in ("\\lt", "\\le"):
            return (Interval(f"-{second}", closed, second, closed),)
        return (
            Interval("-\\infty", False, f"-{second}", closed),
            Interval(second, closed, "\\infty", False),
        )
    if not _VARIABLE.match(first) and _VARIABLE.match(second):
        first, second, sign = second, first, TURNED.get(sign, sign)
    if not _VARIABLE.match(first):
        return None
    variables.add(first)
    if sign == "\\ne":
        return _all_but([second])
    if sign in ("\\le", "\\lt"):
        return (Interval("-\\infty", False, second, sign == "\\le"),)
    if sign in ("\\ge", "\\gt"):
        return (Interval(second, sign == "\\ge", "\\infty", False),)
    return None


def _all_but(points: Sequence[str]) -> tuple[Interval, ...] | None:
    ordered = [point.strip() for point in points]
    if len(ordered) > 1:
        sizes = {point: _size(point) for point in ordered}
        if len(ordered) > _MOST or None in sizes.values():
            return None
        ordered.sort(key=lambda point: sizes[point] or 0)
    ends = pairwise(["-\\infty", *ordered, "\\infty"])
    return tuple(Interval(low, False, high, False) for low, high in ends)


def _intersection(
    first: Sequence[Interval], second: Sequence[Interval]
) -> tuple[Interval, ...] | None:
    """Return what two sets have in common; None if their ends cannot be compared."""
    common = []
    for a in first:
        for b in second:
            low = _narrower(a, b, "low", 1)
            high = _narrower(a, b, "high", -1)
            if low is None or high is None:
                return None
            common.append(Interval(*low, *high))
    return tuple(common)


def _narrower(
    a: Interval, b: Interval, end: Literal["low", "high"], sign: int
) -> tuple[str, bool] | None:
    """Return the end that leaves less of two intervals, and whether it is closed."""
    ends = [(getattr(i, end), getattr(i, f"{end}_closed")) for i in (a, b)]
    finite = [pair for pair in ends if "infty" not in pair[0]]
    if len(finite) < 2:
        return finite[0] if finite else ends[0]
    sizes = [_size(text) for text, _ in ends]
    if None in sizes:
        return None
    return max(ends, key=lambda pair: (sign * (_size(pair[0]) or 0), not pair[1]))


def _size(text: str) -> Fraction | float | None:
    """Return the exact value of an end point, an infinity included; None if it is no number."""
    if text in ("\\infty", "+\\infty", "-\\infty", "- \\infty"):
        return float("-inf" if text.startswith("-") else "inf")
    found = number(text)
    return found.value if found and not found.percent and found.base == 10 else None


_Span = tuple[tuple[Fraction | float, int], tuple[Fraction | float, int]]
"""Both ends of an interval as (value, 0 if it is in, else 1 above or -1 below the value)."""


def _spans(intervals: Sequence[Interval]) -> list[_Span] | None:
    """Return intervals whose ends are numbers, the empty ones left out; None for any others."""
    spans: list[_Span] = []
    for interval in intervals:
        low, high = _size(interval.low), _size(interval.high)
        if low is None or high is None:
            return None
        span = (low, 0 if interval.low_closed else 1), (high, 0 if interval.high_closed else -1)
        if span[0] <= span[1]:
            spans.append(span)
    return spans


def _merged(spans: Sequence[_Span]) -> list[_Span]:
    """Return spans in order, those that overlap or touch made one."""
    merged: list[_Span] = []
    for low, high in sorted(spans):
        if merged:
            first, last = merged[-1]
            if low[0] < last[0] or (low[0] == last[0] and 0 in (low[1], last[1])):
                merged[-1] = (first, max(last, high))
                continue
        merged.append((low, high))
    return merged
