"""The action grammar: total on any text, and rendering is its inverse."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from eapo_env.actions import (
    Answer,
    Consult,
    Malformed,
    end_of_turn,
    parse_action,
    render_consult,
)
from eapo_env.answers import extract_answer

FRAGMENTS = st.sampled_from(
    [
        *("<consult>", "</consult>", "<query>", "</query>", "<think>", "</think>", "<reply>"),
        *("<CONSULT>", "< consult>", "<consult", "consult>", "</query", "<query/>", "\n", " "),
        *(r"\boxed{", r"\boxed{204}", r"\boxed{\frac{1}{2}}", r"\fbox{", "}", "{", "$x^2$", "\\"),
        *(
            "Answer: 7",
            "\n#### 7",
            "the answer is 12.",
            "∑ √2 ≤ ∞",
            "角",
            "\0",
            "\ud800",
            "{0}",
            "%s",
            "\r\n",
        ),
    ]
)
COMPLETIONS = st.lists(FRAGMENTS | st.text(max_size=8), max_size=14).map("".join)
QUERIES = (
    COMPLETIONS.map(str.strip)
    .filter(bool)
    .filter(lambda text: "</query>" not in text and "</consult>" not in text)
)


@given(COMPLETIONS, st.booleans())
@example("", True)
@example("<consult>", True)
@example("<consult></consult>", True)
@example("</consult><consult>", True)
def test_parsing_is_total(completion: str, experts: bool) -> None:
    match parse_action(completion, experts=experts):
        case Consult(queries):
            assert experts
            assert queries
            assert all(query and query == query.strip() for query in queries)
        case Answer(text):
            assert text
        case Malformed(reason):
            assert reason


@given(st.lists(QUERIES, min_size=1, max_size=5), COMPLETIONS, COMPLETIONS)
def test_rendering_is_the_inverse_of_parsing(queries: list[str], before: str, after: str) -> None:
    action = Consult(tuple(queries))
    assert parse_action(render_consult(action)) == action
    if "<consult>" not in before:
        assert parse_action(before + render_consult(action) + after) == action


@given(COMPLETIONS)
def test_alone_tags_are_mere_text(completion: str) -> None:
    answer = extract_answer(completion)
    expected = Malformed("no answer and no consult block") if answer is None else Answer(answer)
    assert parse_action(completion, experts=False) == expected


@given(COMPLETIONS)
def test_the_end_of_a_turn_keeps_the_action(completion: str) -> None:
    kept = end_of_turn(completion)
    assert completion.startswith(kept)
    assert end_of_turn(kept) == kept
    assert parse_action(kept) == parse_action(completion)


@pytest.mark.parametrize(
    ("completion", "action"),
    [
        ("<consult><query> a </query><query>b</query></consult>", Consult(("a", "b"))),
        ("<consult><query>\n</query><query>b</query></consult>", Consult(("b",))),
        ("<consult><query>a</query></consult> \\boxed{3}", Consult(("a",))),
        ("\\boxed{3} <consult><query>a</query></consult>", Consult(("a",))),
        (
            "<consult><query>a</query></consult><consult><query>b</query></consult>",
            Consult(("a",)),
        ),
        ("<consult><query>a<query>b</query></consult>", Consult(("a<query>b",))),
        ("<consult>no query</consult> \\boxed{3}", Malformed("a consult block without a query")),
        ("<consult><query>a</consult>", Malformed("a consult block without a query")),
        ("\\boxed{3} <consult><query>a</query>", Malformed("a consult block is not closed")),
        ("<think>or <consult>?</think> \\boxed{3}", Answer("3")),
        ("</consult> \\boxed{3}", Answer("3")),
        ("<CONSULT><query>a</query></CONSULT> \\boxed{3}", Answer("3")),
        ("\\boxed{\\frac{1}{2}}", Answer("\\frac{1}{2}")),
        ("so it is\nAnswer: 12", Answer("12")),
        ("so it is\n#### 1/2", Answer("1/2")),
        ("<think>or 4?</think>\n#### 3", Answer("3")),
        ("<think>\n#### 3\n</think>", Malformed("no answer and no consult block")),
        ("#### 3\n<consult><query>a</query></consult>", Consult(("a",))),
        ("<consult><query>a</query></consult>\n#### 3", Consult(("a",))),
        ("<consult><query>a</query>\n#### 3", Malformed("a consult block is not closed")),
        ("#### Step 1\nLet me think.", Malformed("no answer and no consult block")),
        ("\\boxed{3} and then \\boxed{4", Malformed("no answer and no consult block")),
        ("I am not sure.", Malformed("no answer and no consult block")),
        ("", Malformed("no answer and no consult block")),
    ],
)
def test_what_a_completion_does(completion: str, action: object) -> None:
    assert parse_action(completion) == action


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "completion",
    [
        "<consult>" + "<query>" * 1_000_000 + "</consult>",
        "<consult>" + "<query></query" * 700_000 + "</consult>",
        "<consult>" * 1_000_000,
        "</think><consult>" * 600_000,
        r"\boxed{" * 1_500_000,
        " " * 10_000_000,
        "#### \n" * 1_600_000,
    ],
    ids=["queries", "half-closed", "blocks", "thoughts", "boxes", "spaces", "marks"],
)
def test_ten_megabytes_take_no_quadratic_time(completion: str) -> None:
    assert isinstance(parse_action(completion), Malformed)
    assert completion.startswith(end_of_turn(completion))
