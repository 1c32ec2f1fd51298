"""Static limits: each refuses what exceeds it, shown with limits set low, and nothing else."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, strategies as st

from eapo_env.limits import LIMITS, Limits, is_too_complex

any_text = st.text(st.characters(), max_size=120)


@given(any_text)
def test_every_text_has_a_verdict(text: str) -> None:
    assert is_too_complex(text) in (True, False)


EACH_LIMIT = [
    ("chars", 5, "x+1+y", "x+1+yz"),
    ("tokens", 5, "x+1+y", "x+1+y+z"),
    ("depth", 2, "((x))", "(((x)))"),
    ("depth", 2, "{[x]}", "{[(x)]}"),
    ("digits", 3, "123", "1234"),
    ("exponent", 10, "x^{10}", "x^{11}"),
    ("exponent", 10, "2^{2\\cdot 5}", "2^{2\\cdot 6}"),
    ("exponent", 10, "e^{-0.5x}", "e^{-11.5x}"),
    ("nested_exponent", 6, "(x^2)^3", "(x^2)^4"),
    ("factorial", 5, "5!", "6!"),
    ("factorial", 5, "(n+5)!", "(n+6)!"),
    ("factorial", 5, "(2+2)!", "(2\\cdot 3)!"),
    ("factorial_power", 2, "(n!)^2", "(n!)^3"),
    ("factorial_power", 2, "\\binom{4}{2}^2", "\\binom{4}{2}^3"),
    ("cells", 3, "\\begin{matrix}1&2\\\\3&4\\end{matrix}", "1&2&3&4&5"),
    ("determinant_cells", 2, "\\begin{vmatrix}1&2\\\\3&4\\end{vmatrix}", "\\det 1&2&3&4"),
]


@pytest.mark.parametrize(("limit", "value", "within", "beyond"), EACH_LIMIT)
def test_each_limit(limit: str, value: int, within: str, beyond: str) -> None:
    low = replace(LIMITS, **{limit: value})
    assert not is_too_complex(within, low)
    assert is_too_complex(beyond, low)
    assert not is_too_complex(beyond)


def test_each_limit_is_tested() -> None:
    assert {row[0] for row in EACH_LIMIT} == {field.name for field in fields(Limits)}


@pytest.mark.parametrize(
    "text",
    [
        "2^{2^{2}}", "2^2^2", "x^{x^{x^{x}}}", "3!!", "((2!)!)!", "(2^2)!",
        "\\sum_{i=1}^2\\sum_{j=1}^2 ij", "\\sqrt[1000]{2}",
    ],
)  # fmt: skip
def test_towers_of_operations_are_refused_whatever_their_size(text: str) -> None:
    assert is_too_complex(text)


@pytest.mark.parametrize(
    "text",
    [
        "import x", "lambda x", "x.real_part", "f('x')", "__x__", "`x`", "#x", "{{x}}", "${x}",
        "\\input{x}", "\\def x", "int (x)", "x\x00",
    ],
)  # fmt: skip
def test_what_looks_like_a_program_is_refused(text: str) -> None:
    assert is_too_complex(text)


@pytest.mark.parametrize(
    "text",
    [
        "2^{2005}", "\\binom{2026}{1013}", "1/2004!", "\\frac{6\\sqrt{1789-240\\sqrt{21}}}{5}",
        "\\text{Monday}", "x^{4}-2x^{3}-13x^{2}+14x+24", "e^{x^{2}}", "(x+1)^{10}(x-1)^{12}",
        "\\sum_{k=1}^{2024}k^{2}", "\\lambda^2-1", "2^{2^n}", "\\frac{n!}{k!(n-k)!}", "(2n)!",
        "2.3e^{-0.0138629x}", "10^{-.30103}", "p.m.",
    ],
)  # fmt: skip
def test_ordinary_answers_are_within_the_limits(text: str) -> None:
    assert not is_too_complex(text)
