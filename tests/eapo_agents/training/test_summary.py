"""The numbers of a training step, by hand, and the rows of its transcripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from transformers import PreTrainedTokenizerFast

from eapo_agents.rollouts.dynamic_sampling import Sampled
from eapo_agents.rollouts.rollout import Rollout, TokenLimits
from eapo_agents.rollouts.trajectory import Group
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.summary import (
    latency_rows,
    step_metrics,
    transcript_rows,
    warn_of_standstill,
)
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Query, Rules
from eapo_env.verifier import Verifier

PROBLEM = Problem(id="sum", statement="3 + 4 = ?", answer="7")
TWICE = render_consult(Consult(("known?", "unknown?")))
RIGHT, WRONG = "\\boxed{7}", "\\boxed{8}"
WITH_EXPERTS = Rules(turn_budget=2)


def answer(query: Query) -> str | None:
    return "yes √" if query.text == "known?" else None


def group(
    tokenizer: PreTrainedTokenizerFast,
    verifier: Verifier,
    *members: tuple[Rules, Sequence[str]],
) -> Group:
    """Play one member after the other, each with its rules and its script."""
    played = []
    for seed, (rules, texts) in enumerate(members):
        rollout = Rollout(
            policy=ScriptedPolicy(tokenizer, texts),
            experts=ScriptedExperts(answer),
            verifier=verifier,
            prompts=Prompts.terse(),
            limits=TokenLimits(max_response_tokens=50),
        )
        played.append(asyncio.run(rollout.play(PROBLEM, rules, seed=seed)))
    return Group(problem=PROBLEM, trajectories=tuple(played))


@pytest.fixture
def sampled(tokenizer: PreTrainedTokenizerFast, verifier: Verifier) -> Sampled:
    mixed = group(
        tokenizer,
        verifier,
        (WITH_EXPERTS, [TWICE, RIGHT]),  # asks two, both accepted, one unavailable
        (WITH_EXPERTS, [WRONG]),
        (Rules.alone(), [RIGHT]),
        (Rules.alone(), ["x" * 60]),  # cut off
    )
    right = group(tokenizer, verifier, (WITH_EXPERTS, [RIGHT]), (WITH_EXPERTS, [RIGHT]))
    refused = Rules(turn_budget=2, acceptance_rate=0.0)
    wrong = group(tokenizer, verifier, (refused, [TWICE, WRONG]), (Rules.alone(), ["no"]))
    return Sampled(kept=(mixed,), played=(mixed, right, wrong))


def test_the_metrics_of_a_step_by_hand(sampled: Sampled) -> None:
    found = step_metrics(sampled)
    consult_tokens = len(TWICE) - len("<consult></consult>") - 2 * len("<query></query>") + 6
    tokens = [consult_tokens + 4, 4, 4, 50, 4, 4, consult_tokens + 4, 3]
    assert found["accuracy"] == 4 / 8
    assert found["reward"] == pytest.approx((4 * 1.0 + 2 * 0.1) / 8)  # two wrong answers in a box
    assert found["accuracy/alone"] == 1 / 3
    assert found["accuracy/helped"] == 3 / 5
    assert found["accuracy/0_replies"] == 2 / 4
    assert found["accuracy/1_replies"] == 1
    assert (found["groups_helped"], found["groups_kept_alone"]) == (1, 0)
    assert found["call_rate"] == 2 / 8
    assert found["call_rate_per_turn"] == 2 / 10
    assert found["turns_per_episode"] == 10 / 8
    assert found["queries_per_episode"] == 4 / 8
    assert found["acceptance_rate_realised"] == 1 / 4  # of 2 that the gate accepted, one came
    assert found["failed_reply_rate"] == 1 / 2
    assert found["alone_rate"] == 3 / 8
    assert found["truncation_rate"] == 1 / 8
    assert found["no_answer_rate"] == 2 / 8
    assert found["malformed_rate"] == 1 / 10  # the turn that was cut off is not among them
    assert found["verifier_failure_rate"] == 0
    assert found["policy_tokens"] == sum(tokens)
    assert found["response_tokens"] == sum(tokens) / 8
    everything = [t.num_tokens for g in sampled.played for t in g.trajectories]
    assert found["environment_tokens"] == sum(everything) - sum(tokens)
    relays = ["yes √-\n\nturns 1", "--\n\nturns 1"]  # 4 tags each, 3 ids of the template
    assert found["expert_tokens"] == sum(map(len, relays)) + 2 * (4 + 3)
    assert found["groups_all_right"] == found["groups_all_wrong"] == 1 / 3
    assert (found["groups_kept"], found["problems_used"]) == (1, 3)


@pytest.mark.parametrize(
    ("wrong", "no_answer", "said", "advice"),
    [
        (1.0, 0.75, "75% of the episodes have no answer", "cold-start to teach the format"),
        (1.0, 0.25, "all wrong", "easier problems"),
        (0.25, 0.0, "all right", "harder problems"),
    ],
)
def test_a_standstill_is_told_with_what_to_try(
    wrong: float, no_answer: float, said: str, advice: str, caplog: pytest.LogCaptureFixture
) -> None:
    rates = {"groups_all_wrong": wrong, "groups_all_right": 1 - wrong, "no_answer_rate": no_answer}
    warn_of_standstill(9, rates, 3)
    [told] = caplog.messages
    assert told.startswith("STEP 9: NOTHING WAS LEARNED FOR 3 STEPS")
    assert said in told
    assert advice in told.partition(". Try ")[2]


def test_without_a_query_the_rates_are_zero(
    tokenizer: PreTrainedTokenizerFast, verifier: Verifier
) -> None:
    one = group(tokenizer, verifier, (Rules.alone(), [RIGHT]))
    found = step_metrics(Sampled(kept=(), played=(one,)))
    assert found["acceptance_rate_realised"] == found["failed_reply_rate"] == 0


def test_transcripts_tell_what_was_read_asked_and_answered(sampled: Sampled) -> None:
    advantages = [1.0, -1.0, 1.5, -1.5]
    rows = [json.loads(json.dumps(row)) for row in transcript_rows(sampled, advantages)]
    assert [row["member"] for row in rows] == [0, 1, 2, 3, 0, 1, 0, 1]
    first = rows[0]
    assert [message["role"] for message in first["messages"]] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert first["messages"][2]["content"] == "<reply>yes √</reply>\n<reply>-</reply>\nturns 1"
    assert first["consultations"] == [
        [
            {"query": "known?", "accepted": True, "expert": "scripted", "reply": "yes √"},
            {
                "query": "unknown?",
                "accepted": True,
                "expert": "scripted",
                "unavailable": "no answer",
            },
        ]
    ]
    assert (first["status"], first["reward"], first["stop_reason"]) == ("correct", 1.0, "answered")
    assert (first["given"], first["answer"]) == ("7", "7")
    refused = rows[6]["consultations"][0][0]
    assert refused == {"query": "known?", "accepted": False, "unavailable": "refused by the gate"}
    assert (rows[3]["stop_reason"], rows[3]["given"]) == ("length", None)
    assert (rows[2]["turn_budget"], rows[2]["acceptance_rate"]) == (1, 0.0)
    assert (first["queries_per_turn"], rows[2]["queries_per_turn"]) == (3, 0)


def test_transcripts_tell_what_each_turn_did_and_how_long_it_was(sampled: Sampled) -> None:
    rows = list(transcript_rows(sampled, [0.0] * 4))
    played = [trajectory for group in sampled.played for trajectory in group.trajectories]
    for row, trajectory in zip(rows, played, strict=True):
        tokens = {"user": 0, "assistant": 0}
        for message in row["messages"]:
            tokens[message["role"]] += message["tokens"]
        assert tokens["assistant"] == row["policy_tokens"] == trajectory.num_policy_tokens
        assert tokens["user"] == row["environment_tokens"]
    assert [message.get("action") for message in rows[0]["messages"]] == [
        None,
        "consult",
        None,
        "answer",
    ]
    # By characters, tags being one: 2 queries, and "\\boxed{7}" of 4 with the end of the turn.
    assert [message["tokens"] for message in rows[1]["messages"]][1] == 4
    cut = rows[3]["messages"][1]
    assert (cut["action"], cut["reason"], cut["tokens"]) == ("malformed", "cut off: length", 50)


def test_transcripts_tell_what_was_learned_from(sampled: Sampled) -> None:
    mixed, right, wrong = sampled.played
    carried = Sampled(kept=(wrong, mixed), played=(mixed, right), surplus=(right,))
    rows = list(transcript_rows(carried, [9.0, 8.0, 1.0, -1.0, 1.5, -1.5]))
    assert [(row["use"], row["advantage"]) for row in rows] == [
        ("learned", 1.0),
        ("learned", -1.0),
        ("learned", 1.5),
        ("learned", -1.5),
        ("carried", None),
        ("carried", None),
    ]
    assert [row["use"] for row in transcript_rows(sampled, [0.0] * 4)][4:] == ["dropped"] * 4
    nothing = list(transcript_rows(Sampled(kept=(), played=(wrong,)), []))
    assert {row["use"] for row in nothing} == {"dropped"}


def test_latencies_stand_beside_the_transcripts_row_by_row(sampled: Sampled) -> None:
    rows = [row["latencies_s"] for row in latency_rows(sampled)]
    assert [list(map(len, row)) for row in rows] == [[2], [], [], [], [], [], [2], []]
    assert all(latency > 0 for latency in rows[0][0])
    assert rows[6] == [[None, None]], "refused queries were never sent"
