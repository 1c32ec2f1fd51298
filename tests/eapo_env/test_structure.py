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


letters = st.sampled_from(["x,y,z", "a,b,c", "m,n", "p,q", "x_1,x_2,x_3", "u,v,w"]).map(
    lambda names: names.split(",")
)


@given(letters, st.randoms(use_true_random=False), st.data())
def test_a_named_tuple_is_compared_by_its_names(
    names: list[str], random: Random, data: st.DataObject
) -> None:
    """Against one without names its own must be in their usual order."""
    values = data.draw(
        st.lists(st.integers(0, 99), min_size=len(names), max_size=len(names), unique=True)
    )
    value_of = dict(zip(names, values, strict=True))
    shuffled = random.sample(names, len(names))
    bare = f"({','.join(map(str, values))})"
    named = f"({','.join(shuffled)})=({','.join(str(value_of[name]) for name in shuffled)})"
    assert same(named, f"({','.join(names)})={bare}") is True
    assert same(named, bare) is (shuffled == names)
    assert same(f"({','.join(shuffled)})={bare}", bare) is (shuffled == names)
    assignments = ", ".join(f"{name}={value_of[name]}" for name in shuffled)
    assert same(assignments, bare) is True
    others = ", ".join(f"{name}={value}" for name, value in zip(shuffled, values, strict=True))
    assert same(others, assignments) is (shuffled == names)


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("(n,k)=(5,2)", "(5,2)", True),
        ("(r,\\theta)=(3,2)", "(3,2)", True),
        ("x=2, y=3", "(a,b)=(2,3)", False),
        ("x_1=3, x_2=2", "2, 3", True),
        ("x_1=3, x_2=2", "x=2, x=3", True),
        ("x_1=3, x_2=2", "x_1=2, x_2=3", False),
        ("\\sqrt2, \\sqrt2", "\\sqrt2", True),
    ],
)
def test_names(answer: str, gold: str, expected: bool) -> None:
    assert same(answer, gold) is expected


@given(st.integers(0, 1439), st.integers(0, 1439), st.sampled_from(["am pm", "AM PM", "a.m. p.m."]))
def test_times_are_those_of_a_day_of_24_hours(one: int, other: int, halves: str) -> None:
    hour, minute = divmod(one, 60)
    half = halves.split()[hour // 12]
    twelve = f"{hour % 12 or 12}:{minute:02d}\\text{{ {half}}}"
    assert same(twelve, f"{hour}:{minute:02d}") is True
    assert same(f"{hour:02d}:{minute:02d}", twelve) is True
    assert (same(twelve, f"{other // 60}:{other % 60:02d}") is True) is (one == other)


@given(st.integers(-99, 99), st.integers(-99, 99), st.integers(2, 30), st.integers(2, 30))
def test_residues_are_equal_in_one_modulus(a: int, b: int, m: int, n: int) -> None:
    expected = m == n and (a - b) % m == 0
    assert same(f"x \\equiv {a} \\pmod{{{m}}}", f"{b} \\pmod {n}") is expected
    assert same(f"{a} (mod {m})", f"x\\equiv{b}\\bmod {n}") is expected
    assert same(f"y\\equiv {a}\\pmod {m}", f"x\\equiv {b}\\pmod {n}") is False


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(-50, 50))
def test_single_values_are_points_of_a_set(point: int, low: int, other: int) -> None:
    answer = f"a={point} \\text{{ or }} a\\ge {low}"
    assert same(answer, f"\\{{{point}\\}}\\cup[{low},\\infty)") is True
    covered = other == point or (other >= low and point >= low)
    assert same(answer, f"\\{{{other}\\}}\\cup[{low},\\infty)") is covered
    assert same(f"|x|>{abs(low) + 1}", f"x<-{abs(low) + 1} or x>{abs(low) + 1}") is True
