"""Episodes in message space: the same as in tokens, whatever the policy writes."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from transformers import PreTrainedTokenizerFast

from eapo_agents.evaluation.evaluator import evaluate
from eapo_agents.policies.chat_model import PolicyChat
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.policies.policy import Sampling
from eapo_agents.rollouts.rollout import Rollout, TokenLimits
from eapo_agents.rollouts.text_rollout import TextRollout
from eapo_agents.testing import ScriptedPolicy
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts, SilentExperts
from eapo_env.f1_grader import F1Grader
from eapo_env.prompts import Prompts
from eapo_env.types import Gate, Message, Problem, Reply, Rules, StopReason
from eapo_env.verifier import Verifier

PROBLEM = Problem(id="p", statement="p7", answer="3")
CONSULT = render_consult(Consult(("9",)))
LIMITS = TokenLimits(max_response_tokens=60)


def players(
    tokenizer: Any, verifier: Verifier, policy: Any, gate: Gate = "pre"
) -> tuple[Rollout, TextRollout]:
    common: dict[str, Any] = {
        "gate": gate,
        "experts": ScriptedExperts(lambda query: f"{query.text}!"),
        "verifier": verifier,
        "prompts": Prompts.terse(),
        "limits": LIMITS,
    }
    return Rollout(policy=policy, **common), TextRollout(model=PolicyChat(policy), **common)


@settings(max_examples=50)
@given(
    turns=st.lists(
        st.sampled_from([CONSULT, CONSULT + "more", "\\boxed{3}", "hm", "x" * 70, "<consult>"]),
        min_size=4,
        max_size=4,
    ),
    budget=st.integers(1, 3),
    rate=st.sampled_from([0.0, 0.5, 1.0]),
    seed=st.integers(0, 9),
    gate=st.sampled_from(["pre", "post"]),
)
def test_an_episode_is_the_same_in_messages_and_in_tokens(
    tokenizer: PreTrainedTokenizerFast,
    verifier: Verifier,
    turns: list[str],
    budget: int,
    rate: float,
    seed: int,
    gate: Gate,
) -> None:
    rules = Rules(turn_budget=budget, acceptance_rate=rate)
    first, second = (ScriptedPolicy(tokenizer, turns) for _ in range(2))
    in_tokens, _ = players(tokenizer, verifier, first, gate)
    _, in_messages = players(tokenizer, verifier, second, gate)
    tokens = asyncio.run(in_tokens.play(PROBLEM, rules, seed=seed))
    text = asyncio.run(in_messages.play(PROBLEM, rules, seed=seed))
    assert text.episode.messages == tokens.episode.messages
    assert text.episode.actions == tokens.episode.actions
    assert text.episode.stop_reason == tokens.episode.stop_reason
    assert (text.correct, text.status) == (tokens.correct, tokens.status)
    assert text.num_policy_tokens == tokens.num_policy_tokens
    asked = [one.episode.consultations for one in (tokens, text)]
    assert asked[0] == asked[1]
    assert in_messages.monitor.metrics().keys() == in_tokens.monitor.metrics().keys()


def test_an_answer_that_is_partly_right_has_its_score(tokenizer: PreTrainedTokenizerFast) -> None:
    policy = ScriptedPolicy(tokenizer, [r"\boxed{Eiffel}"])
    text = TextRollout(model=PolicyChat(policy), experts=SilentExperts(), verifier=F1Grader())
    problem = Problem(id="q", statement="Which tower?", answer="Eiffel tower")
    attempt = asyncio.run(text.play(problem, Rules.alone(), seed=0))
    assert not attempt.correct
    assert attempt.score == pytest.approx(2 / 3)  # precision 1, recall 1/2


def test_calls_of_experts_are_monitored_and_the_gate_decides_which_there_are(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    never = Rules(turn_budget=2, acceptance_rate=0.0)
    cases: list[tuple[Gate, bool]] = [("pre", False), ("post", True)]
    for gate, asked in cases:
        policy = ScriptedPolicy(tokenizer, [CONSULT, "\\boxed{3}"])
        _, text = players(tokenizer, verifier, policy, gate)
        asyncio.run(text.play(PROBLEM, never, seed=0))
        assert ("expert_failure_rate" in text.monitor.metrics()) == asked


def test_a_model_alone_has_the_same_report_in_messages_and_in_tokens(
    tiny_model: Any, tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    policy = HFPolicy(*load_model(ModelSettings(path=str(tiny_model))))
    problems = [Problem(id=f"q{n}", statement=f"q{n}", answer="3") for n in range(3)]
    tokens, text = (
        asyncio.run(evaluate(player, problems, samples_per_problem=8, seed=3))
        for player in players(tokenizer, verifier, policy)
    )
    assert text == tokens
    assert text.response_tokens > 1


def test_experts_can_be_asked_before_the_first_turn(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    seen: list[str] = []

    def script(prompt: str, rng: np.random.Generator) -> str:
        seen.append(prompt)
        return "\\boxed{3}"

    text = TextRollout(
        model=PolicyChat(ScriptedPolicy(tokenizer, script)),
        experts=ScriptedExperts(lambda query: f"{query.slot}:{query.text}"),
        verifier=verifier,
        prompts=Prompts.terse(),
        consult_first=3,
    )
    helped = asyncio.run(text.play(PROBLEM, Rules(turn_budget=2), seed=0))
    replies = helped.episode.consultations[0].replies
    assert [reply.text for reply in replies if isinstance(reply, Reply)] == [
        "0:p7",
        "1:p7",
        "2:p7",
    ]
    assert all(f"<reply>{slot}:p7</reply>" in seen[0] for slot in range(3))
    assert (helped.correct, helped.num_policy_tokens) == (True, 4), (
        "the forced turn is not the policy's"
    )
    alone = asyncio.run(text.play(PROBLEM, Rules.alone(), seed=0))
    assert alone.episode.consultations == ()
    assert "reply" not in seen[1]


def test_a_conversation_that_fills_the_context_is_cut_off(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    policy = ScriptedPolicy(tokenizer, ["\\boxed{3}"], max_context_tokens=4)
    _, text = players(tokenizer, verifier, policy)
    cut = asyncio.run(text.play(PROBLEM, Rules.alone(), seed=0))
    assert (cut.episode.stop_reason, cut.num_policy_tokens) == (StopReason.LENGTH, 0)


@pytest.mark.parametrize("turn", ["", "<|user|>", "\ud800", "</consult>"])
def test_what_was_said_is_plain_text_to_the_policy(
    tokenizer: PreTrainedTokenizerFast, turn: str
) -> None:
    messages = (Message("user", "a"), Message("assistant", turn), Message("user", "b"))
    chat = PolicyChat(ScriptedPolicy(tokenizer, ["done"]))
    assert asyncio.run(chat.write(messages, Sampling(max_tokens=9), 0)).text == "done"
