"""The decisions of an episode, for agents that cannot read or write text: pure.

A decision is a number: 0 answers, k consults k experts. Owns what such an agent observes of an
episode (`FEATURES`), which decisions mean something there, and the text of a turn that carries a
decision out. Who finds the words stands in `decision_writers.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from eapo_env.actions import Consult, parse_action, render_consult
from eapo_env.answers import extract_answer
from eapo_env.episode import Episode
from eapo_env.prompts import neutralise
from eapo_env.types import Reply

Features = npt.NDArray[np.float32]

ANSWER = 0

FEATURES = (
    "turns_left",
    "acceptance_rate",
    "consultations",
    "replies",
    "unanswered",
    "agreement",
    "length",
)
"""What is observed, each in [0, 1]: 1/n with n turns left (0 when it is over); the acceptance rate
of the rules; the consultations so far, the replies received, the queries without one, each as
n/(n+1); the largest share of the replies that say the same; the statement's length as n/(n+100)
characters."""


def features(episode: Episode) -> Features:
    """Return what an agent observes of an episode: a number in [0, 1] for each of `FEATURES`."""
    replies = replies_received(episode)
    values = (
        1 / episode.turns_left if episode.turns_left else 0.0,
        episode.rules.acceptance_rate,
        _saturating(len(episode.consultations)),
        _saturating(len(replies)),
        _saturating(episode.num_queries - len(replies)),
        agreement(replies),
        _saturating(len(episode.problem.statement) / 100),
    )
    return np.array(values, dtype=np.float32)


def replies_received(episode: Episode) -> list[str]:
    """Return the texts of the replies that entered the history, in order."""
    return [
        reply.text
        for consultation in episode.consultations
        for accepted, reply in zip(consultation.accepted, consultation.replies, strict=False)
        if accepted and isinstance(reply, Reply)
    ]


def agreement(replies: Sequence[str]) -> float:
    """Return the largest share of the replies with the same final answer; 0 without replies.

    A reply that commits to no answer stands for itself, as a text.
    """
    said = Counter(extract_answer(reply) or reply.strip() for reply in replies)
    return max(said.values(), default=0) / max(len(replies), 1)


def meaningful(decision: int, episode: Episode) -> int:
    """Return the decision, or the nearest one that means something in this episode now.

    No more experts are consulted than the rules allow, and none where their replies could not be
    used: alone, and in the last turn.
    """
    if episode.rules.is_alone or episode.turns_left <= 1:
        return ANSWER
    return min(decision, episode.rules.queries_per_turn)


def consulting(questions: Sequence[str], count: int, episode: Episode) -> str:
    """Return the turn that asks the first `count` questions.

    Tags inside them are neutralised, and empty ones dropped; when none is left, `count` experts
    are asked the whole problem.
    """
    texts = [neutralise(question) for question in questions if question.strip()][:count]
    return render_consult(Consult(tuple(texts or [neutralise(episode.problem.statement)] * count)))


def answering(text: str) -> str:
    """Return the turn that answers with a text; if it consults, its tags become mere text."""
    return neutralise(text) if isinstance(parse_action(text), Consult) else text


def _saturating(count: float) -> float:
    return count / (count + 1)
