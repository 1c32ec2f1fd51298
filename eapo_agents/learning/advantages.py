"""Advantages: the weight of each trajectory of a group, from the group's rewards, in pure numpy.

An advantage function takes `rewards_G`, the float rewards of one group, and returns `advantages_G`,
the weight of each trajectory's policy tokens. A custom function plugs in the same way. Every
function here gives exact zeros for a constant group, one of a single trajectory included.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Rewards = npt.NDArray[np.float64]
Advantages = Callable[[Rewards], Rewards]


def group_advantages(rewards_G: Rewards) -> Rewards:
    """Return the rewards standardised over their group.

        A_i = (r_i - mean(r)) / (std(r) + 1e-6),    std with Bessel's correction (1 / (G - 1))

    Source: GRPO (arXiv 2402.03300, 4.1.2), kept by DAPO (2503.14476, eq. 9); epsilon as in verl.
    """
    if _is_constant(rewards_G):
        return np.zeros(len(rewards_G))
    advantages_G: Rewards = (rewards_G - rewards_G.mean()) / (rewards_G.std(ddof=1) + 1e-6)
    return advantages_G


def centred_advantages(rewards_G: Rewards) -> Rewards:
    """Return the rewards less their group's mean.

        A_i = r_i - mean(r)

    Source: Dr. GRPO (arXiv 2503.20783, 3.2): dividing by the standard deviation favours problems
    that are nearly always, or nearly never, solved.
    """
    if _is_constant(rewards_G):
        return np.zeros(len(rewards_G))
    advantages_G: Rewards = rewards_G - rewards_G.mean()
    return advantages_G


def leave_one_out_advantages(rewards_G: Rewards) -> Rewards:
    """Return each reward less the mean of the others.

        A_i = r_i - sum_{j != i} r_j / (G - 1) = G / (G - 1) * (r_i - mean(r))

    Source: RLOO (arXiv 2402.14740, 3.2, after Kool et al. 2019). The baseline does not depend on
    r_i, so the gradient stays unbiased.
    """
    if _is_constant(rewards_G):
        return np.zeros(len(rewards_G))
    group = len(rewards_G)
    advantages_G: Rewards = (rewards_G - rewards_G.mean()) * (group / (group - 1))
    return advantages_G


def max_rl_advantages(rewards_G: Rewards) -> Rewards:
    """Return the rewards less their group's mean, over that mean; zeros unless it is positive.

        A_i = (r_i - mean(r)) / mean(r)

    Source: MaxRL (arXiv 2602.02710, algorithm 1). With rewards of 0 and 1 it estimates the gradient
    of log p, where p is a problem's success rate, so hard problems weigh most.
    """
    mean = rewards_G.mean()
    if _is_constant(rewards_G) or mean <= 0:
        return np.zeros(len(rewards_G))
    advantages_G: Rewards = (rewards_G - mean) / mean
    return advantages_G


def _is_constant(rewards_G: Rewards) -> bool:
    """Return whether all rewards are equal; their mean may differ from them by rounding."""
    return bool((rewards_G == rewards_G[0]).all())
