"""Options of a multiple choice, several of them, and statements in words."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from eapo_env.canonical import canonical
from eapo_env.structure import equivalent, exact_scalar

labels = st.sampled_from("ABCDEFGH")
some = st.lists(labels, min_size=2, max_size=5, unique=True)
joiners = st.sampled_from([", ", " and ", "; ", " ", ","])


def same(answer: str, gold: str) -> bool | None:
    return equivalent(canonical(answer), canonical(gold), exact_scalar)


@given(some, some, joiners, joiners)
def test_several_options_equal_the_same_several(
    one: list[str], other: list[str], a: str, b: str
) -> None:
    assert same(f"\\text{{{a.join(one)}}}", b.join(other)) is (set(one) == set(other))
    assert same("".join(sorted(one)), b.join(other)) is (set(one) == set(other))


@given(labels, labels, st.integers(0, 9), st.integers(0, 9))
def test_two_options_with_values_agree_in_both(a: str, b: str, m: int, n: int) -> None:
    assert same(f"({a}) {m}", f"({b}) {n}") is ((a, m) == (b, n))
    assert same(f"({a}) {m}", b) is (a == b)
    assert same(f"({a}) {m}", str(n)) is (m == n)
    assert same(f"\\textbf{{({a})}} {m}", f"{b}) {n}.0") is ((a, m) == (b, n))


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("A or C", "A, C", False),
        ("CA", "A, C", False),
        ("\\{A, C\\}", "A, C", True),
        ("(B)\n\nB", "B", True),
        ("\\text{I and III}", "\\text{I, III}", True),
        ("\\text{I and II}", "\\text{I and III}", False),
        ("b", "B", False),
        ("\\text{Alice, Bob}", "\\text{Bob and Alice}", True),
        ("\\text{green and white}", "\\text{white}, \\text{green}", True),
        ("\\text{Alice, Bob}", "\\text{Alice and Carol}", False),
        ("\\text{Alice, Bob, Carol}", "\\text{Alice and Bob}", False),
        ("\\text{n is odd}", "\\text{odd } n", True),
        ("\\text{n is not odd}", "\\text{odd } n", False),
        ("n \\text{ is even}", "\\text{odd } n", False),
        ("\\text{all odd integers}", "\\text{odd integers}", True),
    ],
)
def test_words(answer: str, gold: str, expected: bool) -> None:
    assert (same(answer, gold) is True) is expected
