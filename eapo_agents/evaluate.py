"""Play every problem k times, alone, and report (paper 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from eapo_agents.metrics import (
    bootstrap_interval,
    majority_at_k,
    mean_at_k,
    pass_at_k,
    variance,
)
from eapo_agents.rollout import derive_seed, gather
from eapo_env.actions import Answer
from eapo_env.episode import Episode
from eapo_env.types import Problem, Rules


class Graded(Protocol):
    """A finished episode and its verdict: a trajectory, or an attempt in message space."""

    @property
    def episode(self) -> Episode:
        """All that was said."""

    @property
    def correct(self) -> bool:
        """Whether the answer was right."""

    @property
    def num_policy_tokens(self) -> int:
        """How many tokens the policy sampled."""


class Player(Protocol):
    """What plays episodes: `Rollout` in tokens, `TextRollout` in messages."""

    async def play(self, problem: Problem, rules: Rules, *, seed: int) -> Graded:
        """Return one finished episode; the seed decides its luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What an evaluation found; shares in [0, 1].

    Args:
        mean_at_k: the mean over problems of the mean correctness of k samples; the paper prints
            it as "Pass@32".
        interval: its 95% confidence interval, by bootstrap over problems.
        variance: the paper's Var.
        pass_at_k: the share of problems that at least one of k samples solves, unbiased.
        majority_at_k: the share of problems whose most frequent answer is right.
        call_rate: the share of episodes that consulted; 0 when the rules leave the policy alone.
        response_tokens: mean policy tokens an episode.
        truncation_rate: the share of episodes cut off by an outside limit.
        correct_PK: correctness of every sample, problems in order.
    """

    samples_per_problem: int
    num_problems: int
    mean_at_k: float
    interval: tuple[float, float]
    variance: float
    pass_at_k: float
    majority_at_k: float
    call_rate: float
    response_tokens: float
    truncation_rate: float
    correct_PK: tuple[tuple[bool, ...], ...]

    def metrics(self) -> dict[str, float]:
        """Return the numbers, without the single samples, for a run's metrics."""
        numbers = asdict(self)
        low, high = numbers.pop("interval")
        del numbers["correct_PK"]
        return {**numbers, "interval_low": low, "interval_high": high}


async def evaluate(
    player: Player,
    problems: Sequence[Problem],
    *,
    samples_per_problem: int = 32,
    rules: Rules | None = None,
    seed: int = 0,
) -> Report:
    """Return the report on `samples_per_problem` episodes of each problem, alone by default.

    Raises:
        ValueError: no problems, or no samples.
    """
    if not problems or samples_per_problem < 1:
        raise ValueError(
            f"nothing to evaluate: {len(problems)} problems, {samples_per_problem} samples each"
        )
    rules = rules or Rules.alone()

    async def attempts(problem: Problem, seed: int) -> list[Graded]:
        members = range(samples_per_problem)
        return await gather(player.play(problem, rules, seed=derive_seed(seed, m)) for m in members)

    return report_on(
        await gather(
            attempts(problem, derive_seed(seed, number)) for number, problem in enumerate(problems)
        )
    )


def report_on(attempts_PK: Sequence[Sequence[Graded]]) -> Report:
    """Return the report on equally many attempts at each problem."""
    correct_PK = np.array([[attempt.correct for attempt in row] for row in attempts_PK])
    attempts = [attempt for row in attempts_PK for attempt in row]
    episodes = [attempt.episode for attempt in attempts]
    k = correct_PK.shape[1]
    return Report(
        samples_per_problem=k,
        num_problems=len(attempts_PK),
        mean_at_k=mean_at_k(correct_PK),
        interval=bootstrap_interval(correct_PK.mean(1), np.random.default_rng(0)),
        variance=variance(correct_PK),
        pass_at_k=pass_at_k(correct_PK, k),
        majority_at_k=majority_at_k([_answers(row) for row in attempts_PK], correct_PK),
        call_rate=float(np.mean([bool(episode.consultations) for episode in episodes])),
        response_tokens=float(np.mean([attempt.num_policy_tokens for attempt in attempts])),
        truncation_rate=float(
            np.mean([bool(e.stop_reason and e.stop_reason.truncated) for e in episodes])
        ),
        correct_PK=tuple(tuple(bool(c) for c in row) for row in correct_PK),
    )


def _answers(attempts: Sequence[Graded]) -> list[str | None]:
    """Return each attempt's answer as it was written; None for those that gave none."""
    last = [attempt.episode.actions[-1:] for attempt in attempts]
    return [
        action[0].text.strip() if action and isinstance(action[0], Answer) else None
        for action in last
    ]
