"""Episodes of an evaluation as JSON-ready rows, and the few of them that are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eapo_agents.evaluation.evaluator import Graded
from eapo_env.actions import Answer
from eapo_env.types import Consultation, Reply

EpisodeRow = Mapping[str, Any]
"""An episode as JSON: problem, answers, verdict, messages, consultations."""


def episode_row(graded: Graded) -> dict[str, Any]:
    """Return an episode as a JSON-ready row, with the answer as it was given; null without one."""
    episode = graded.episode
    last = episode.actions[-1] if episode.actions else None
    return {
        "problem_id": episode.problem.id,
        "answer": episode.problem.answer,
        "given": last.text.strip() if isinstance(last, Answer) else None,
        "status": graded.status,
        "stop_reason": str(episode.stop_reason),
        "turn_budget": episode.rules.turn_budget,
        "policy_tokens": graded.num_policy_tokens,
        "messages": [{"role": m.role, "content": m.content} for m in episode.messages],
        "consultations": [_consultation(one) for one in episode.consultations],
    }


def two_examples(rows: Sequence[EpisodeRow]) -> list[EpisodeRow]:
    """Return the first right and the first wrong episode.

    Where there is only one of the two kinds, the first two that differ, if possible in the problem.
    """
    right = [row for row in rows if row["status"] == "correct"]
    wrong = [row for row in rows if row["status"] != "correct"]
    if right and wrong:
        return [right[0], wrong[0]]
    elsewhere = [row for row in rows if row["problem_id"] != rows[0]["problem_id"]]
    otherwise = [row for row in rows if row["messages"] != rows[0]["messages"]]
    return [*rows[:1], *(elsewhere or otherwise)[:1]]


def _consultation(consultation: Consultation) -> list[dict[str, Any]]:
    return [
        {"query": query.text, "accepted": accepted}
        | (
            {"expert": reply.expert, "reply": reply.text}
            if isinstance(reply, Reply)
            else {"unavailable": reply.reason}
        )
        for query, accepted, reply in zip(
            consultation.queries, consultation.accepted, consultation.replies, strict=True
        )
    ]
