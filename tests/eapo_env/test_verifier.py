"""Verdicts: graded cases, kinds of right and wrong answers, statuses, threads and event loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings, strategies as st

from eapo_env.verifier import Status, Verdict, Verifier, check_gold, final_answer

DATA = Path(__file__).parent / "data"
SLOW = ("\\boxed{\\frac{\\sqrt{2}}{2}}", "\\frac{1}{\\sqrt{2}}")
MIXED = [
    SLOW,
    ("\\boxed{5}", "5"),
    ("\\boxed{x+1}", "x-1"),
    ("no answer here", "5"),
    ("\\boxed{2^{2^{2}}}", "1"),
    ("\\boxed{2x+3}", "3+2x"),
    ("Answer: 6", "5"),
]
MIXED_STATUSES = [
    Status.CORRECT,
    Status.CORRECT,
    Status.WRONG,
    Status.NO_ANSWER,
    Status.TOO_COMPLEX,
    Status.CORRECT,
    Status.WRONG,
]


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with Verifier() as opened:
        yield opened


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def statuses(verdicts: list[Verdict]) -> list[Status]:
    return [verdict.status for verdict in verdicts]


def test_graded_cases(verifier: Verifier) -> None:
    cases = read("verifier_cases.jsonl")
    bare = [c for c in cases if c["kind"] == "bare"]
    whole = [c for c in cases if c["kind"] == "response"]
    boxed = verifier.verify([(f"So \\boxed{{{c['answer']}}}.", c["gold"]) for c in bare])
    some = bare[::5]
    assert verifier.equivalent([(c["answer"], c["gold"]) for c in some]) == boxed[::5]
    wrong = [c for c, v in zip(bare, boxed, strict=True) if v.correct != c["expected"]]
    verdicts = verifier.verify([(c["answer"], c["gold"]) for c in whole])
    wrong += [c for c, v in zip(whole, verdicts, strict=True) if v.correct != c["expected"]]
    assert wrong == []


REPORTS = read("verifier_reports.jsonl")


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in REPORTS}))
def test_kinds_of_answers_in_public_reports(verifier: Verifier, kind: str) -> None:
    """Each case names the reports (repository and number) after which it was made."""
    cases = [case for case in REPORTS if case["kind"] == kind]
    verdicts = verifier.verify([(case["answer"], case["gold"]) for case in cases])
    assert [c for c, v in zip(cases, verdicts, strict=True) if v.correct != c["expected"]] == []


@pytest.mark.parametrize(
    "text", ["import 2x", "x+f.attribute", "call('x')", "lambda: 1", "\\input{x}", "{{x}}", "__x__"]
)
def test_what_looks_like_a_program_is_refused_unread(verifier: Verifier, text: str) -> None:
    assert statuses(verifier.verify([(f"\\boxed{{{text}}}", "1")])) == [Status.TOO_COMPLEX]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters(), max_size=60), gold=st.text(st.characters(), max_size=20))
@example(text="", gold="\\0")
def test_no_text_raises(verifier: Verifier, text: str, gold: str) -> None:
    for response in (text, f"\\boxed{{{text}}}", f"Answer: {text}"):
        assert isinstance(verifier.verify([(response, gold)])[0], Verdict)


numbers = st.one_of(
    st.integers(-999, 999).map(str),
    st.fractions(max_denominator=99).map(lambda f: f"\\frac{{{f.numerator}}}{{{f.denominator}}}"),
)
expressions = st.recursive(
    st.one_of(numbers.map(lambda n: f"({n})"), st.sampled_from(["x", "y", "\\pi", "\\sqrt{2}"])),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "\\cdot "]), inner).map(
            lambda t: f"({t[0]}{t[1]}{t[2]})"
        ),
        inner.map(lambda e: f"{e}^{{2}}"),
        inner.map(lambda e: f"\\sin({e})"),
    ),
    max_leaves=5,
)


@settings(max_examples=15, deadline=None)
@given(expression=expressions)
def test_an_expression_equals_itself_rewritten(verifier: Verifier, expression: str) -> None:
    pairs = [
        (f"\\boxed{{{expression}}}", expression),
        (f"\\boxed{{0+{expression}}}", expression),
        (f"\\boxed{{{expression}+1}}", expression),
    ]
    verdicts = verifier.verify(pairs)
    assert verdicts[0].correct
    assert [v.correct for v in verdicts[1:]] in ([True, False], [False, False])


def test_statuses_and_order(verifier: Verifier) -> None:
    assert statuses(verifier.verify(MIXED)) == MIXED_STATUSES
    assert [v.correct for v in verifier.verify(MIXED)] == [s == "correct" for s in MIXED_STATUSES]


def test_an_unevaluated_closed_form_is_wrong_for_an_integer(verifier: Verifier) -> None:
    forms = ["2^{10}", "\\sum_{k=1}^{1024} 1", "\\binom{1024}{1}", "2^{10}+0"]
    verdicts = verifier.equivalent([(form, "1024") for form in forms])
    assert statuses(verdicts) == [Status.WRONG] * 4
    assert verifier.equivalent([("1024", "2^{10}")])[0].correct


def test_threads_and_event_loop_agree_with_serial(verifier: Verifier) -> None:
    batches = [MIXED[i:] + MIXED[:i] for i in range(7)] + [MIXED]
    serial = [verifier.verify(batch) for batch in batches]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(verifier.verify, batches)) == serial

    async def gathered() -> list[list[Verdict]]:
        return await asyncio.gather(*map(verifier.averify, batches))

    assert asyncio.run(gathered()) == serial


def test_a_verifier_works_inside_a_running_loop(verifier: Verifier) -> None:
    async def inside() -> list[Verdict]:
        return verifier.verify(MIXED)

    assert statuses(asyncio.run(inside())) == MIXED_STATUSES


@pytest.mark.parametrize(
    "gold", ["204", "007", "\\frac{1}{2}", "x^2+1", "(1,2)", "\\text{Monday}", "B", "2^{2005}"]
)
def test_a_valid_gold_is_accepted_and_equals_itself(verifier: Verifier, gold: str) -> None:
    check_gold(gold)
    assert verifier.verify([(f"\\boxed{{{gold}}}", gold)])[0].correct


@pytest.mark.parametrize("gold", ["", "  ", "$", "\\,", "2^{2^{2}}", "\\frac{1}{2", "x" * 3000])
def test_an_unreadable_gold_is_an_error(gold: str) -> None:
    with pytest.raises(ValueError, match="answer"):
        check_gold(gold)


@pytest.mark.parametrize("name", ["time_limit_s", "memory_limit_bytes", "num_workers"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive, not 0"):
        Verifier(**{name: 0})


PAGE = (Path(__file__).parents[2] / "docs" / "verifier.md").read_text(encoding="utf-8")


def rows_of(heading: str) -> list[list[str]]:
    """Return the cells of the table under a heading, code marks and escapes taken off."""
    section = PAGE.split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| `")]
    return [
        [cell.strip().strip("`").replace("\0", "|") for cell in row.split("|")[1:-1]]
        for row in (line.replace("\\|", "\0") for line in lines)
    ]


def test_the_page_says_what_is_read_as_the_answer() -> None:
    rows = rows_of("What is read as the answer")
    for response, answer in rows:
        read = final_answer(response.replace("⏎", "\n"))
        assert read == (None if answer.startswith("nothing") else answer), response
    assert len(rows) > 10


@pytest.mark.parametrize("heading", ["What is equal", "What is not equal on purpose"])
def test_the_page_says_what_is_equal(verifier: Verifier, heading: str) -> None:
    rows = rows_of(heading)
    verdicts = verifier.verify([(f"\\boxed{{{answer}}}", gold) for answer, gold, _ in rows])
    wrong = [r for r, v in zip(rows, verdicts, strict=True) if v.correct != (r[2] == "equal")]
    assert wrong == []
    assert len(rows) > 5
