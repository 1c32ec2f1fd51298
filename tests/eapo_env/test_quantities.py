"""Exact numbers with percent signs, units, number words and bases."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import assume, given, strategies as st

from eapo_env.canonical import canonical
from eapo_env.quantities import number, same_number


def equal(answer: str, gold: str) -> bool | None:
    a, g = number(canonical(answer)), number(canonical(gold))
    return None if a is None or g is None else same_number(a, g)


@given(value=st.decimals(-(10**6), 10**6, places=4))
def test_a_decimal_is_its_exact_value(value: object) -> None:
    written = number(str(value))
    assert written is not None
    assert written.value == Fraction(str(value))


@pytest.mark.parametrize(
    "text", ["4²", "４３", "٤٣", "З", "1e", "0/0", "5/0", "--5", "1,23", "2x", "2 of thirds"]
)
def test_what_is_no_number(text: str) -> None:
    assert number(canonical(text)) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1,234.5", Fraction("1234.5")),
        ("49,\\!479", Fraction(49479)),
        ("1\\,234", Fraction(1234)),
        ("1{,}234", Fraction(1234)),
        ("918\\frac{1}{2}", Fraction("918.5")),
        ("1 1/2", Fraction(3, 2)),
        ("\\frac12", Fraction(1, 2)),
        ("2/(-3)", Fraction(-2, 3)),
        ("1.2 \\times 10^{-3}", Fraction("0.0012")),
        ("0.1\\overline{6}", Fraction(1, 6)),
        ("1.(6)", Fraction(5, 3)),
        ("10^{3}", Fraction(1000)),
        (".5", Fraction(1, 2)),
        ("2,\\! 345,\\! 678", Fraction(2345678)),
        ("0.\\dot{1}4285\\dot{7}", Fraction(1, 7)),
        ("0.1666\\ldots", Fraction(1, 6)),
        ("0.1212...", Fraction(4, 33)),
        ("\\nicefrac{3}{4}", Fraction(3, 4)),
        ("{3 \\over 4}", Fraction(3, 4)),
        ("⅝", Fraction(5, 8)),
        ("3\\text{ million}", Fraction(3_000_000)),
        ("7\\text{ tenths}", Fraction(7, 10)),
        ("2\\text{ dozen eggs}", Fraction(24)),
        ("1011_2", Fraction(11)),
        ("(52)_{\\text{eight}}", Fraction(42)),
    ],
)
def test_numbers(text: str, value: Fraction) -> None:
    written = number(canonical(text))
    assert written is not None
    assert written.value == value


_MEASURES = "cm km ft miles minutes hours days weeks kg grams mg liters cents dollars degrees"
_NUMBER_WORDS = "tenths halves thirds hundredths tens dozen gross score million hundred"
MEASURES, NUMBER_WORDS = _MEASURES.split(), _NUMBER_WORDS.split()
COUNTED = ("apples", "ways", "people", "ordered pairs", "marbles")


@given(st.integers(1, 10**6), st.sampled_from(MEASURES), st.sampled_from(MEASURES))
def test_two_measures_are_equal_only_if_they_are_the_same(n: int, one: str, other: str) -> None:
    assert equal(f"{n}\\text{{ {one}}}", f"{n}\\text{{ {other}}}") is (one == other)
    assert equal(f"{n}\\text{{ {one}}}", str(n)) is True


@given(st.integers(1, 10**6), st.sampled_from(NUMBER_WORDS))
def test_a_number_word_is_never_a_unit(n: int, word: str) -> None:
    assert equal(f"{n}\\text{{ {word}}}", str(n)) is False


@given(st.integers(1, 999), st.sampled_from(COUNTED))
def test_what_is_counted_is_no_measure(n: int, words: str) -> None:
    assert equal(f"{n}\\text{{ {words}}}", str(n)) is True
    assert equal(f"{n}\\text{{ {words}}}", f"{n} ({words})") in (True, None)


@given(st.integers(0, 10**9), st.integers(2, 9), st.integers(2, 9))
def test_digits_in_a_base_equal_the_same_digits_in_that_base(n: int, base: int, other: int) -> None:
    digits = ""
    rest = n
    while rest or not digits:
        digits = str(rest % base) + digits
        rest //= base
    assert equal(f"({digits})_{{{base}}}", f"{digits}_{base}") is True
    assert equal(f"{digits}_{base}", str(n)) is False
    assume(other > max(map(int, digits)))
    assert equal(f"{digits}_{base}", f"{digits}_{other}") is (base == other)


@pytest.mark.parametrize("letter", "abcdghkmnstxyzCFKLNV")
def test_a_letter_after_a_number_is_a_variable(letter: str) -> None:
    assert number(canonical(f"5{letter}")) is None
    assert number(canonical(f"5 {letter}")) is None


@pytest.mark.parametrize(
    ("answer", "gold", "expected"),
    [
        ("5\\text{ km/h}", "5\\text{ kilometers per hour}", True),
        ("5\\text{ sq cm}", "5\\text{ cm}^2", True),
        ("5\\text{ square centimeters}", "5\\mathrm{~cm}^{2}", True),
        ("5\\text{ cm}^2", "5\\text{ cm}^3", False),
        ("\\$5", "5\\text{ dollars}", True),
        ("5\\text{ cents}", "\\$5", False),
        ("€5", "\\$5", False),
        ("40\\%", "40\\text{ dollars}", False),
        ("5\\text{ m}", "5\\text{ meters}", True),
        ("30^\\circ", "30\\text{ degrees}", True),
        ("30^\\circ", "30\\text{ radians}", False),
        ("16\\text{ years old}", "16", True),
        ("3\\text{ million dollars}", "\\$3{,}000{,}000", True),
    ],
)
def test_units(answer: str, gold: str, expected: bool) -> None:
    assert equal(answer, gold) is expected
