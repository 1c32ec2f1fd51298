"""The metrics and the transcripts of a training step, from the episodes it played."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import compress
from typing import Any

import numpy as np

from eapo_agents.evaluation import CallRates, Graded, call_rates
from eapo_agents.rollouts import Group, Mask, Sampled, Trajectory, paradigm_of, shares
from eapo_env.actions import Action, Answer, Consult, Malformed
from eapo_env.types import ExpertReply, Reply, Unavailable

_MANY_REPLIES = 4
_MANY_WITHOUT_ANSWER = 0.5
_LOG = logging.getLogger(__name__)


def step_metrics(sampled: Sampled) -> dict[str, float]:
    """Return the metrics of all episodes played in a step, whether trained on or not.

    Rates are shares of episodes unless the name says otherwise; lengths are means in tokens.
    """
    played = [trajectory for group in sampled.played for trajectory in group.trajectories]
    episodes = [trajectory.episode for trajectory in played]
    queries = sum(episode.num_queries for episode in episodes)
    turns = [episode.turn for episode in episodes]
    consultations = [len(episode.consultations) for episode in episodes]
    calls = call_rates(consultations, turns) if any(turns) else CallRates(0.0, 0.0)
    policy_tokens = [trajectory.num_policy_tokens for trajectory in played]
    return {
        "reward": _mean([trajectory.reward for trajectory in played]),
        "accuracy": _mean([trajectory.correct for trajectory in played]),
        "call_rate": calls.per_episode,
        "call_rate_per_turn": calls.per_turn,
        "queries_per_episode": queries / len(episodes),
        "acceptance_rate_realised": sum(e.num_accepted for e in episodes) / max(queries, 1),
        "failed_reply_rate": _failed_reply_rate(played),
        "alone_rate": _mean([episode.rules.is_alone for episode in episodes]),
        "turns_per_episode": _mean(turns),
        "truncation_rate": _mean(
            [bool(e.stop_reason and e.stop_reason.truncated) for e in episodes]
        ),
        "malformed_rate": sum(e.num_malformed for e in episodes) / max(sum(turns), 1),
        "no_answer_rate": _mean([trajectory.status == "no_answer" for trajectory in played]),
        "verifier_failure_rate": _mean(
            [t.status in ("timeout", "memory", "too_complex") for t in played]
        ),
        "response_tokens": _mean(policy_tokens),
        "policy_tokens": float(sum(policy_tokens)),
        "environment_tokens": float(sum(t.num_environment_tokens for t in played)),
        "expert_tokens": float(sum(map(_relayed_tokens, played))),
        "groups_all_right": _mean([bool(group.correct_G.all()) for group in sampled.played]),
        "groups_all_wrong": _mean([not group.correct_G.any() for group in sampled.played]),
        **_accuracies(played),
        "groups_helped": _mean([not _is_alone(group) for group in sampled.played]),
        "groups_kept": float(len(sampled.kept)),
        "groups_kept_alone": float(sum(map(_is_alone, sampled.kept))),
        "problems_used": float(len(sampled.played)),
        **shares(episodes),
    }


def staleness(sampled: Sampled, version: int) -> dict[str, float]:
    """Return how many steps old the weights were that sampled what a step learns from.

    The mean over policy tokens and the maximum; empty when nothing is learned.

    Args:
        sampled: the groups of the step.
        version: of the learner's weights before the step.
    """
    learned = [trajectory for group in sampled.kept for trajectory in group.trajectories]
    if not learned:
        return {}
    ages = [version - trajectory.version for trajectory in learned]
    tokens = [trajectory.num_policy_tokens for trajectory in learned]
    mean = sum(age * count for age, count in zip(ages, tokens, strict=True)) / max(sum(tokens), 1)
    return {"staleness": mean, "max_staleness": float(max(ages))}


def warn_of_truncation(step: int, truncation_rate: float, limit: float) -> None:
    """Log a warning if more responses than the limit allows were truncated.

    A policy whose answers are cut off learns to write less, or nothing at all.
    """
    if truncation_rate > limit:
        _LOG.warning(
            "STEP %d: %.0f%% OF THE RESPONSES WERE CUT SHORT (more than %.0f%%); see"
            " rollout.limits.max_response_tokens and the model's context",
            step,
            100 * truncation_rate,
            100 * limit,
        )


def warn_of_standstill(step: int, metrics: Mapping[str, float], num_steps: int) -> None:
    """Log that no group of the last `num_steps` steps had signal, and what to try.

    Args:
        step: the last of them.
        metrics: of that step.
    """
    wrong, right = metrics["groups_all_wrong"], metrics["groups_all_right"]
    if wrong <= right:
        found, advice = "all right", "harder problems, or a higher rollout.temperature"
    elif metrics["no_answer_rate"] > _MANY_WITHOUT_ANSWER:
        found = f"all wrong, {100 * metrics['no_answer_rate']:.0f}% of the episodes have no answer"
        advice = (
            "eapo cold-start to teach the format, longer rollout.limits; eapo doctor tells more"
        )
    else:
        found = "all wrong"
        advice = "easier problems, a larger rollout.group_size, eapo cold-start"
    _LOG.warning(
        "STEP %d: NOTHING WAS LEARNED FOR %d STEPS, no group has right and wrong answers"
        " (in this step, %.0f%% are all wrong, %.0f%% all right): %s. Try %s",
        step,
        num_steps,
        100 * wrong,
        100 * right,
        found,
        advice,
    )


def experts_are_silent(step: int, sampled: Sampled | None, limit: float) -> bool:
    """Return whether more of a step's accepted queries got no reply than the limit; then warn."""
    groups = sampled.played if sampled else ()
    played = [trajectory for group in groups for trajectory in group.trajectories]
    rate = _failed_reply_rate(played)
    if rate <= limit:
        return False
    reasons = Counter(one.reason for one in _accepted(played) if isinstance(one, Unavailable))
    _LOG.warning(
        "STEP %d: THE EXPERTS LEFT %.0f%% OF THE ACCEPTED QUERIES UNANSWERED (more than %.0f%%),"
        " most often: %s; all reasons are in this step's transcripts",
        step,
        100 * rate,
        100 * limit,
        reasons.most_common(1)[0][0],
    )
    return True


