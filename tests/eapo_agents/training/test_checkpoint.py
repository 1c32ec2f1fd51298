"""What a checkpoint holds beside the weights is read back as it was, or refused by name."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_agents.rollouts.dynamic_sampling import DynamicSampling, Sampled
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_agents.training.checkpoint import Played, Progress, group_from_row, group_to_row
from eapo_env.episode import act, begin, receive
from eapo_env.spending import Spent
from eapo_env.types import Problem, Reply, Rules, Unavailable


@cache
def group(number: int, *, signal: bool = True) -> Group:
    problem = Problem(id=str(number), statement=f"{number} + ∑ = ?", answer="2")
    rng = np.random.default_rng(number)
    episode = begin(problem, Rules(turn_budget=3), seed=number)
    episode = act(episode, "<consult><query>é?</query><query>y</query></consult>", rng)
    episode = receive(episode, [Reply("alice", "7 \\boxed{7}"), Unavailable("late", "bob")])
    members = tuple(
        Trajectory(
            token_ids=rng.integers(1, 9, 5).astype(np.int32),
            mask=np.array([False, True, True, False, True]),
            logprobs=np.array([0.0, -0.1, -1 / 3, 0.0, -2.5], np.float32),
            reward=float(correct),
            status="correct" if correct else "wrong",
            correct=correct,
            episode=act(episode, rf"so \boxed{{{2 if correct else 3}}}", rng),
        )
        for correct in (True, not signal)
    )
    return Group(problem=problem, trajectories=members)


@given(number=st.integers(0, 10**6), signal=st.booleans())
def test_a_group_survives_the_file(number: int, signal: bool) -> None:
    one = group(number, signal=signal)
    assert group_from_row(group_to_row(one)) == one


def ahead() -> Progress:
    """A progress with two groups carried; the rollout ahead kept one of them and one of its own."""
    one, two, three, four = map(group, range(1, 5))
    sampled = Sampled(kept=(one, four), played=(three, four), surplus=(two,))
    played = Played(sampled=sampled, metrics={"seconds/rollout": 1 / 3, "expert_errors": 2.0})
    spent = Spent(prompt_tokens=7, completion_tokens=2, cost=0.1)
    return Progress(step=3, cursor=40, surplus=(one, two), ahead=played, spent=spent)


@pytest.mark.parametrize("progress", [ahead(), replace(ahead(), ahead=None)])
def test_progress_is_read_as_it_was_written(tmp_path: Path, progress: Progress) -> None:
    progress.write(tmp_path)
    assert Progress.read(tmp_path) == progress


def test_a_group_that_was_kept_is_the_group_that_was_played(tmp_path: Path) -> None:
    """Transcripts tell by identity what an episode was used for."""
    ahead().write(tmp_path)
    found = Progress.read(tmp_path)
    assert found.ahead
    assert found.ahead.sampled.kept[0] is found.surplus[0]
    assert found.ahead.sampled.kept[1] is found.ahead.sampled.played[1]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("state.json", "{"),
        ("state.json", '{"step": 1}'),
        ("surplus.jsonl", ""),
        ("surplus.jsonl", '{"problem": 1}\n{}\n'),
        ("ahead.jsonl", ""),
        ("ahead.jsonl", "{}\n{}\n"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, name: str, text: str) -> None:
    ahead().write(tmp_path)
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=name):
        Progress.read(tmp_path)


@given(
    signals=st.lists(st.booleans(), min_size=1, max_size=9),
    sampling=st.builds(
        DynamicSampling,
        groups_per_step=st.integers(1, 4),
        problems_per_round=st.integers(1, 6),
        max_rounds=st.integers(1, 3),
        surplus=st.just("carry"),
    ),
    stop=st.integers(0, 5),
)
def test_carried_groups_are_learned_from_once_in_order_and_after_a_restart_too(
    tmp_path_factory: pytest.TempPathFactory,
    signals: list[bool],
    sampling: DynamicSampling,
    stop: int,
) -> None:
    async def play(number: int) -> Group:
        return group(number, signal=signals[number % len(signals)])

    def steps(restart_after: int | None) -> list[Sampled]:
        progress, found = Progress(), []
        for step in range(6):
            sampled = asyncio.run(sampling.sample(play, progress.cursor, progress.surplus))
            progress = progress.after(sampled)
            found.append(sampled)
            if step == restart_after:
                folder = tmp_path_factory.mktemp("checkpoint")
                progress.write(folder)
                progress = Progress.read(folder)
        return found

    never = steps(None)
    assert steps(stop) == never
    kept = [int(one.problem.id) for sampled in never for one in sampled.kept]
    assert kept == sorted(set(kept))
    assert all(len(sampled.surplus) <= sampling.groups_per_step for sampled in never)
    used = [int(one.problem.id) for sampled in never for one in sampled.played]
    assert used == list(range(len(used)))
