"""What a closing sentence claims, and what it only mentions."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from eapo_env.sentences import HEDGE, sentence_claim

CLAIMS = [
    "Thus $n={}$.",
    "Therefore, we get $n={}$.",
    "It follows that $n={}$.",
    "Since $x=1$, we have $y=2$, which implies that $n={}$.",
    "Substituting $x=1$ yields $n={}$.",
]
MENTIONS = [
    "It fails for $n={}$.",
    "It breaks for $n={}$.",
    "This holds for $n={}$.",
    "We are given that $n={}$.",
    "We know that $n={}$.",
    "Recall that $n={}$.",
    "Consider $n={}$.",
    "For example $n={}$.",
    "The minimum occurs at $n={}$.",
    "By hypothesis $n={}$.",
    "So $x=1$ and $n={}$.",
]
NUMBERS = [
    "The total is {}.",
    "The total is {} clips, altogether.",
    "So it takes {} minutes.",
    "She makes **{}** every day at the market.",
    "She has ${} left for the rest of the week.",
    "There are {} ways to do that.",
]
NO_NUMBERS = [
    "The lower bound is {}.",
    "A first estimate is {}.",
    "He gets {}k.",
    "There are {} fewer apples.",
    "She has {} apples fewer than Bob.",
    "She has ${} less than Bob.",
    "It would take {} minutes.",
    "The first root is 2 and the second root is {}.",
]
values = st.integers(0, 999)


@given(values)
def test_a_formula_counts_if_the_sentence_states_it(n: int) -> None:
    for sentence in CLAIMS:
        assert sentence_claim(sentence.format(n), HEDGE) == f"n={n}"
    for sentence in MENTIONS:
        assert sentence_claim(sentence.format(n), HEDGE) is None


@given(values)
def test_a_number_counts_if_the_sentence_ends_with_it(n: int) -> None:
    for sentence in NUMBERS:
        claim = sentence_claim(sentence.format(n), HEDGE)
        assert claim is not None
        assert claim.lstrip("$") == str(n)
    for sentence in NO_NUMBERS:
        assert sentence_claim(sentence.format(n), HEDGE) is None


@pytest.mark.parametrize(
    ("sentence", "claim"),
    [
        ("So he earns $3 million.", "$3 million"),
        ("So it is **5 million** dollars.", "5 million"),
        ("She needs 5 thirds.", "5 thirds"),
        ("It is 5%.", "5%"),
        ("It is 5kg.", "5"),
        ("So option B is correct.", "B"),
        ("The wrong option is B.", None),
    ],
)
def test_closing_sentences(sentence: str, claim: str | None) -> None:
    assert sentence_claim(sentence, HEDGE) == claim
