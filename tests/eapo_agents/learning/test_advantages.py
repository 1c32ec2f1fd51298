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
)

ALL = [group_advantages, centred_advantages, leave_one_out_advantages]
rewards = st.lists(st.floats(-4, 4, width=32), min_size=1, max_size=16).map(np.array)


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


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(reward=st.floats(-1e6, 1e6), size=st.integers(1, 64))
def test_a_constant_group_gives_exact_zeros(
    advantages: Advantages, reward: float, size: int
) -> None:
    assert (advantages(np.full(size, reward)) == 0.0).all()


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(rewards_G=rewards)
def test_advantages_sum_to_zero_and_keep_the_order_of_rewards(
    advantages: Advantages, rewards_G: np.ndarray
) -> None:
    found = advantages(rewards_G)
    assert found.shape == rewards_G.shape
    assert abs(found.sum()) < 1e-6
    assert (np.diff(found[np.argsort(rewards_G)]) >= -1e-9).all()


@pytest.mark.parametrize("advantages", ALL)
@settings(deadline=None)
@given(rewards_G=rewards, seed=st.integers(0, 99))
def test_advantages_do_not_depend_on_the_order_of_trajectories(
    advantages: Advantages, rewards_G: np.ndarray, seed: int
) -> None:
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
