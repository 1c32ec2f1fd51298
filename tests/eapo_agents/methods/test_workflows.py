"""Offline workflows: whom the policy meets under each condition."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, strategies as st
from transformers import PreTrainedTokenizerFast

from eapo_agents.evaluation.evaluator import Report
from eapo_agents.methods.solutions import Solution
from eapo_agents.methods.workflows import (
    Condition,
    Replicas,
    Workflow,
    draw_solutions,
    error_rate,
    usual_replies,
)
from eapo_agents.policies.chat_model import ChatTurn, PolicyChat
from eapo_agents.policies.policy import Sampling
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import embedded, r1_distill_qwen_7b
from eapo_env.prompts import Prompts
from eapo_env.types import ExpertReply, Message, Problem, Query, Reply, Unavailable

PROBLEMS = [Problem(id=f"p{n}", statement=f"statement {n}", answer="3") for n in range(3)]
CONFIG = with_settings(embedded(), ["evaluation.samples_per_problem=2"])


def solutions(num_right: int, num_wrong: int, whose: str = "p") -> list[Solution]:
    texts = ["\\boxed{3}"] * num_right + [f"\\boxed{{{10 + n}}}" for n in range(num_wrong)]
    return [
        Solution(
            problem=whose,
            sample=sample,
            expert="expert",
            text=text,
            status="correct" if sample < num_right else "wrong",
        )
        for sample, text in enumerate(texts)
    ]


RECORDED = {problem.id: solutions(4, 4, problem.id) for problem in PROBLEMS}


def played(
    tokenizer: PreTrainedTokenizerFast,
    condition: Condition,
    script: Callable[[str, np.random.Generator], str],
    workflow: Workflow | None = None,
    config: TrainConfig = CONFIG,
) -> Report:
    workflow = workflow or Workflow(solutions=RECORDED)
    model = PolicyChat(ScriptedPolicy(tokenizer, script))
    return asyncio.run(workflow.evaluate(config, model, condition, PROBLEMS))


def replies(prompt: str) -> list[str]:
    return [part.partition("</reply>")[0] for part in prompt.split("<reply>")[1:]]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("alone", []),
        ("self", ["7", "7", "7"]),
        ("meaningless", ["There is nothing I can tell you"] * 3),
    ],
)
def test_what_the_policy_reads(
    tokenizer: PreTrainedTokenizerFast, condition: Condition, expected: list[str]
) -> None:
    """A policy that answers 7 alone, and 3 once it has read replies."""
    seen: list[list[str]] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        heard = replies(prompt)
        if heard or condition == "alone":
            seen.append(heard)
        return "\\boxed{3}" if heard else "\\boxed{7}"

    report = played(tokenizer, condition, script)
    assert len(seen) == 3 * 2
    for heard in seen:
        assert [h[: len(e)] for h, e in zip(heard, expected, strict=True)] == expected
    assert report.mean_at_k == (0.0 if condition == "alone" else 1.0)
    assert report.call_rate == (0.0 if condition == "alone" else 1.0)
    assert report.response_tokens == 4, "replicas' and forced tokens are not the policy's"


@pytest.mark.parametrize("condition", ["recorded", "erroneous"])
def test_recorded_solutions_stand_in_for_the_experts(
    tokenizer: PreTrainedTokenizerFast, condition: Condition
) -> None:
    seen: list[tuple[str, ...]] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(tuple(replies(prompt)))
        return "\\boxed{3}"

    played(tokenizer, condition, script)
    assert len(set(seen)) <= 3, "all samples of a problem meet the same solutions"
    texts = {text for heard in seen for text in heard}
    wrong = {str(10 + n) for n in range(4)}
    assert texts <= wrong if condition == "erroneous" else texts & {"3"}


def test_with_turns_the_policy_consults_as_it_likes(tokenizer: PreTrainedTokenizerFast) -> None:
    def script(prompt: str, rng: np.random.Generator) -> str:
        if "statement 0" in prompt and not replies(prompt):
            return "<consult>\n<query>ask</query>\n</consult>"
        return "\\boxed{3}"

    workflow = Workflow(turn_budget=2, solutions=RECORDED)
    report = played(tokenizer, "recorded", script, workflow)
    assert report.call_rate == pytest.approx(1 / 3)
    assert report.mean_at_k == 1.0


@given(
    num_right=st.integers(0, 6),
    num_wrong=st.integers(0, 6),
    number=st.integers(1, 4),
    wrong=st.booleans(),
    seed=st.integers(0, 99),
)
def test_drawing_solutions(
    num_right: int, num_wrong: int, number: int, wrong: bool, seed: int
) -> None:
    """Distinct ones; all wrong if that is wanted and there are enough wrong ones."""
    there = solutions(num_right, num_wrong)
    lost = Solution(problem="p", sample=99, expert="", text="", status="unavailable")

    def drawn() -> list[Solution]:
        rng = np.random.default_rng(seed)
        return draw_solutions([*there, lost], number, rng, wrong=wrong, whose="p")

    if num_right + num_wrong < number:
        with pytest.raises(ValueError, match=f"{len(there)} recorded solutions of problem 'p'"):
            drawn()
        return
    first = drawn()
    assert first == drawn()
    assert len({solution.sample for solution in first}) == number
    assert lost not in first
    if wrong and num_wrong >= number:
        assert error_rate([first]) == 1.0


def test_the_error_rate_by_hand() -> None:
    assert error_rate([solutions(2, 1), solutions(0, 3)]) == 4 / 6


@dataclass(frozen=True)
class CutOff:
    """A model whose turns a limit cuts."""

    text: str

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> ChatTurn:
        return ChatTurn(text=self.text, num_tokens=sampling.max_tokens, finish="length")


def test_a_replica_that_was_cut_off_is_marked_or_unavailable() -> None:
    def reply(text: str, *, brief: bool) -> ExpertReply:
        sampling = Sampling(max_tokens=8)
        copies = Replicas(model=CutOff(text), prompts=Prompts(), sampling=sampling, brief=brief)
        return asyncio.run(copies.ask([Query(text="?")]))[0]

    assert reply("Answer: 2", brief=False) == Reply("replica", "Answer: 2... [cut]")
    cut_off = Unavailable("cut by the token limit", "replica")
    assert reply("Answer: 2", brief=True) == cut_off
    assert reply("<think>half", brief=False) == cut_off


def test_a_model_is_given_as_many_replies_as_it_knows() -> None:
    assert usual_replies(r1_distill_qwen_7b(), None) == 3
    assert usual_replies(embedded(), None) == 1
    assert usual_replies(embedded(), 2) == 3
