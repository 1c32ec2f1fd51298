"""[edge] The rollout that a config describes, and its episodes by training step.

Other trainers than ours ask a `ScheduledRollout` for episodes. It loads no torch and no
transformers: where their versions differ from ours, the core package will do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from eapo_agents.rollouts import Group, Rollout, Trajectory, derive_seed
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.model_defaults import prompts_of
from eapo_env.guarded_experts import ExpertMonitor
from eapo_env.types import Rules
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from eapo_agents.policies import Policy
    from eapo_env.experts import ExpertPool
    from eapo_env.reward import Reward
    from eapo_env.types import Problem
    from eapo_env.verifier import Grader


def make_rollout(
    config: TrainConfig,
    policy: Policy,
    *,
    experts: ExpertPool | None = None,
    reward: Reward | None = None,
    verifier: Grader | None = None,
) -> Rollout:
    """Return a config's rollout with this policy; each part given replaces the config's."""
    return Rollout(
        policy=policy,
        experts=config.experts.build() if experts is None else experts,
        verifier=config.verifier.build() if verifier is None else verifier,
        reward=config.reward.build() if reward is None else reward,
        prompts=prompts_of(config),
        limits=config.rollout.limits,
        temperature=config.rollout.temperature,
        truncation=config.rollout.truncation,
        expert_timeout_s=config.experts.batch_timeout_s,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduledRollout:
    """Plays the episodes of a config under the rules of a training step.

    Args:
        config: decides the rules of a step: its schedule, its groups.
        rollout: plays the episodes.
    """

    config: TrainConfig
    rollout: Rollout

    @classmethod
    def from_config(cls, config: TrainConfig, policy: Policy) -> ScheduledRollout:
        """Return a config's rollout with this policy.

        Experts, their monitor, reward and verifier are made once in a process: equal configs share
        them.

        Whether the experts' servers answer is not checked: `config.experts.check()` does that.

        Raises:
            UserError: a part cannot be made.
        """
        experts, reward, verifier, monitor = _shared_parts(config.to_json())
        rollout = make_rollout(config, policy, experts=experts, reward=reward, verifier=verifier)
        return cls(config=config, rollout=replace(rollout, monitor=monitor))

    async def play_group(
        self, problem: Problem, *, step: int, seed: int, success: float = 0.0
    ) -> Group:
        """Return the group of a problem.

        Args:
            step: the training step, from 1.
            seed: decides everything random, the turn budgets of the members included.
            success: the best share of episodes alone that were right, of `ours_by_success`.
        """
        settings, rules = self.config.rollout, self.group_rules(step, seed, success)
        if settings.help_for == "failed_alone" and not all(one.is_alone for one in rules):
            own = [Rules.alone()] * len(rules)
            alone = await self.rollout.play_group(problem, own, seed=derive_seed(seed, 2))
            if alone.correct_G.any():
                return alone
        return await self.rollout.play_group(
            problem, rules, seed=seed, gate_draws=settings.gate_draws
        )

    async def play(self, problem: Problem, *, step: int, seed: int, member: int = 0) -> Trajectory:
        """Return one trajectory of a group, for trainers that play its members one by one.

        Args:
            step: of the group, as in `play_group`.
            seed: of the group, as in `play_group`.
            member: the index in the group.

        Raises:
            UserError: no such member, or settings that need a whole group.
        """
        settings, schedule = self.config.rollout, self.config.annealing.schedule
        if settings.help_for != "all":
            raise UserError(f"rollout.help_for={settings.help_for} needs the whole group at once")
        if schedule == "ours_by_success":
            raise UserError(f"annealing.schedule={schedule} needs the success of earlier groups")
        if not 0 <= member < settings.group_size:
            raise UserError(f"member must be in [0, {settings.group_size}), not {member}")
        return await self.rollout.play_member(
            problem,
            self.group_rules(step, seed),
            member,
            seed=seed,
            gate_draws=settings.gate_draws,
        )

    async def play_alone(self, problem: Problem, *, seed: int) -> Trajectory:
        """Return the trajectory of an episode of evaluation: alone, truncated as there."""
        rollout = replace(self.rollout, truncation=self.config.evaluation.truncation)
        return await rollout.play(problem, Rules.alone(), seed=seed)

    def group_rules(self, step: int, seed: int, success: float = 0.0) -> list[Rules]:
        """Return each member's rules; a turn budget is drawn per member, or once per group."""
        settings = self.config.rollout
        draws = np.random.default_rng(seed).random(settings.group_size).tolist()
        if settings.turn_budgets == "group":
            draws = draws[:1] * len(draws)
        return [self.config.schedule.rules_at(step, draw, success) for draw in draws]


@cache
def _shared_parts(config: str) -> tuple[ExpertPool, Reward, Grader, ExpertMonitor]:
    """Return the parts of a config, given as JSON, that a whole process can share."""
    settings = TrainConfig.from_json(config)
    return (
        settings.experts.build(),
        settings.reward.build(),
        settings.verifier.build(),
        ExpertMonitor(),
    )
