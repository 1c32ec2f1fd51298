"""Evaluation: numbers by hand with scripted policies, alone by default."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from eapo_agents.evaluation.evaluator import ProblemResult, Report, evaluate, report_on_results
from eapo_agents.rollouts.rollout import Rollout, TokenLimits
from eapo_agents.testing import ScriptedPolicy
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

PROBLEMS = [Problem(id=f"p{n}", statement=f"problem {n}", answer=str(n)) for n in range(4)]
CONSULT = render_consult(Consult(("?",)))


def report(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier, script: Any, **options: Any
) -> Report:
    rollout = Rollout(
        policy=ScriptedPolicy(tokenizer, script),
        experts=ScriptedExperts(lambda query: query.statement.split()[-1]),
        verifier=verifier,
        prompts=Prompts.terse(),
        limits=TokenLimits(max_response_tokens=60),
    )
    return asyncio.run(evaluate(rollout, options.pop("problems", PROBLEMS), **options))


def test_the_report_by_hand(tokenizer: PreTrainedTokenizerFast, verifier: Verifier) -> None:
    written = {
        "0": ["\\boxed{0}"] * 4,
        "1": ["\\boxed{1}", "\\boxed{1}", "\\boxed{2}", "\\boxed{3}"],
        "2": ["\\boxed{2}", "\\boxed{7}", "\\boxed{7}", "no idea"],
        "3": ["x" * 99, "\\boxed{4}", "\\boxed{4}", "\\boxed{5}"],
    }

    def script(prompt: str, rng: np.random.Generator) -> str:
        return written[re.findall(r"problem (\d)", prompt)[0]].pop(0)

    found = report(tokenizer, verifier, script, samples_per_problem=4)
    assert found.correct_PK == (
        (True, True, True, True),
        (True, True, False, False),
        (True, False, False, False),
        (False, False, False, False),
    )
    assert (found.num_problems, found.samples_per_problem) == (4, 4)
    assert found.problem_ids == ("p0", "p1", "p2", "p3")
    assert found.mean_at_k == 7 / 16
    assert found.variance == pytest.approx((0 + 1 / 4 + 3 / 16 + 0) / 4)
    assert found.pass_at_k == 3 / 4
    assert found.majority_at_k == 2 / 4
    assert (found.call_rate, found.truncation_rate) == (0.0, 1 / 16)
    assert (found.no_answer_rate, found.malformed_rate) == (2 / 16, 1 / 16)
    assert found.response_tokens == (14 * 4 + len("no idea") + 1 + 60) / 16
    low, high = found.interval
    assert 0 <= low < 7 / 16 < high <= 1
    metrics = found.metrics()
    assert metrics["mean_at_k"] == 7 / 16
    assert (metrics["interval_low"], metrics["interval_high"]) == found.interval
    assert all(isinstance(number, int | float) for number in metrics.values())


def test_the_policy_is_alone_by_default(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        reply = re.findall(r"<reply>(\d)</reply>", prompt)
        return f"\\boxed{{{reply[0]}}}" if reply else CONSULT

    alone = report(tokenizer, verifier, script, samples_per_problem=2)
    assert (alone.mean_at_k, alone.call_rate) == (0.0, 0.0)
    helped = report(tokenizer, verifier, script, samples_per_problem=2, rules=Rules(turn_budget=2))
    assert (helped.mean_at_k, helped.call_rate) == (1.0, 1.0)
    assert helped.majority_at_k == 1.0, "the answer counts, whatever came before it"


def test_the_samples_are_independent_and_a_function_of_the_seed(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        gold = re.findall(r"problem (\d)", prompt)[0]
        return f"\\boxed{{{gold if rng.random() < 0.25 else 9}}}"

    first, again, other = (
        report(tokenizer, verifier, script, samples_per_problem=100, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == again
    assert first.correct_PK != other.correct_PK
    assert len(set(first.correct_PK)) == 4, "each problem has its own seeds"
    assert abs(first.mean_at_k - 1 / 4) < 4 * (3 / 16 / 400) ** 0.5


def test_the_numbers_of_one_problem_by_hand() -> None:
    played = replace(result("p", True, False, False), turns=(1, 3, 1), malformed=(0, 2, 0))
    numbers = played.numbers()
    assert numbers == pytest.approx(
        {
            "mean_at_k": 1 / 3,
            "variance": 2 / 9,
            "pass_at_k": 1.0,
            "pass_at_1": 1 / 3,
            "pass_at_2": 2 / 3,
            "pass_at_3": 1.0,
            "majority_at_k": 1 / 2,
            "call_rate": 1 / 3,
            "response_tokens": 2.0,
            "truncation_rate": 2 / 3,
            "no_answer_rate": 1 / 3,
            "malformed_rate": 2 / 5,
            "unanswered_rate": 0.0,
        }
    )


def test_queries_without_an_answer_by_hand() -> None:
    one = replace(result("p", True, False, False), asked=(3, 1, 0), unanswered=(0, 1, 0))
    assert one.numbers()["unanswered_rate"] == 1 / 4


def result(problem_id: str, *correct: bool) -> ProblemResult:
    """Three samples: 1, 2 and 3 tokens long, the first consulted, the others cut off."""
    return ProblemResult(
        problem_id=problem_id,
        correct=correct,
        answers=("3", "4", None),
        response_tokens=(1, 2, 3),
        consulted=(True, False, False),
        truncated=(False, True, True),
    )


def test_an_interval_holds_95_of_100_resamples() -> None:
    """The mean of 8 problems, half of them solved: Binomial(8, 1/2) / 8.

    P(at most 0) is 0.004 and P(at most 1) is 0.035, so that 1/8 is the quantile of 0.025; that of
    0.05 is 2/8.
    """
    right, wrong = result("r", True, True, True), result("w", False, False, False)
    found = report_on_results([right, wrong] * 4)
    assert found.interval == found.intervals["mean_at_k"] == (1 / 8, 7 / 8)
    assert found.intervals["response_tokens"] == (2.0, 2.0)


def test_what_is_done_is_not_played_again_and_new_results_are_passed_on(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    done = [result("p1", True, True, True), result("p3", False, True, False)]
    new: list[ProblemResult] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        assert re.findall(r"problem (\d)", prompt)[0] in "02"
        return "\\boxed{0}"

    options = {"samples_per_problem": 3, "done": done, "on_result": new.append}
    found = report(tokenizer, verifier, script, **options)
    assert found.correct_PK == ((True,) * 3, (True,) * 3, (False,) * 3, (False, True, False))
    assert sorted(one.problem_id for one in new) == ["p0", "p2"]
    assert {one.correct for one in new} == {(True,) * 3, (False,) * 3}


def test_nothing_to_evaluate_is_an_error(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    with pytest.raises(UserError, match="samples_per_problem must be at least 1, not 0"):
        report(tokenizer, verifier, [], samples_per_problem=0)
    with pytest.raises(UserError, match="nothing to evaluate: there is no problem"):
        report(tokenizer, verifier, [], problems=[])


def test_two_problems_with_one_id_are_refused(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    with pytest.raises(UserError, match="1 ids are of several problems each: 'p0'"):
        report(tokenizer, verifier, [], problems=[*PROBLEMS, PROBLEMS[0]])
