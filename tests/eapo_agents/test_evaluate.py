"""Evaluation: numbers by hand with scripted policies, alone unless told otherwise."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from eapo_agents.evaluate import Report, evaluate
from eapo_agents.policy import ScriptedPolicy
from eapo_agents.rollout import Rollout, TokenLimits
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
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
    return asyncio.run(evaluate(rollout, PROBLEMS, **options))


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
    assert found.mean_at_k == 7 / 16
    assert found.variance == pytest.approx((0 + 1 / 4 + 3 / 16 + 0) / 4)
    assert found.pass_at_k == 3 / 4
    assert found.majority_at_k == 2 / 4
    assert (found.call_rate, found.truncation_rate) == (0.0, 1 / 16)
    assert found.response_tokens == (14 * 4 + len("no idea") + 1 + 60) / 16
    low, high = found.interval
    assert 0 <= low < 7 / 16 < high <= 1
    metrics = found.metrics()
    assert metrics["mean_at_k"] == 7 / 16
    assert (metrics["interval_low"], metrics["interval_high"]) == found.interval
    assert all(isinstance(number, int | float) for number in metrics.values())


def test_the_policy_is_alone_unless_told_otherwise(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        reply = re.findall(r"<reply>(\d)</reply>", prompt)
        return f"\\boxed{{{reply[0]}}}" if reply else CONSULT

    alone = report(tokenizer, verifier, script, samples_per_problem=2)
    assert (alone.mean_at_k, alone.call_rate) == (0.0, 0.0)
    helped = report(tokenizer, verifier, script, samples_per_problem=2, rules=Rules(turn_budget=2))
    assert (helped.mean_at_k, helped.call_rate) == (1.0, 1.0)


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
    assert len(set(first.correct_PK)) == 4, "each problem has luck of its own"
    assert abs(first.mean_at_k - 1 / 4) < 4 * (3 / 16 / 400) ** 0.5


def test_nothing_to_evaluate_is_an_error(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    with pytest.raises(ValueError, match="4 problems, 0 samples each"):
        report(tokenizer, verifier, [], samples_per_problem=0)
