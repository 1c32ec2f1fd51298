"""Equality by structure: lists, tuples, options, words, all that is decided without sympy."""

from __future__ import annotations

from fractions import Fraction
from random import Random

import pytest
from hypothesis import assume, given, strategies as st

from eapo_env.canonical import canonical
from eapo_env.quantities import number
from eapo_env.structure import equivalent, exact_scalar

integers = st.integers(-(10**18), 10**18)
fractions = st.fractions(-(10**18), 10**18, max_denominator=10**6)
any_text = st.text(st.characters(), max_size=120)
PIECES = (
    r"1 2 x , ; ( ) [ ] \{ \} { } = < \le \pm \cup \begin{pmatrix} \end{pmatrix} & \\ \frac and or"
    r" \in \text{ % ^ _ . - \infty ²"
)
notation = st.lists(st.sampled_from([*PIECES.split(), " ", "\x00"]), max_size=25).map("".join)


def same(answer: str, gold: str) -> bool | None:
    return equivalent(canonical(answer), canonical(gold), exact_scalar)


MEASURES = ("{}^\\circ", "\\${}", "{} \\text{{ cm}}")


def spellings(value: Fraction, measure: str) -> list[str]:
    """Return several ways to write one fraction, with and without one measure."""
    n, d = value.numerator, value.denominator
    sign, size = ("-" if n < 0 else ""), abs(n)
    ways = [f"{n}/{d}", f"\\frac{{{n}}}{{{d}}}", f"{sign}\\dfrac{{{size}}}{{{d}}}", f"x = {n}/{d}"]
    ways += [f"{sign}{size // d}\\frac{{{size % d}}}{{{d}}}", f"${n}/{d}$", f"\\text{{ {n}/{d} }}"]
    if d == 1:
        ways += [f"{n:,}", f"{n}.0", f"{sign}00{size}", measure.format(n)]
    return ways


@given(value=fractions, measure=st.sampled_from(MEASURES), data=st.data())
def test_every_spelling_of_a_fraction_is_equal(
    value: Fraction, measure: str, data: st.DataObject
) -> None:
    one, other = (data.draw(st.sampled_from(spellings(value, measure))) for _ in range(2))
    assert same(one, other) is True


@given(a=fractions, b=fractions, measure=st.sampled_from(MEASURES), data=st.data())
def test_the_verdict_is_that_of_exact_arithmetic(
    a: Fraction, b: Fraction, measure: str, data: st.DataObject
) -> None:
    one, other = (data.draw(st.sampled_from(spellings(value, measure))) for value in (a, b))
    assert same(one, other) is (a == b)


@given(value=st.decimals(-(10**6), 10**6, places=4))
def test_a_decimal_is_its_exact_value(value: object) -> None:
    written = number(str(value))
    assert written is not None
    assert written.value == Fraction(str(value))


@given(a=any_text | notation, b=any_text | notation)
def test_total_reflexive_and_symmetric(a: str, b: str) -> None:
    assert {same(a, b), same(b, a)} != {True, False}
    assert same(a, a) in (True, False, None)


@given(integers | fractions)
def test_a_number_equals_itself(value: int | Fraction) -> None:
    assert same(str(value), str(value)) is True


@given(st.lists(integers, min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_a_list_has_no_order_and_a_tuple_has(values: list[int], random: Random) -> None:
    shuffled = random.sample(values, len(values))
    one, other = ", ".join(map(str, values)), ", ".join(map(str, shuffled))
    assert same(one, other) is True
    assert same(f"\\{{{one}\\}}", f"\\{{{other}\\}}") is True
    assert same(f"({one})", f"({other})") is (values == shuffled)


@given(integers, integers)
def test_a_hedge_is_never_one_of_its_numbers(a: int, b: int) -> None:
    assume(a != b)
    for hedge in (f"{a} \\text{{ or }} {b}", f"{a}, {b}", f"\\{{{a}, {b}\\}}", f"{a} and {b}"):
        assert same(hedge, str(a)) is False
        assert same(hedge, str(b)) is False


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("10\\%", "0.1", True),
        ("10\\%", "10", True),
        ("10\\%", "1", False),
        ("0.333333", "1/3", True),
        ("0.3333", "1/3", False),
        ("0.0010004", "0.001", False),
        ("41.9999999", "42", False),
        ("12 \\text{ cm}", "12 \\text{ inches}", False),
        ("12 \\text{ centimeters}", "12 \\text{ cm}", True),
        ("[0,1)", "(0,1]", False),
        ("x \\in [-2,7]", "[-2,7]", True),
        ("-2 \\le x \\le 7", "[-2,7]", True),
        ("(3,1)", "\\{1,3\\}", False),
        ("p=5,q=2;p=7,q=2", "(7,2),(5,2)", True),
        ("a=2,b=1", "a=1,b=2", False),
        ("\\begin{bmatrix}1&2\\end{bmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}", False),
        ("\\text{Yes}", "yes", True),
        ("(B)", "\\text{B}", True),
        ("1011_{2}", "1011_2", True),
        ("\\sqrt{2}", "2", None),
    ],
)
def test_structure(answer: str, gold: str, expected: bool | None) -> None:
    assert same(answer, gold) is expected
