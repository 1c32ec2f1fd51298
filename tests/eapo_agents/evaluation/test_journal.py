"""Evaluations of several sets: their file, the journal after a crash, what is refused."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerFast

from eapo_agents.cli.evaluate import EvaluationMethod, problem_sets, show_evaluation
from eapo_agents.evaluation.evaluator import ProblemResult, report_on_results
from eapo_agents.evaluation.journal import Evaluation, Journal, write_evaluation
from eapo_agents.policies.policy import ScriptedPolicy
from eapo_agents.rollouts.rollout import Rollout
from eapo_agents.training.build import evaluate_alone
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.run import Run, read_evaluation
from eapo_agents.training.settings import ProblemSet, ProblemSettings
from eapo_env.experts import SilentExperts
from eapo_env.prompts import Prompts
from eapo_env.verifier import Verifier


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
    write_evaluation(evaluation, tmp_path / "deep" / "result.json")
    assert read_evaluation(tmp_path / "deep" / "result.json") == evaluation


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
        read_evaluation(tmp_path / "result.json")


def test_an_interrupted_evaluation_goes_on_to_the_same_result(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    calls: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        calls.append(prompt)
        if len(calls) == stop_at:
            raise KeyError("the policy dies")
        return f"\\boxed{{{rng.integers(2, 4)}}}"

    held_out = tiny_config.evaluation.problems.source
    config = replace(tiny_config, seed=5)
    sets = problem_sets(config, [held_out, f"again={held_out}"])
    rollout = Rollout(
        policy=ScriptedPolicy(tokenizer, script),
        experts=SilentExperts(),
        verifier=verifier,
        prompts=Prompts.terse(),
    )
    method = EvaluationMethod(name="alone", evaluator=partial(evaluate_alone, config, rollout))
    console = Console(file=StringIO(), width=200)
    stop_at = 0
    whole = show_evaluation(console, config, method, sets, tmp_path / "whole.json")
    assert len(calls) == 2 * 4 * 2
    calls.clear()
    stop_at = 12
    with pytest.raises(KeyError, match="the policy dies"):
        show_evaluation(console, config, method, sets, tmp_path / "result.json")
    assert not (tmp_path / "result.json").exists()
    calls.clear()
    stop_at = 0
    resumed = show_evaluation(console, config, method, sets, tmp_path / "result.json")
    assert resumed == whole
    assert 0 < len(calls) <= 8
    assert {path.name for path in tmp_path.iterdir()} == {"whole.json", "result.json"}
    written = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert list(written["sets"]) == ["held_out", "again"]
    assert 'the paper\'s "Pass@2"' in console.file.getvalue()


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correct_PK": [[True, False], [True]]}, r"correct_PK: problems of \[1, 2\] samples"),
        ({"correct_PK": []}, r"correct_PK: problems of \[\] samples"),
        ({"correct_PK": [[True, 7]]}, r"correct_PK.0.1: .*: 7"),
        ({"correct_PK": [[None]]}, r"correct_PK.0.0: .*: None"),
        ({"problem_ids": ["a"]}, "1 problem_ids for 2 problems"),
    ],
)
def test_verdicts_that_do_not_fit_are_an_error_with_the_file(
    change: dict[str, object], message: str, tiny_config: TrainConfig, tmp_path: Path
) -> None:
    report = asdict(report_on_results([result("a", True, False), result("b", True, True)]))
    path = tmp_path / "result.json"
    path.write_text(json.dumps({"sets": {"x": {**report, **change}}}), encoding="utf-8")
    run = Run.create(tiny_config, tmp_path)
    run.record_evaluation(1, {**report, **change})
    for given, named in ((path, path), (run.folder, run.evaluations[1])):
        with pytest.raises(ValueError, match=f"{named} holds no Report: {message}"):
            read_evaluation(given)


def test_a_named_file_is_laid_out_as_its_source_or_as_any(tmp_path: Path) -> None:
    """AIME 2024 keeps its answers in the column of solutions."""
    path, rest = tmp_path / "rows.jsonl", ProblemSettings()
    row = {"id": "1", "problem": "p", "solution": r"\boxed{7}", "answer": "8"}
    path.write_text(json.dumps(row), encoding="utf-8")
    for text, name, answer in (
        (f"aime-2024={path}", "aime-2024", "7"),
        (f"mine={path}", "mine", "8"),
        (str(path), "rows", "8"),
    ):
        found = ProblemSet.named(text, rest)
        assert (found.name, [one.answer for one in found.problems]) == (name, [answer])


def test_a_runs_newest_evaluation_goes_by_the_run_and_its_problems(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = Run.create(tiny_config, tmp_path)
    with pytest.raises(ValueError, match="tiny-1 has no evaluation yet"):
        read_evaluation(run.folder)
    for step, right in ((9, False), (10, True)):
        run.record_evaluation(step, asdict(report_on_results([result("a", right)])))
    found = read_evaluation(run.folder)
    assert found.name == "tiny-1"
    assert found.reports == {"held_out": report_on_results([result("a", True)])}


def test_two_sets_of_one_name_are_refused(tiny_config: TrainConfig) -> None:
    source = tiny_config.evaluation.problems.source
    with pytest.raises(ValueError, match="two sets of problems are called 'held_out'"):
        problem_sets(tiny_config, [source, source])
