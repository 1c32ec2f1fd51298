"""Play every problem k times, alone, and report (paper 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from eapo_agents.metrics import (
    bootstrap_interval,
    majority_at_k,
    mean_at_k,
    pass_at_k,
    variance,
)
from eapo_agents.rollout import Rollout, derive_seed, gather
from eapo_agents.trajectory import Group
from eapo_env.actions import Answer
from eapo_env.types import Problem, Rules


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
    rollout: Rollout,
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
    rules_G = (rules or Rules.alone(),) * samples_per_problem
    groups = await gather(
        rollout.play_group(problem, rules_G, seed=derive_seed(seed, number))
        for number, problem in enumerate(problems)
    )
    return report_on(groups)


def report_on(groups: Sequence[Group]) -> Report:
    """Return the report on groups of equal size, one per problem."""
    correct_PK = np.stack([group.correct_G for group in groups])
    trajectories = [trajectory for group in groups for trajectory in group.trajectories]
    episodes = [trajectory.episode for trajectory in trajectories]
    k = correct_PK.shape[1]
    return Report(
        samples_per_problem=k,
        num_problems=len(groups),
        mean_at_k=mean_at_k(correct_PK),
        interval=bootstrap_interval(correct_PK.mean(1), np.random.default_rng(0)),
        variance=variance(correct_PK),
        pass_at_k=pass_at_k(correct_PK, k),
        majority_at_k=majority_at_k([_answers(group) for group in groups], correct_PK),
        call_rate=float(np.mean([bool(episode.consultations) for episode in episodes])),
        response_tokens=float(np.mean([t.num_policy_tokens for t in trajectories])),
        truncation_rate=float(
            np.mean([bool(e.stop_reason and e.stop_reason.truncated) for e in episodes])
        ),
        correct_PK=tuple(tuple(bool(c) for c in row) for row in correct_PK),
    )


def _answers(group: Group) -> list[str | None]:
    """Return each member's answer as it wrote it; None for those who gave none."""
    last = [trajectory.episode.actions[-1:] for trajectory in group.trajectories]
    return [
        action[0].text.strip() if action and isinstance(action[0], Answer) else None
        for action in last
    ]
