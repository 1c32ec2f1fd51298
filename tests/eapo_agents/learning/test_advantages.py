"""Advantages: numbers by hand, and the rules every function keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eapo_agents.learning.advantages import (
    Advantages,
    centred_advantages,
    group_advantages,
    leave_one_out_advantages,
    max_rl_advantages,
)

ALL = [group_advantages, centred_advantages, leave_one_out_advantages, max_rl_advantages]
rewards = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=16).map(np.array)
earned = st.lists(st.sampled_from([0.0, 0.1, 1.0]), min_size=1, max_size=16).map(np.array)


def rewards_for(advantages: Advantages) -> st.SearchStrategy[np.ndarray]:
    """Return rewards that they are meant for: MaxRL's are not for negative ones."""
    return earned if advantages is max_rl_advantages else rewards


def test_group_advantages_by_hand() -> None:
    # mean 1/4; Bessel-corrected variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4, so std 1/2.
    found = group_advantages(np.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(found, np.array([0.75, -0.25, -0.25, -0.25]) / (0.5 + 1e-6))


def test_centred_advantages_by_hand() -> None:
    found = centred_advantages(np.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(found, [0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_advantages_by_hand() -> None:
    # The others' means: (0 + 2) / 2, (3 + 2) / 2, (3 + 0) / 2.
    found = leave_one_out_advantages(np.array([3.0, 0.0, 2.0]))
    np.testing.assert_allclose(found, [3 - 1, 0 - 2.5, 2 - 1.5])


def test_max_rl_advantages_by_hand() -> None:
    # The mean is 1/4: one success in four outweighs three failures by its rarity.
    found = max_rl_advantages(np.array([1.0, 0.0, 0.0, 0.0]))
    np.testing.assert_allclose(found, [3.0, -1.0, -1.0, -1.0])


@settings(deadline=None)
@given(size=st.integers(2, 64), data=st.data())
def test_max_rl_estimates_the_gradient_of_the_log_success_rate(
    size: int, data: st.DataObject
) -> None:
    """Its mean score is the mean over the successes alone, less the group's mean (theorem 2)."""
    successes = data.draw(st.integers(1, size))
    rewards_G = np.repeat([1.0, 0.0], [successes, size - successes])
    scores_G = np.random.default_rng(size).standard_normal(size)
    found = (max_rl_advantages(rewards_G) * scores_G).mean()
    assert found == pytest.approx(scores_G[:successes].mean() - scores_G.mean(), abs=1e-9)


@pytest.mark.parametrize("rewards_G", [[0.0, 0.0], [-1.0, 0.0], [1.0, -1.0]])
def test_max_rl_learns_nothing_where_nothing_was_earned(rewards_G: list[float]) -> None:
    assert (max_rl_advantages(np.array(rewards_G)) == 0.0).all()


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(reward=st.floats(-1e6, 1e6), size=st.integers(1, 64))
def test_a_constant_group_gives_exact_zeros(
    advantages: Advantages, reward: float, size: int
) -> None:
    assert (advantages(np.full(size, reward)) == 0.0).all()


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(data=st.data())
def test_advantages_sum_to_zero_and_keep_the_order_of_rewards(
    advantages: Advantages, data: st.DataObject
) -> None:
    rewards_G = data.draw(rewards_for(advantages))
    found = advantages(rewards_G)
    assert found.shape == rewards_G.shape
    assert abs(found.sum()) < 1e-6
    assert (np.diff(found[np.argsort(rewards_G)]) >= -1e-9).all()


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_advantages_do_not_depend_on_the_order_of_trajectories(
    advantages: Advantages, data: st.DataObject, seed: int
) -> None:
    rewards_G = data.draw(rewards_for(advantages))
    order = np.random.default_rng(seed).permutation(len(rewards_G))
    np.testing.assert_allclose(
        advantages(rewards_G[order]), advantages(rewards_G)[order], atol=1e-8
    )


@settings(deadline=None)
@given(rewards_G=rewards)
def test_leave_one_out_is_the_reward_less_the_mean_of_the_others(rewards_G: np.ndarray) -> None:
    found = leave_one_out_advantages(rewards_G)
    if len(rewards_G) > 1:
        expected = [r - np.delete(rewards_G, i).mean() for i, r in enumerate(rewards_G)]
        np.testing.assert_allclose(found, expected, atol=1e-9)
