"""Extraction: which answer a text commits to."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import example, given, strategies as st

from eapo_env.answers import TAIL_CHARS, closing_claim, extract_answer

any_text = st.text(st.characters(), max_size=300)
PIECES = r"\boxed{ \fbox{ { } \{ \} \\ $ Answer: <think> </think> 42 ** and , \boxed \[ ####"
pieces = st.lists(
    st.sampled_from([*PIECES.split(), "\n", "answer is ", "\x00", "\ud800", " "]), max_size=40
).map("".join)
balanced = st.recursive(
    st.text("abc0123 +-=.,", min_size=1, max_size=8),
    lambda inner: st.lists(inner, min_size=1, max_size=3).map(lambda xs: "{" + "".join(xs) + "}"),
    max_leaves=8,
)


@given(any_text | pieces)
@example("0$ $")
def test_every_text_has_an_answer_or_none(text: str) -> None:
    for read in (extract_answer, closing_claim):
        answer = read(text)
        assert answer is None or (isinstance(answer, str) and answer)


@given(before=st.text("abc {}$\n.", max_size=50), answer=balanced)
def test_a_box_gives_its_content_whatever_braces_it_holds(before: str, answer: str) -> None:
    body = "x" + answer + "y"
    assert extract_answer(f"{before}\n\\boxed{{{body}}} done.") == body


@given(reasoning=any_text | pieces, answer=st.integers())
def test_only_what_follows_the_reasoning_counts(reasoning: str, answer: int) -> None:
    text = reasoning.replace("<think>", "")
    assert extract_answer(f"{text}</think>So \\boxed{{{answer}}}.") == str(answer)
    assert extract_answer(f"<think>\\boxed{{{answer}}}{text.replace('</think>', '')}") is None
    assert extract_answer(f"{text}</think>So\n#### {answer}") == str(answer)
    assert extract_answer(f"<think>{text.replace('</think>', '')}\n#### {answer}") is None


@given(before=any_text | pieces, answer=st.fractions())
def test_a_last_line_that_is_marked_is_the_answer_even_behind_a_box(
    before: str, answer: Fraction
) -> None:
    text = re.sub("boxed|fbox|<think>", "", before)
    assert extract_answer(f"{text}\n#### {answer}") == str(answer)
    assert extract_answer(f"{text}\n\\boxed{{7}}\n#### {answer}") == str(answer)


@given(answer=st.integers(), after=st.text("xyz .\n"))
def test_text_after_a_mark_does_not_hide_its_value(answer: int, after: str) -> None:
    assert extract_answer(f"We add.\n#### {answer}\nx {after}") == str(answer)


@given(
    words=st.lists(st.sampled_from(["Step", "Case", "Solution"]), min_size=1), n=st.integers(1, 9)
)
def test_a_heading_in_words_is_no_value(words: list[str], n: int) -> None:
    assert extract_answer(f"#### {' '.join(words)} {n}\nWe go on.") is None


@given(text=any_text | pieces, answer=st.integers(), cut=st.integers(0, 3))
def test_a_last_box_that_is_cut_off_leaves_no_answer(text: str, answer: int, cut: int) -> None:
    """Not even an earlier box counts (marin-community/marin#9163)."""
    unfinished = f"\\boxed{{{answer}"[: len("\\boxed{") + cut]
    response = re.sub("<answer>|<think>", "", f"{text}\\boxed{{{answer}}} {unfinished}")
    assert extract_answer(response) is None
    assert closing_claim(response) is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"first \boxed{1}, then \boxed{2}", "2"),
        (r"\boxed{1} and \boxed{2}", "1, 2"),
        (r"$\boxed{(1, 2)}$, $\boxed{(3, 4)}$", "(1, 2), (3, 4)"),
        (r"\boxed{5}. Again: \boxed{5}", "5"),
        (r"$x = \boxed{2}$ and $y = \boxed{3}$", "x=2, y=3"),
        (r"$x = \boxed{2}$, $x + y = \boxed{5}$", "5"),
        ("(a) \\boxed{2}\n(b) \\boxed{3}", "2, 3"),
        (r"\boxed{1}，\boxed{2}", "1, 2"),
        (r"\boxed{1{,}000}, \boxed{2}", "1000, 2"),
        (r"\boxed{5} (I used \boxed{} as asked)", "5"),
        ("Mark it with \\boxed\n\nFinal answer: 5", "5"),
        ("We use \\boxed{E=mc^2}.\n\nAnswer: B", "B"),
        ("\\boxed{5}\n\nAnswer: see above", "5"),
        ("Answer: \\boxed{7}\nAnswer: 8", "8"),
        (r"\framebox{7}", "7"),
        ("<think>x</think><answer> 7 </answer>", "7"),
        ("<answer>The answer is $7$.</answer>", "7"),
        ("<answer>x = 7", "7"),
        ("<answer>\\boxed{7}</answer></s>", "7"),
        ("Answer: 7</s>", "7"),
        ("The answer is $7$.<end_of_turn>", "7"),
        ("The answer is 7<｜end▁of▁sentence｜>", "7"),
        ("🎯 **Final answer:** 7", "7"),
        ("3. **Answer:** 7", "7"),
        ("Answer: The value is 7.", "7"),
        ("Answer: There are 7 ways.", "7"),
        ("Answer: 7, as required.", "7"),
        ("Answer:\n```\n7\n```", "7"),
        ("Answer: 7 ∎", "7"),
        ("So, answer: 7", "7"),
        ("Ans: 7", "7"),
        ("We add. Final Answer: The sum of $x$ is 7.", "7"),
        ("The answer is 7, which is odd.", "7"),
        ("答案：7", "7"),
        ("所以答案是 7。", "7"),
        (r"\boxed{\boxed{204}}", "204"),
        (r"\boxed{x + \boxed{3}}", "x + {3}"),
        (r"\fbox{7}", "7"),
        (r"\boxed 204.", "204"),
        (r"\boxed {8}", "8"),
        (r"\boxed{\{1,2\}}", r"\{1,2\}"),
        (r"\boxed{$5$}", "5"),
        (r"First \boxed{42}. Then \boxed{4", None),
        (r"\boxedx{4}", None),
        (r"\boxed{}", None),
        ("Answer: 33\n\nWait.\n\nAnswer: **34**.", "34"),
        ("**Final Answer:** $\\frac{1}{2}$", r"\frac{1}{2}"),
        ("Answer $$ \n 9 \n $$", "9"),
        ("### Final answer\n\n17", "17"),
        ("2 + 2 = 4\n#### 1,234", "1,234"),
        ("#### 1/2\n", "1/2"),
        ("  ####$x$  \r\n", "x"),
        ("#### **7**.<|im_end|>", "7"),
        ("#### 6\nNo.\n#### 7", "7"),
        ("Answer: 6\n#### 7", "7"),
        ("#### Answer: 7", "7"),
        ("#### Final answer\n\n17", "17"),
        ("Answer: 7\n#### Step 2\nSo be it.", "7"),
        ("Answer: 7\n####", "7"),
        ("a\n#### 7\n\nQuestion: next?\n#### 8", "7"),
        ("#### 2. Compute\nWe go on.", None),
        ("First \\boxed{42}. Then \\boxed{4\n#### 7", None),
        ("#### 7\nI am not sure.", "7"),
        ("##### 7", None),
        ("### 7", None),
        ("So #### 7", None),
        ("####", None),
        ("answer: 5\n<|im_end|>", "5"),
        ("The final answer is 12,000. I hope it is correct.", "12,000"),
        ("The answer is $x+1$.", "x+1"),
        ("The answer is (C)", "(C)"),
        ("The answer is 42 because it is.", "42"),
        ("The answer is 42. But let me check.", None),
        ("The answer is 42 or 43.", None),
        ("The answer is not 42.", None),
        ("We have 3 apples and 4 pears, 7 in all.", None),
        ("<query>What is 2+2?</query>", None),
        (r"\boxed{7}" + " " * TAIL_CHARS, None),
        ("", None),
    ],
)
def test_extraction(text: str, answer: str | None) -> None:
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "claim"),
    [
        ("So the length is 5.", "5"),
        ("So the order costs $31.00.", "$31.00"),
        ("The total is 72 clips, altogether.", "72"),
        ("The number of ways is therefore 12.", "12"),
        ("There are 12 ways to do that.", "12"),
        ("The pair $(x, y)$ is $(7, 6)$.", "(7, 6)"),
        ("Thus $x < 3$ is the solution.", "x < 3"),
        ("We find that $x < 3$.", "x < 3"),
        ("First compute 6*7.\n42", "42"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        ("It may be 5.", None),
        ("It is 5 or 6", None),
        ("Either $x=1$ or $x=2$.", None),
        ("Is it 5?", None),
    ],
)
def test_a_closing_claim_is_read_from_the_last_sentence(text: str, claim: str | None) -> None:
    assert extract_answer(text) is None
    assert closing_claim(text) == claim