def transcript_rows(sampled: Sampled, advantages: Sequence[float]) -> Iterator[dict[str, Any]]:
    """Yield each played episode as a JSON-ready row: what was said, decided, earned and learned.

    `member` is its number in its group. `use` says what became of it: "learned" from in this step,
    "carried" into the next one, or "dropped". `version` is that of the weights that sampled it.

    Args:
        sampled: the groups of a step.
        advantages: of the trajectories of `sampled.kept`, group by group (`Learner.advantages`).
    """
    kept = [trajectory for group in sampled.kept for trajectory in group.trajectories]
    learned = {id(one): value for one, value in zip(kept, advantages, strict=True)}
    carried = {id(one) for group in sampled.surplus for one in group.trajectories}
    for group in sampled.played:
        for member, trajectory in enumerate(group.trajectories):
            advantage = learned.get(id(trajectory))
            left = "carried" if id(trajectory) in carried else "dropped"
            yield _transcript_row(trajectory) | {
                "member": member,
                "use": left if advantage is None else "learned",
                "advantage": advantage,
                "version": trajectory.version,
            }


def evaluation_rows(
    attempts: Iterable[Graded], problem_ids: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Yield episodes of an evaluation as `transcript_rows` yields those of a training step.

    Args:
        attempts: one a problem, in the order in which the problems were finished.
        problem_ids: the order of the rows.
    """
    by_problem = {one.episode.problem.id: one for one in attempts}
    for problem_id in problem_ids:
        if isinstance(attempt := by_problem[problem_id], Trajectory):
            yield _transcript_row(attempt) | {"member": 0, "use": "evaluated", "advantage": None}


def latency_rows(sampled: Sampled) -> Iterator[dict[str, Any]]:
    """Yield the seconds that each reply took, by consultation and slot, in a row an episode.

    The rows are in the order of `transcript_rows`. A query that was never sent has None. They are
    apart from the transcripts because they differ when the same run is repeated.
    """
    for group in sampled.played:
        for trajectory in group.trajectories:
            asked = trajectory.episode.consultations
            yield {"latencies_s": [[reply.latency_s for reply in c.replies] for c in asked]}


def _transcript_row(trajectory: Trajectory) -> dict[str, Any]:
    episode = trajectory.episode
    given = episode.actions[-1] if episode.actions else None
    return {
        "problem_id": episode.problem.id,
        "answer": episode.problem.answer,
        "given": given.text if isinstance(given, Answer) else None,
        "status": trajectory.status,
        "reward": trajectory.reward,
        "stop_reason": str(episode.stop_reason),
        "turn_budget": episode.rules.turn_budget,
        "queries_per_turn": episode.rules.queries_per_turn,
        "acceptance_rate": episode.rules.acceptance_rate,
        "policy_tokens": trajectory.num_policy_tokens,
        "environment_tokens": trajectory.num_environment_tokens,
        "paradigm": paradigm_of(episode),
        "messages": list(_messages(trajectory)),
        "consultations": [
            [
                _consulted(query.text, accepted, reply)
                for query, accepted, reply in zip(c.queries, c.accepted, c.replies, strict=True)
            ]
            for c in episode.consultations
        ],
    }


def _messages(trajectory: Trajectory) -> Iterator[dict[str, Any]]:
    """Yield each message with its number of tokens and, of the policy's, the action it was."""
    actions = iter(trajectory.episode.actions)
    counts = _tokens_of_messages(trajectory.mask)
    for message, tokens in zip(trajectory.episode.messages, counts, strict=True):
        row = {"role": message.role, "content": message.content, "tokens": tokens}
        yield row | (_acted(next(actions)) if message.role == "assistant" else {})


def _tokens_of_messages(mask: Mask) -> list[int]:
    """Return the lengths of the runs of equal values: policy and environment take turns."""
    changes = np.flatnonzero(mask[1:] != mask[:-1]) + 1
    lengths: list[int] = np.diff(np.concatenate([[0], changes, [len(mask)]])).tolist()
    return lengths


def _acted(action: Action) -> dict[str, str]:
    match action:
        case Consult():
            return {"action": "consult"}
        case Answer():
            return {"action": "answer"}
        case Malformed(reason):
            return {"action": "malformed", "reason": reason}


def _consulted(query: str, accepted: bool, reply: ExpertReply) -> dict[str, Any]:
    row: dict[str, Any] = {"query": query, "accepted": accepted}
    match reply:
        case Reply(expert, text):
            return row | {"expert": expert, "reply": text}
        case Unavailable(reason, expert):
            return row | ({"expert": expert} if expert else {}) | {"unavailable": reason}


def _accuracies(played: Sequence[Trajectory]) -> dict[str, float]:
    """Return the accuracy of episodes alone and helped, and by the number of replies they read.

    Of a kind of which there is no episode, none.
    """
    kinds: dict[str, list[bool]] = {}
    for trajectory in played:
        episode = trajectory.episode
        if episode.rules.is_alone:
            names = ["accuracy/alone"]
        else:
            read = min(episode.num_accepted, _MANY_REPLIES)
            more = " or more" if read == _MANY_REPLIES else ""
            names = ["accuracy/helped", f"accuracy/{read}{more} replies".replace(" ", "_")]
        for name in names:
            kinds.setdefault(name, []).append(trajectory.correct)
    return {name: _mean(kinds[name]) for name in sorted(kinds)}


def _is_alone(group: Group) -> bool:
    return all(trajectory.episode.rules.is_alone for trajectory in group.trajectories)


def _failed_reply_rate(played: Sequence[Trajectory]) -> float:
    """Return the share of accepted queries whose expert did not answer."""
    answered = [isinstance(reply, Reply) for reply in _accepted(played)]
    return 1.0 - _mean(answered) if answered else 0.0


def _accepted(played: Sequence[Trajectory]) -> Iterator[ExpertReply]:
    """Yield the replies to the queries that the gate let pass."""
    for trajectory in played:
        for consultation in trajectory.episode.consultations:
            yield from compress(consultation.replies, consultation.accepted)


def _relayed_tokens(trajectory: Trajectory) -> int:
    """Return the number of tokens relayed from experts, tags and notices around them included."""
    if not trajectory.episode.consultations:
        return 0
    return int((~trajectory.mask[trajectory.mask.argmax() :]).sum())


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
