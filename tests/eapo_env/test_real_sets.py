"""Sets of real numbers in any notation."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, strategies as st

from eapo_env.canonical import canonical
from eapo_env.quantities import number, same_number
from eapo_env.real_sets import Interval, real_set, same_set


def same_end(a: str, b: str) -> bool | None:
    one, other = number(a), number(b)
    return a == b if one is None or other is None else same_number(one, other)


def same(answer: str, gold: str) -> bool | None:
    a, g = real_set(canonical(answer)), real_set(canonical(gold))
    assert a is not None
    assert g is not None
    return same_set(a.intervals, g.intervals, same_end)


def holds(intervals: tuple[Interval, ...], point: Fraction) -> bool:
    def size(text: str) -> Fraction | float:
        return float(text.replace("\\infty", "inf")) if "inf" in text else Fraction(text)

    return any(
        (size(i.low) < point or (i.low_closed and size(i.low) == point))
        and (point < size(i.high) or (i.high_closed and size(i.high) == point))
        for i in intervals
    )


ends = st.integers(-4, 4)
intervals = st.builds(
    lambda low, length, a, b: Interval(str(low), a, str(low + length), b),
    ends, st.integers(0, 4), st.booleans(), st.booleans(),
)  # fmt: skip
sets = st.lists(intervals, min_size=1, max_size=4).map(tuple)


@given(sets, sets)
def test_two_sets_are_equal_if_they_hold_the_same_numbers(
    one: tuple[Interval, ...], other: tuple[Interval, ...]
) -> None:
    points = [Fraction(n, 4) for n in range(-40, 41)]
    agree = all(holds(one, point) == holds(other, point) for point in points)
    assert same_set(one, other, same_end) is agree


@given(ends, st.integers(1, 5), st.sampled_from(["<", "\\le"]), st.sampled_from(["<", "\\le"]))
def test_an_inequality_is_its_interval(low: int, length: int, left: str, right: str) -> None:
    high = low + length
    interval = f"{'(' if left == '<' else '['}{low},{high}{')' if right == '<' else ']'}"
    for text in (
        f"{low} {left} x {right} {high}",
        f"\\{{x \\mid {low} {left} x {right} {high}\\}}",
        f"{low} {left} x \\text{{ and }} x {right} {high}",
        f"x \\in {interval}",
    ):
        assert same(text, interval) is True
        assert same(text, f"({low},{high + 1})") is False


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("x<-2 \\text{ or } x>2", "(-\\infty,-2)\\cup(2,\\infty)", True),
        ("(-inf, 2] U (3, inf)", "(-\\infty,2]\\cup(3,\\infty)", True),
        ("(0, 1)U(2, 3)U[4, 5]", "(0,1)\\cup(2,3)\\cup[4,5]", True),
        ("(-infty,2)", "(-\\infty,2)", True),
        ("x \\ne 0", "(-\\infty,0)\\cup(0,\\infty)", True),
        ("\\mathbb{R}\\setminus\\{0\\}", "(-\\infty,0)\\cup(0,\\infty)", True),
        ("]0,1[", "(0,1)", True),
        ("[2,3]\\cup[3,5]", "[2,5]", True),
        ("(2,3)\\cup(3,5)", "(2,5)", False),
        ("-\\sqrt2<x<\\sqrt2", "(-\\sqrt{2},\\sqrt{2})", True),
        ("\\{-1\\}\\cup[0,7)", "[0,7)\\cup\\{-1\\}", True),
    ],
)
def test_notations(answer: str, gold: str, expected: bool) -> None:
    assert same(answer, gold) is expected


@pytest.mark.parametrize("text", ["5", "x", "(1,2,3)", "x<1 or y>2", "\\{x\\}", "a \\cup b", ""])
def test_what_is_no_set_of_reals(text: str) -> None:
    assert real_set(canonical(text)) is None
