"""Evaluations of several sets of problems from Python: with a journal they resume."""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from eapo_agents.evaluation.evaluator import ProblemResult, evaluate
from eapo_agents.evaluation.journal import Evaluation, Journal
from eapo_agents.evaluation.sets import evaluate_sets
from eapo_agents.rollouts.rollout import Rollout
from eapo_agents.testing import ScriptedPolicy
from eapo_env.experts import SilentExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

SETS = {
    name: [Problem(id=f"{name}{n}", statement=f"problem {n}", answer="3") for n in range(4)]
    for name in ("x", "y")
}


class Evaluations:
    """Evaluations on two sets by a policy that guesses, and that may die."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, verifier: Verifier) -> None:
        self.prompts: list[str] = []
        self.dies_at = 0
        rollout = Rollout(
            policy=ScriptedPolicy(tokenizer, self._script),
            experts=SilentExperts(),
            verifier=verifier,
            prompts=Prompts.terse(),
        )
        self._evaluator = partial(evaluate, rollout, samples_per_problem=2, seed=5)
        self.results: list[tuple[str, str]] = []

    def run(self, journal: Journal | None) -> Evaluation:
        self.prompts.clear()
        self.results.clear()
        return asyncio.run(
            evaluate_sets(
                self._evaluator,
                SETS,
                name="alone",
                wrong_replies={"x": 0.25},
                journal=journal,
                on_result=self._on_result,
            )
        )

    def _on_result(self, set_name: str, result: ProblemResult) -> None:
        self.results.append((set_name, result.problem_id))

    def _script(self, prompt: str, rng: np.random.Generator) -> str:
        self.prompts.append(prompt)
        if len(self.prompts) == self.dies_at:
            raise KeyError("the policy dies")
        return f"\\boxed{{{rng.integers(2, 4)}}}"


@pytest.fixture
def evaluations(tokenizer: PreTrainedTokenizerFast, verifier: Verifier) -> Evaluations:
    return Evaluations(tokenizer, verifier)


def test_every_set_gets_its_report_and_on_result_gets_each(evaluations: Evaluations) -> None:
    found = evaluations.run(None)
    assert (found.name, found.wrong_replies) == ("alone", {"x": 0.25})
    assert {name: report.problem_ids for name, report in found.reports.items()} == {
        name: tuple(problem.id for problem in problems) for name, problems in SETS.items()
    }
    assert sorted(evaluations.results) == [(n, p.id) for n, ps in SETS.items() for p in ps]


def test_an_interrupted_evaluation_resumes_to_the_same_result(
    evaluations: Evaluations, tmp_path: Path
) -> None:
    path, subject = tmp_path / "journal", {"model": "guesses", "seed": 5}
    whole = evaluations.run(Journal.open(tmp_path / "whole", subject))
    assert len(evaluations.prompts) == 2 * 4 * 2
    assert whole == evaluations.run(None)
    evaluations.dies_at = 12
    with pytest.raises(KeyError, match="the policy dies"):
        evaluations.run(Journal.open(path, subject))
    kept = set(re.findall(r'"problem_id": "(\w+)"', path.read_text(encoding="utf-8")))
    assert kept >= {problem.id for problem in SETS["x"]}
    evaluations.dies_at = 0
    assert evaluations.run(Journal.open(path, subject)) == whole
    assert {problem for _, problem in evaluations.results} == {
        problem.id for problems in SETS.values() for problem in problems
    } - kept
    assert len(evaluations.prompts) == 2 * (8 - len(kept)) <= 8
    assert evaluations.run(Journal.open(path, subject)) == whole
    assert evaluations.prompts == [], "all of it is in the journal now"


def test_results_of_another_subject_are_refused(evaluations: Evaluations, tmp_path: Path) -> None:
    path = tmp_path / "journal"
    evaluations.run(Journal.open(path, {"seed": 5}))
    assert json.loads(path.read_text(encoding="utf-8").partition("\n")[0]) == {"seed": 5}
    with pytest.raises(UserError, match="results of another model, settings or problems"):
        Journal.open(path, {"seed": 6})
