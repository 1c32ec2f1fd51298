"""TeX in one spelling."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from eapo_env.canonical import canonical
from eapo_env.tex import rewritten

PIECES = (
    r"\frac \sqrt \binom { } [ ] ^ _ 1 x \pi \text \color \over \choose \left ( \right ) \! \\ & $"
    r" \begin \end \SI \boxed \mathbf ' . , \circ"
)
tex = st.lists(st.sampled_from([*PIECES.split(), " "]), max_size=40).map("".join)


@given(st.text(st.characters(), max_size=120) | tex)
def test_every_text_has_a_spelling(text: str) -> None:
    assert isinstance(rewritten(text), str)
    assert isinstance(canonical(text), str)


@given(st.integers(1, 200))
def test_a_text_that_nests_too_deeply_is_left_as_it_is(depth: int) -> None:
    text = "{" * depth + "\\tfrac12" + "}" * depth
    assert rewritten(text) in (text, text.replace("\\tfrac12", "\\frac{1}{2}"))


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        (r"\frac\pi2", r"\frac{\pi}{2}"),
        (r"\dfrac ab", r"\frac{a}{b}"),
        (r"\sqrt[3]2", r"\sqrt[3]{2}"),
        (r"\sqrt\frac12", r"\sqrt{\frac{1}{2}}"),
        (r"\binom nk", r"\binom{n}{k}"),
        (r"{n \choose k}", r"\binom{n}{k}"),
        (r"3 \over 4", r"\frac{3}{4}"),
        (r"x^{2}", "x^2"),
        (r"x^10", "x^{10}"),
        (r"\textcolor{red}{5}", "5"),
        (r"\phantom{1}5", "5"),
        (r"\left\{x\right.", r"\{x"),
        (r"10{:}30", "10:30"),
        (r"f^{\prime}(x)", "f'(x)"),
        (r"\num{1000}", " 1000 "),
        (r"\operatorname{lcm}(2,3)", r"\lcm (2,3)"),
        (r"1\\[6pt]2", r"1\\2"),
        (r"a\leqslant b", r"a\le b"),
        (r"\unknown{x}", r"\unknown{x}"),
    ],
)
def test_spellings(text: str, spelling: str) -> None:
    assert rewritten(text) == spelling


@pytest.mark.parametrize(
    ("text", "notation"),
    [
        ("$(2,4)$", "(2,4)"),
        ("$1$, $2$", "1 , 2"),
        ("\\$5", "$5"),
        ("\\\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\\\{1\\\\}", "\\{1\\}"),
        ("x⁻¹⁰", "x^{-10}"),
        ("5\\\\", "5"),
        ("42 ∎", "42"),
        ("5:30\\text{ p.m.}", "5:30 pm"),
        ("5!=120", "5! =120"),
        ("\\begin{aligned}x&=2+3\\\\&=5\\end{aligned}", "x =2+3 =5"),
        ("\\begin{cases}x=2\\\\y=3\\end{cases}", "x=2, y=3"),
        ("\\text{all real numbers}", "(-\\infty,\\infty)"),
    ],
)
def test_notations(text: str, notation: str) -> None:
    assert canonical(text) == notation
