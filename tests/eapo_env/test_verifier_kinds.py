"""Wrong answers of whole kinds: each test states a rule and generates answers that would break it.

The numbers in the docstrings are public reports after which the kind was found.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, assume, given, settings, strategies as st

from eapo_env.verifier import Verifier

LETTERS = sorted(set(string.ascii_letters) - set("eiEl"))
"""Variables: not e and i, not E behind digits (`2E+7`), and not l, for `ln` is a function."""
OPTIONS = "ABCDEFGHIJ"

few = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
letters = st.sampled_from(LETTERS)
monomials = st.lists(letters, min_size=0, max_size=3).map(lambda names: "".join(sorted(names)))
polynomials = st.dictionaries(monomials, st.integers(1, 9), min_size=1, max_size=3)
options = st.lists(st.sampled_from(OPTIONS), min_size=2, max_size=5, unique=True)


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as opened:
        yield opened


def correct(verifier: Verifier, answer: str, gold: str) -> bool:
    return verifier.verify([(f"So it is \\boxed{{{answer}}}.", gold)])[0].correct


def written(polynomial: dict[str, int], *, reverse: bool = False) -> str:
    """Return a polynomial in LaTeX; the order of its terms and letters has no meaning."""
    terms = []
    for names, factor in sorted(polynomial.items(), reverse=reverse):
        powers = sorted(Counter(names).items(), reverse=reverse)
        product = "".join(name if n == 1 else f"{name}^{{{n}}}" for name, n in powers)
        terms.append(f"{factor}{product}")
    return "+".join(terms)


@few
@given(polynomials, polynomials)
def test_two_different_polynomials_are_never_equal(
    verifier: Verifier, one: dict[str, int], other: dict[str, int]
) -> None:
    """A letter is a variable, its case counts, and none is dropped as a unit or a word."""
    assert correct(verifier, written(one), written(other)) is (one == other)
    assert correct(verifier, written(one), written(one, reverse=True))


@few
@given(polynomials, letters)
def test_a_factor_at_the_end_is_never_dropped(
    verifier: Verifier, polynomial: dict[str, int], letter: str
) -> None:
    """`\\pi r^2` is not `\\pi r^2 h`, with a space before the letter or without."""
    text = f"({written(polynomial)})"
    for space in ("", " "):
        assert not correct(verifier, text, f"{text}{space}{letter}")
        assert not correct(verifier, f"{text}{space}{letter}", text)


@few
@given(letters)
def test_upper_and_lower_case_are_two_variables(verifier: Verifier, letter: str) -> None:
    assume(letter.swapcase() in LETTERS)
    other = letter.swapcase()
    assert not correct(verifier, "0", f"{letter}-{other}")
    assert not correct(verifier, "1", f"\\frac{{{letter}}}{{{other}}}")
    assert not correct(verifier, f"2{letter}", f"{letter}+{other}")


@few
@given(options, st.sampled_from(["{}", "({})", "{})", "{}."]), st.sampled_from(
    [" ", ", ", " and ", " or ", "; ", "/"]), st.data())  # fmt: skip
def test_an_answer_that_names_several_options_equals_none(
    verifier: Verifier, named: list[str], label: str, joiner: str, data: st.DataObject
) -> None:
    """The opposite of NVIDIA-NeMo/Gym#1844, where one label comes with its text."""
    answer = joiner.join(label.format(option) for option in named)
    gold = data.draw(st.sampled_from(named))
    assert not correct(verifier, answer, gold)
    assert not correct(verifier, f"\\text{{{answer}}}", f"({gold})")
    assert correct(verifier, label.format(gold), gold)
    assert correct(verifier, f"({gold})\\ 5", gold)


@few
@given(letters, st.integers(1, 3))
def test_a_prime_makes_another_name(verifier: Verifier, letter: str, primes: int) -> None:
    marks = "'" * primes
    for form in ("{}", "2{}", "{}(x)", "{}+1", "{}(x)=3x"):
        assert not correct(verifier, form.format(letter + marks), form.format(letter))
        assert not correct(verifier, form.format(letter), form.format(letter + marks))


@few
@given(st.integers(-1000, 1000).filter(bool))
def test_expressions_that_agree_on_one_side_of_a_kink_are_not_equal(
    verifier: Verifier, kink: int
) -> None:
    """Wherever the kink is: `|x-5|` is neither `x-5` nor `5-x`."""
    minus, plus = f"x-({kink})", f"({kink})-x"
    for same in (f"|{minus}|", f"\\sqrt{{({minus})^2}}", f"|{plus}|"):
        assert not correct(verifier, same, minus)
        assert not correct(verifier, same, plus)
        assert correct(verifier, same, f"\\sqrt{{({plus})^2}}")
    assert not correct(verifier, f"\\max(x,{kink})", "x")
    assert not correct(verifier, f"\\min(x,{kink})", "x")


@few
@given(letters | st.sampled_from(["\\pi", "\\theta", "x_1", "f(2)"]), st.integers(1, 10**6))
def test_an_approximate_value_is_no_claim(verifier: Verifier, name: str, value: int) -> None:
    for sign in ("\\approx", "≈", "\\approx "):
        assert not correct(verifier, f"{name}{sign}{value}", str(value))
        assert not correct(verifier, f"{sign}{value}", str(value))


@few
@given(st.integers(2, 99), st.integers(2, 99))
def test_an_exact_value_counts_with_its_approximation(
    verifier: Verifier, factor: int, root: int
) -> None:
    assume(int(root**0.5) ** 2 != root)
    exact = f"{factor}\\sqrt{{{root}}}"
    about = f"{factor * root**0.5:.2f}"
    assert correct(verifier, f"x={exact}\\approx {about}", exact)
    assert not correct(verifier, f"x={exact}\\approx {about}", f"{factor + 1}\\sqrt{{{root}}}")


@few
@given(st.lists(st.integers(1, 99), min_size=2, max_size=4, unique=True))
def test_boxes_with_labels_are_a_list(verifier: Verifier, values: list[int]) -> None:
    """scitix/sieval#68, EleutherAI/lm-evaluation-harness#3644."""
    names = LETTERS[: len(values)]
    pairs = list(zip(names, values, strict=True))
    response = ", ".join(f"${name} = \\boxed{{{value}}}$" for name, value in pairs)
    gold = ", ".join(f"{name}={value}" for name, value in pairs)
    swapped = ", ".join(f"{name}={value}" for name, value in zip(names, values[::-1], strict=True))
    assert verifier.verify([(response, gold)])[0].correct
    assert verifier.verify([(response, swapped)])[0].correct is (values == values[::-1])
    for value in values:
        assert not verifier.verify([(response, str(value))])[0].correct
