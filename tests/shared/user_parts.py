"""Parts that a user of the package writes: an algorithm, a reward, experts, an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eapo_agents.learning import LossInputs, LossOutput, Processes
from eapo_agents.learning.advantages import Rewards
from eapo_agents.policies import HFPolicy, ModelSettings, load_model
from eapo_agents.training import TrainConfig, Trainer
from eapo_env.episode import Episode
from eapo_env.types import ExpertReply, Query, Reply


@dataclass(frozen=True)
class OnlySuccesses:
    """REINFORCE on the rewarded sequences alone: no baseline, no clipping."""

    name: str = "only-successes"

    def advantages(self, rewards_G: Rewards) -> Rewards:
        return np.maximum(rewards_G, 0.0)

    def loss(self, inputs: LossInputs) -> LossOutput:
        logp_B = (inputs.logp_BT * inputs.mask_BT).sum(1)
        return LossOutput(loss=-(inputs.advantage_B * logp_B).sum() / inputs.num_sequences)


@dataclass(frozen=True)
class Brief:
    """A reward for a right answer, less for a longer one."""

    def reward(self, episode: Episode, score: float, num_policy_tokens: int) -> float:
        return float(score) / (1 + num_policy_tokens)


@dataclass(frozen=True)
class Librarian:
    """A pool whose every other answer is right."""

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Reply("librarian", f"\\boxed{{{(3, 7)[query.slot % 2]}}}") for query in queries]


def copied_model(path: str) -> HFPolicy:
    """A policy with its own copy of the weights, which may sample while the learner learns."""
    return HFPolicy(*load_model(ModelSettings(path=path)))


def custom_trainer(config: TrainConfig, processes: Processes) -> Trainer:
    return Trainer.from_config(
        config,
        algorithm=OnlySuccesses(),
        reward=Brief(),
        experts=Librarian(),
        processes=processes,
    )
