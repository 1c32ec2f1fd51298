"""Trajectories, groups and demonstrations: what they refuse, count and compare."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from eapo_agents.rollouts.trajectory import Demonstration, Group, Trajectory
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules

PROBLEM = Problem(id="p", statement="1 + 1 = ?", answer="2")
EPISODE = begin(PROBLEM, Rules(), seed=0)


def trajectory(**changes: Any) -> Trajectory:
    fields: dict[str, Any] = {
        "token_ids": (5, 6, 7, 8),
        "mask": (False, True, False, True),
        "logprobs": (0.0, -1.5, 0.0, -0.25),
        "reward": 1.0,
        "status": "correct",
        "correct": True,
        "episode": EPISODE,
    }
    return Trajectory(**(fields | changes))


def test_counts() -> None:
    one = trajectory()
    assert (one.num_tokens, one.num_policy_tokens, one.num_environment_tokens) == (4, 2, 2)
    assert Group(problem=PROBLEM, trajectories=(one, one)).num_policy_tokens == 4


def test_arrays_have_their_types_and_cannot_change() -> None:
    one = trajectory()
    assert [one.token_ids.dtype, one.mask.dtype, one.logprobs.dtype] == ["int32", "bool", "float32"]
    with pytest.raises(ValueError, match="read-only"):
        one.token_ids[0] = 1


def test_later_changes_to_the_given_array_do_not_reach_it() -> None:
    ids = np.array([5, 6, 7, 8])
    one = trajectory(token_ids=ids)
    ids[:] = 0
    assert one.token_ids.tolist() == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "change",
    [
        {"token_ids": (5, 6, 9, 8)},
        {"mask": (False, True, True, True)},
        {"logprobs": (0.0, -1.0, 0.0, -0.25)},
        {"reward": 0.5},
        {"status": "timeout"},
        {"correct": False},
        {"episode": begin(PROBLEM, Rules(), seed=1)},
    ],
)
def test_trajectories_compare_by_content(change: dict[str, Any]) -> None:
    assert trajectory() == trajectory()
    assert trajectory() != trajectory(**change)
    assert trajectory() != "a trajectory"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": (False, True)}, "equally long"),
        ({"token_ids": (), "mask": (), "logprobs": ()}, "not empty"),
        ({"mask": (True, True, False, True), "logprobs": (-1, -1, 0, -1)}, "first id"),
        ({"logprobs": (0.0, -1.0)}, "logprobs for"),
        ({"logprobs": (0.0, float("nan"), 0.0, 0.0)}, "finite; at 1 not"),
        ({"logprobs": (0.0, -1.0, -1.0, 0.0)}, "0 where the mask is False"),
        ({"reward": float("inf")}, "reward must be finite, not inf"),
    ],
)
def test_trajectories_refuse(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trajectory(**change)


def test_demonstrations_count_compare_and_refuse() -> None:
    def demonstration(token_ids: Any, mask: Any) -> Demonstration:
        return Demonstration(token_ids=token_ids, mask=mask)

    one = demonstration((1, 2, 3), (False, True, True))
    assert (one.num_tokens, one.num_policy_tokens) == (3, 2)
    assert one == demonstration(np.array([1, 2, 3]), np.array([False, True, True]))
    assert one != demonstration((1, 2, 3), (False, False, True))
    with pytest.raises(ValueError, match="first id"):
        demonstration((1, 2), (True, True))


@settings(deadline=None)
@given(correct=st.lists(st.booleans(), min_size=1, max_size=8), data=st.data())
def test_signal_is_correctness_that_varies_whatever_the_rewards(
    correct: list[bool], data: st.DataObject
) -> None:
    members = tuple(
        trajectory(correct=value, reward=data.draw(st.sampled_from([0.0, 0.5, 1.0])))
        for value in correct
    )
    group = Group(problem=PROBLEM, trajectories=members)
    assert group.has_signal == (len(set(correct)) == 2)
    assert group.correct_G.tolist() == correct
    assert group.rewards_G.tolist() == [member.reward for member in members]


def test_groups_refuse_to_be_empty_or_mixed() -> None:
    with pytest.raises(ValueError, match="'p' has no trajectory"):
        Group(problem=PROBLEM, trajectories=())
    other = Problem(id="q", statement="?", answer="3")
    with pytest.raises(ValueError, match="trajectory of 'p' in the group of 'q'"):
        Group(problem=other, trajectories=(trajectory(),))


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=1, max_size=4))
@settings(deadline=None)
def test_the_training_trace_holds_each_turn_with_what_was_read_before_it(
    lengths: list[tuple[int, int]],
) -> None:
    mask = [wrote for pair in lengths for wrote, n in zip((False, True), pair, strict=True)
            for _ in range(n)]  # fmt: skip
    ids = list(range(10, 10 + len(mask)))
    logprobs = [-0.5 * wrote for wrote in mask]
    one = trajectory(token_ids=ids, mask=mask, logprobs=logprobs)
    trace = one.training_trace()
    assert trace["schema_version"] == 1
    assert len({turn["node_id"] for turn in trace["turns"]}) == len(trace["turns"]) == len(lengths)
    for turn, (_, sampled) in zip(trace["turns"], lengths, strict=True):
        end = len(turn["loss_mask"])
        assert turn["prompt_token_ids"] + turn["completion_token_ids"] == ids[:end]
        assert turn["loss_mask"] == [0] * (end - sampled) + [1] * sampled
        assert turn["per_token_logps"] == [-0.5] * sampled
    assert end == len(ids)


def test_openenv_takes_the_training_trace() -> None:
    training = pytest.importorskip("openenv.core.harness.training")
    one = trajectory(logprobs=(0.0, 1e-7, 0.0, -0.25))  # which rounding can bring above 0
    trace = training.TrainingTrace(**one.training_trace())
    assert trace.model_dump()["turns"][1]["completion_token_ids"] == [8]
    assert trace.turns[0].per_token_logps == [0.0]
