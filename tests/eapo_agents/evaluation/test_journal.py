"""Evaluations of several sets: their file, the journal after a crash, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from eapo_agents.evaluation.evaluator import ProblemResult, report_on_results
from eapo_agents.evaluation.journal import (
    Evaluation,
    Journal,
    evaluation_in,
    write_evaluation,
)


def result(problem_id: str, *correct: bool) -> ProblemResult:
    k = len(correct)
    answers = tuple("3\u2028" if right else None for right in correct)
    return ProblemResult(
        problem_id=problem_id,
        correct=correct,
        answers=answers,
        response_tokens=(5,) * k,
        consulted=(False,) * k,
        truncated=(False,) * k,
    )


def test_a_report_says_pass_at_every_power_of_two_with_intervals() -> None:
    report = report_on_results([result("a", True, False, False), result("b", True, True, True)])
    assert report.pass_at == pytest.approx({1: 4 / 6, 2: (2 / 3 + 1) / 2, 3: 1.0})
    assert report.problem_ids == ("a", "b")
    assert report.intervals["mean_at_k"] == report.interval == pytest.approx((1 / 3, 1.0))
    assert report.intervals["pass_at_3"] == (1.0, 1.0)
    assert report.intervals["response_tokens"] == (5.0, 5.0)


def test_an_evaluation_is_read_as_it_was_written(tmp_path: Path) -> None:
    sets = {
        "x": report_on_results([result("a", True, False)]),
        "y": report_on_results([result("b", True, True), result("c", True, True)]),
    }
    evaluation = Evaluation(name="model", reports=sets, wrong_replies={"x": 0.25})
    assert evaluation.average() == (0.75, (0.75, 0.75))
    path = tmp_path / "deep" / "result.json"
    write_evaluation(evaluation, str(path))
    assert evaluation_in(path) == evaluation_in(str(path)) == evaluation


def test_a_journal_goes_on_where_it_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.open(path, {"seed": 1})
    journal.append("x", result("a", True))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"set": "x", "res')
    again = Journal.open(path, {"seed": 1})
    assert again.results == {"x": [result("a", True)]}
    again.append("y", result("b", False))
    assert Journal.open(path, {"seed": 1}).results["y"] == [result("b", False)]
    with pytest.raises(ValueError, match="journal holds results of another model"):
        Journal.open(path, {"seed": 2})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "holds no evaluation"),
        ('{"sets": {"x": {"mean_at_k": 1}}}', "holds no Report"),
    ],
)
def test_a_file_without_an_evaluation_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        evaluation_in(tmp_path / "result.json")


def test_the_average_has_the_interval_of_problems_within_sets() -> None:
    """A set that cannot vary and one of 8 problems, half right: half of (1/8, 7/8), plus 1/2."""
    varied = [result("r", True), result("w", False)] * 4
    sets = {"fixed": report_on_results([result("a", True)]), "x": report_on_results(varied)}
    mean, interval = Evaluation(name="model", reports=sets).average()
    assert (mean, interval) == (0.75, (1 / 2 + 1 / 16, 1 / 2 + 7 / 16))


def test_a_broken_line_before_the_last_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal.open(path, {"seed": 1}).append("x", result("a", True))
    first, second = path.read_text(encoding="utf-8").splitlines()
    path.write_text(f"{first}\n{second[:9]}\n{second}\n", encoding="utf-8")
    with pytest.raises(ValueError, match="journal, line 2 is not JSON"):
        Journal.open(path, {"seed": 1})


@pytest.mark.parametrize("line", ["5", "[]", "{}", '{"set": "x"}', '{"set": "x", "result": {}}'])
def test_a_line_that_is_no_result_is_an_error(line: str, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    path.write_text(f'{{"seed": 1}}\n{line}\n', encoding="utf-8")
    with pytest.raises(ValueError, match=f"{path}, line 2 holds no Result: "):
        Journal.open(path, {"seed": 1})
