"""The environment as a vector of numbers and a choice, for any agent of any RL library.

Owns `DecisionVectorEnv`, which turns decisions into the texts of `EAPOMathVectorEnv`'s episodes;
`ScheduledRules`, which changes the rules while an agent trains; and `play`, which says how
well decisions do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from eapo_agents.decision_writers import Writer
from eapo_agents.decisions import (
    ANSWER,
    FEATURES,
    Features,
    answering,
    consulting,
    features,
    meaningful,
)
from eapo_agents.rollout import derive_seed, gather
from eapo_env.episode import Episode
from eapo_env.event_loop import run
from eapo_env.types import Rules
from eapo_env.vector_env import Bools, EAPOMathVectorEnv, Floats, Seeds

Decisions = npt.NDArray[np.integer[Any]]
Decide = Callable[[Features], Decisions]
"""From a batch of observations to a decision for each."""
RulesAt = Callable[[int, float], Rules]


class DecisionVectorEnv(VectorEnv[Features, Decisions, npt.NDArray[Any]]):
    """`num_envs` episodes whose turns are decisions: 0 answers, k consults k experts.

    The observation is `eapo_agents.decisions.FEATURES`. A decision that means nothing in an
    episode is read as the nearest one that does. An episode that is over is reset in the same
    step, its end in the infos as `final_obs` and `final_info`; infos hold the keys of
    `eapo_env.env.EAPOMathEnv`.

    Args:
        num_envs: the number of sub-environments.
        writer: who finds the words.
        settings: the arguments of `EAPOMathEnv`, shared by all. There are as many decisions as
            their rules allow queries a turn, and one more.

    Raises:
        ValueError: no sub-environment, or a bad value.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **EAPOMathVectorEnv.metadata,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int, *, writer: Writer, **settings: Any) -> None:
        self.texts = EAPOMathVectorEnv(num_envs, autoreset_mode=AutoresetMode.DISABLED, **settings)
        self.writer = writer
        self.num_envs = num_envs
        self.render_mode = self.texts.render_mode
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.single_action_space = gym.spaces.Discrete(1 + self.rules[0].queries_per_turn)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def rules(self) -> tuple[Rules, ...]:
        """The rules of each sub-environment's next episode; set to one value for all, or each."""
        return self.texts.rules

    @rules.setter
    def rules(self, rules: Rules | Sequence[Rules]) -> None:
        self.texts.set_attr("rules", rules)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes so far, as values."""
        return tuple(env.episode for env in self.texts.envs)

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Return observations and infos of fresh episodes; see `EAPOMathVectorEnv.reset`."""
        _, infos = self.texts.reset(seed=seed, options=options)
        return self._observations(), infos

    def step(self, actions: Decisions) -> tuple[Features, Floats, Bools, Bools, dict[str, Any]]:
        """Return observations, rewards, terminations, truncations and infos.

        Raises:
            ResetNeeded: nothing has been reset yet.
            ValueError: not one decision per sub-environment. Nothing has changed then.
            OSError: the writer's model cannot be reached. Nothing has changed then.
        """
        decisions = self._checked(actions)
        texts = run(gather(map(self._write, self.episodes, decisions)))
        _, rewards, terminations, truncations, _ = self.texts.step(texts)
        infos: dict[str, Any] = {}
        for index, env in enumerate(self.texts.envs):
            if terminations[index] or truncations[index]:
                final = {"final_obs": features(env.episode), "final_info": env.inform()}
                infos = self._add_info(infos, final, index)
                env.reset()
            infos = self._add_info(infos, env.inform(), index)
        return self._observations(), rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...]:
        """Return what each sub-environment renders: the texts."""
        return self.texts.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the verifier, if it was made here."""
        self.texts.close()

    async def _write(self, episode: Episode, decision: int) -> str:
        count = meaningful(decision, episode)
        seed = derive_seed(episode.seed, 1, episode.turn)
        if count == ANSWER:
            return answering(await self.writer.answer(episode, seed))
        return consulting(await self.writer.questions(episode, count, seed), count, episode)

    def _checked(self, actions: Decisions) -> list[int]:
        array = np.asarray(actions)
        whole = np.issubdtype(array.dtype, np.integer)
        if not (whole and self.action_space.contains(array.astype(np.int64))):
            raise ValueError(f"decisions must be in {self.action_space}, not {actions!r:.200}")
        return [int(decision) for decision in array]

    def _observations(self) -> Features:
        return np.stack([features(episode) for episode in self.episodes])


class ScheduledRules(VectorWrapper[Features, Decisions, npt.NDArray[Any]]):
    """Changes the rules as an agent trains: a step of this wrapper is a training step.

    Episodes that begin in a step have its rules.

    Args:
        env: the environment whose rules are set.
        rules_at: (step, draw) -> rules, as `eapo_env.annealing.Annealing.rules_at`. There are as
            many draws as sub-environments, evenly spaced over (0, 1). A sub-environment begins at
            one of its own and takes the next with each episode that it begins, so that all draws
            have the same share of its episodes, however long these are.
    """

    env: DecisionVectorEnv

    def __init__(self, env: DecisionVectorEnv, rules_at: RulesAt) -> None:
        super().__init__(env)
        self.rules_at = rules_at
        self.num_steps = 0
        self._places = np.arange(self.num_envs)
        self._set_rules()

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Return what the environment's reset does."""
        self._set_rules()
        result = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        self._places += 1 if mask is None else mask
        return result

    def step(self, actions: Decisions) -> tuple[Features, Floats, Bools, Bools, dict[str, Any]]:
        """Return what the environment's step does, and count it."""
        self.num_steps += 1
        self._set_rules()
        result = self.env.step(actions)
        _, _, terminations, truncations, _ = result
        self._places += terminations | truncations
        return result

    def _set_rules(self) -> None:
        draws = (self._places % self.num_envs + 0.5) / self.num_envs
        self.env.rules = [self.rules_at(self.num_steps, float(draw)) for draw in draws]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well decisions did: means over episodes.

    Args:
        reward: penalties included.
        accuracy: the share of right answers.
        queries: the number put to the gate.
        call_rate: the share of episodes with a consultation.
    """

    reward: float
    accuracy: float
    queries: float
    call_rate: float


def play(
    env: DecisionVectorEnv, decide: Decide, rules: Rules, *, rounds: int = 16, seed: int = 0
) -> Score:
    """Return the score of `rounds` episodes of each sub-environment, under these rules.

    Every sub-environment's first episodes count, so short ones do not count more. The environment's
    own rules are as before afterwards, even if the decisions or a model raise.

    Raises:
        ValueError: fewer than one round.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    before, env.rules = env.rules, rules
    try:
        ends = _ends(env, decide, rounds, seed)
    finally:
        env.rules = before
    reward, correct, queries = np.array([end for some in ends for end in some[:rounds]]).T
    return Score(
        reward=float(reward.mean()),
        accuracy=float(correct.mean()),
        queries=float(queries.mean()),
        call_rate=float((queries > 0).mean()),
    )


def _ends(
    env: DecisionVectorEnv, decide: Decide, rounds: int, seed: int
) -> list[list[tuple[float, bool, int]]]:
    """Return reward, verdict and queries of each sub-environment's episodes, so many or more."""
    ends: list[list[tuple[float, bool, int]]] = [[] for _ in range(env.num_envs)]
    observations, _ = env.reset(seed=seed)
    while min(map(len, ends)) < rounds:
        observations, rewards, over, _, infos = env.step(decide(observations))
        for index in np.flatnonzero(over):
            final = infos["final_info"]
            end = (rewards[index], final["correct"][index], final["queries"][index])
            ends[index].append(end)
    return ends


def always(decision: int) -> Decide:
    """Return the baseline that consults so many experts in an episode's first turn, or none.

    It answers in the second.
    """
    asked = FEATURES.index("consultations")
    return lambda observations: np.where(observations[:, asked] > 0, ANSWER, decision)
