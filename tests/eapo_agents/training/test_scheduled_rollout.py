"""Episodes of a config by training step, as other trainers ask for them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from written_rollout import CONSULT, PROBLEM, TOKENIZER

from eapo_agents.policies.policy import Truncation
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import embedded
from eapo_agents.training.scheduled_rollout import ScheduledRollout
from eapo_env.types import Rules
from eapo_env.validation import UserError

SETTINGS = ["steps=8", "rollout.group_size=4", "rollout.wording=terse", "experts=silent"]


def scheduled(*changes: str) -> ScheduledRollout:
    policy = ScriptedPolicy(
        TOKENIZER, lambda _, rng: CONSULT if rng.random() < 0.6 else f"\\boxed{{{rng.integers(9)}}}"
    )
    return ScheduledRollout.from_config(with_settings(embedded(), [*SETTINGS, *changes]), policy)


@given(
    st.integers(1, 10),
    st.integers(0, 2**62),
    st.sampled_from(["member", "group"]),
    st.sampled_from(["member", "group"]),
)
@settings(max_examples=40, deadline=None)
def test_members_played_one_by_one_are_the_group(
    step: int, seed: int, budgets: str, draws: str
) -> None:
    one = scheduled(f"rollout.turn_budgets={budgets}", f"rollout.gate_draws={draws}")

    async def both() -> tuple[Any, Any]:
        whole = await one.play_group(PROBLEM, step=step, seed=seed)
        single = [await one.play(PROBLEM, step=step, seed=seed, member=m) for m in range(4)]
        return whole.trajectories, tuple(single)

    whole, single = asyncio.run(both())
    assert whole == single


@given(st.integers(1, 8), st.integers(0, 2**62))
@settings(deadline=None)
def test_the_rules_are_those_of_the_step(step: int, seed: int) -> None:
    one = scheduled("annealing.schedule=power")
    trajectory = asyncio.run(one.play(PROBLEM, step=step, seed=seed, member=1))
    assert trajectory.episode.rules == one.group_rules(step, seed)[1]
    assert trajectory.episode.rules.acceptance_rate == pytest.approx(1 / step)


def test_after_the_schedule_and_in_evaluation_an_episode_is_played_alone() -> None:
    one = scheduled()
    for trajectory in (
        asyncio.run(one.play(PROBLEM, step=9, seed=1)),
        asyncio.run(one.play_alone(PROBLEM, seed=1)),
    ):
        assert trajectory.episode.rules.is_alone
    assert asyncio.run(one.play_alone(PROBLEM, seed=1)).episode.rules == Rules.alone()


def test_an_episode_of_evaluation_is_truncated_as_there() -> None:
    class Noting(ScriptedPolicy):
        async def complete(self, prompt_ids: Any, sampling: Any, seed: int) -> Any:
            seen.append(sampling.truncation)
            return await super().complete(prompt_ids, sampling, seed)

    seen: list[Truncation] = []
    policy = Noting(TOKENIZER, lambda *_: "\\boxed{7}")
    config = with_settings(embedded(), [*SETTINGS, "evaluation.truncation.top_p=0.9"])
    one = ScheduledRollout.from_config(config, policy)
    asyncio.run(one.play_alone(PROBLEM, seed=1))
    asyncio.run(one.play(PROBLEM, step=1, seed=1))
    assert [each.top_p for each in seen[:2]] == [0.9, 1.0]


def test_equal_configs_share_experts_and_verifier() -> None:
    first, again, other = scheduled(), scheduled(), scheduled("verifier.num_workers=1")
    assert first.rollout.experts is again.rollout.experts
    assert first.rollout.verifier is again.rollout.verifier
    assert first.rollout.monitor is again.rollout.monitor
    assert first.rollout.policy is not again.rollout.policy
    assert other.rollout.verifier is not first.rollout.verifier


def test_experts_that_fail_episode_after_episode_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def play(number: int) -> None:
        await scheduled("seed=7").play(PROBLEM, step=1, seed=number)

    for number in range(12):
        asyncio.run(play(number))
    assert "expert replies did not come" in caplog.text


@pytest.mark.parametrize(
    ("setting", "member", "said"),
    [
        ("rollout.help_for=failed_alone", 0, "rollout.help_for=failed_alone needs the whole group"),
        ("annealing.schedule=ours_by_success", 0, "annealing.schedule=ours_by_success needs"),
        ("steps=8", 4, r"member must be in \[0, 4\), not 4"),
    ],
)
def test_what_cannot_be_played_member_by_member(setting: str, member: int, said: str) -> None:
    changes = [setting, "annealing.initial_acceptance_rate=0.5"]
    with pytest.raises(UserError, match=said):
        asyncio.run(scheduled(*changes).play(PROBLEM, step=1, seed=1, member=member))


def test_a_part_that_cannot_be_made_is_named() -> None:
    policy = ScriptedPolicy(TOKENIZER, [])
    experts = replace(embedded().experts, kind="python", factory="nowhere:made", error_rate=0.0)
    config: TrainConfig = replace(embedded(), experts=experts)
    with pytest.raises(UserError, match="nowhere"):
        ScheduledRollout.from_config(config, policy)
