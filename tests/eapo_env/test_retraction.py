"""Answers that a response denies, supposes or takes back, and chatter that changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from eapo_env.answers import closing_claim, extract_answer, solution_answer

BEFORE = [
    "It is not {}.",
    "The answer is definitely not {}.",
    "The answer isn't {}.",
    "It cannot be {}.",
    "If the answer is {}, we are done.",
    "Unless the answer is {}.",
    "Suppose the answer is {}.",
    "Bob says the answer is {}.",
    "He claims that it is {}.",
    "Bob thought the answer is {}.",
    "I doubt that the answer is {}.",
    "The naive answer is {}.",
    "A common wrong answer is {}.",
    "Instead of {} we get more.",
]
BEHIND = [
    "{} is wrong.",
    "{} isn't right.",
    "{} does not work.",
    "{}? No.",
    "{}, which is impossible.",
    "{}. That is not possible.",
    "{}. This does not hold.",
    "I said it is not {}.",
    "Bob said it is {}.",
    "{} (wrong)",
    "{} was my guess, but it is wrong.",
    "{}. This is incorrect.",
    "{}. Wait, that's not right.",
    "{}\n\nHowever, this does not satisfy the equation.",
    "{}. Sorry, I made a mistake.",
    "{}. I was wrong.",
    "{}. Scratch that.",
    "{}. Wait, 1000.",
    "{}. It should be 1000.",
    "{}, no wait.",
]
CHATTER = [
    "Since x is not 3, the answer is {}.",
    "The probability that he does not win is {}.",
    "The number of incorrect answers is {}.",
    "If x is odd, then the answer is {}.",
    "There is no other solution, so {}.",
    "I think the answer is {}.",
    "As we said, {}.",
    "As claimed, the answer is {}.",
    "After some thought, the answer is {}.",
    "On second thought the answer is {}.",
    "half a thought {}",
    "{}. Let me double check: 1 + 1 = 2. Yes.",
    "{}. This is correct.",
    "{}. That was not easy.",
    "{}. (4 is wrong since it is even.)",
    "{}, which is not a square.",
    "{}. Is there anything else?",
    "The maximum is {}. It is impossible to do better.",
    "{}.\n\nIt is not possible with 3 colours.",
    "{}. This is not possible for n = 8.",
    "{}. It does not work for any smaller n.",
    "{}. It is not right-angled at B.",
    "{}, which is impossible to simplify further.",
    "The statement that is not true is {}.",
    "The one that is not correct is {}.",
    "The number Bob said is {}.",
    "{} is the answer.",
    "{}\n\nQuestion: What is 1 + 1?\nThat is wrong.",
]
boxes = st.integers(0, 999).map(lambda n: f"\\boxed{{{n}}}")
dollars = st.sampled_from(["{}", "${}$", "\\({}\\)", "**{}**"])


@given(st.sampled_from(BEFORE + BEHIND), boxes, dollars)
def test_a_box_that_is_denied_is_no_answer(sentence: str, box: str, around: str) -> None:
    response = sentence.format(around.format(box))
    assert extract_answer(response) is None
    assert closing_claim(response) is None


@given(st.sampled_from(CHATTER), st.integers(0, 999), dollars)
def test_chatter_changes_nothing(sentence: str, n: int, around: str) -> None:
    assert extract_answer(sentence.format(around.format(f"\\boxed{{{n}}}"))) == str(n)


@given(st.sampled_from(BEFORE + BEHIND), boxes, st.integers(0, 999))
def test_an_answer_behind_a_denied_one_counts(sentence: str, box: str, n: int) -> None:
    assert extract_answer(f"{sentence.format(box)} So \\boxed{{{n}}}.") == str(n)


@given(
    st.sampled_from(["\\boxed{{{}}}", "Answer: {}", "#### {}", "Answer: \\boxed{{{}}}"]),
    st.sampled_from(["\\boxed{{{}}}", "Answer: {}", "#### {}", "The answer is {}."]),
    st.integers(0, 999),
    st.integers(0, 999),
)
def test_the_last_statement_counts(first: str, last: str, one: int, other: int) -> None:
    assert extract_answer(f"{first.format(one)}\nDone.\n{last.format(other)}") == str(other)


@pytest.mark.parametrize("mark", ["Answer: 5\n", "#### 5\n", "<answer>5</answer>\n"])
@pytest.mark.parametrize(
    ("behind", "stands"),
    [("That is wrong.", False), ("No, it is 6.", False), ("I was wrong, sorry.", False),
     ("Hope this helps!", True), ("Actually, this is easy to see.", True), ("2+3=5.", True)],
)  # fmt: skip
def test_other_marks_are_taken_back_alike(mark: str, behind: str, stands: bool) -> None:
    assert extract_answer(mark + behind) == ("5" if stands else None)


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        ("\\boxed{5}. Wait, the answer is 6.", "6"),
        ("\\boxed{5}. Let me redo this. The answer is 6, because 2*3=6.", "6"),
        ("The answer is \\boxed{6}, not \\boxed{5}.", "6"),
        ("The answer is not \\boxed{5} but \\boxed{6}.", "6"),
        ("\\boxed{5}. The answer is not 6.", "5"),
        ("\\boxed{5}. If the answer is 6, then x is 7.", "5"),
        ("\\boxed{5}. Answer: see above.", "5"),
    ],
)
def test_statements_behind_a_box(response: str, answer: str) -> None:
    assert extract_answer(response) == answer


@given(st.sampled_from(BEFORE + BEHIND), st.integers(0, 999))
def test_a_trusted_solution_takes_nothing_back(sentence: str, n: int) -> None:
    assert solution_answer(sentence.format(f"\\boxed{{{n}}}")) == str(n)
