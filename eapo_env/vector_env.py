"""Many episodes behind Gymnasium's vector interface, with one batch of waiting per step.

In a step every sub-environment's completion is parsed first, then the queries of all go to the
experts as one batch, then the answers of all go to the verifier as one batch, and the outcomes
are applied in index order. The interface demands lock-step; for episodes at their own pace, play
each in a coroutine with `play_episode` (`driver.py`) or `EAPOMathEnv.step_async`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from itertools import islice
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.error import ResetNeeded
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from eapo_env.env import EAPOMathEnv, StepResult, Turn
from eapo_env.options import check_mapping
from eapo_env.types import Rules
from eapo_env.validation import UserError, at_least, whole

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Seeds = int | Sequence[int | None] | None


class EAPOMathVectorEnv(gym.vector.VectorEnv[tuple[str, ...], Sequence[str], npt.NDArray[Any]]):
    """`num_envs` copies of `EAPOMathEnv` that step together, with the values of a `SyncVectorEnv`.

    Args:
        num_envs: the number of sub-environments.
        autoreset_mode: what happens to an episode that is over; Gymnasium's enum, or its name or
            value as a string. `NEXT_STEP`: the next step resets it and ignores its action.
            `SAME_STEP`: the same step does, and the end is in the infos as `final_obs` and
            `final_info`. `DISABLED`: the caller resets it, with
            `reset(options={"reset_mask": ...})`.
        max_episode_steps: an episode of so many steps is truncated, as by `gym.make`; None and -1
            set no limit.
        settings: the arguments of `EAPOMathEnv`, shared by all.

    Raises:
        UserError: no sub-environment, or an invalid argument.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **EAPOMathEnv.metadata,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        *,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        max_episode_steps: int | None = None,
        **settings: Any,
    ) -> None:
        self.num_envs = num_envs
        whole(self, "num_envs")
        at_least(1, self, "num_envs")
        self.autoreset_mode = _autoreset_mode(autoreset_mode)
        self.max_episode_steps = _step_limit(max_episode_steps)
        self.metadata = {**self.metadata, "autoreset_mode": self.autoreset_mode}  # type: ignore[misc]
        first = EAPOMathEnv(**settings)
        # Before the first reset a sub-environment holds nothing but what all of them share.
        self.envs = (first, *(copy(first) for _ in range(num_envs - 1)))
        self.render_mode = first.render_mode
        self.single_observation_space = first.observation_space
        self.single_action_space = first.action_space
        self.observation_space = batch_space(first.observation_space, num_envs)
        self.action_space = batch_space(first.action_space, num_envs)

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, Any] | None = None
    ) -> tuple[tuple[str, ...], dict[str, Any]]:
        """Return the observations, and the infos of the sub-environments that were reset.

        Args:
            seed: a number s gives sub-environment i the seed s + i; a sequence gives each its
                own; see `EAPOMathEnv.reset`.
            options: those of `EAPOMathEnv.reset`, for all; `problem_ids` and `gate_seeds`, one per
                sub-environment (with None a problem is drawn, and the gate has the episode's
                seed); `reset_mask`, a boolean array of those to reset.

        Raises:
            UserError: an unknown option, or an invalid value.
        """
        check_mapping(options or {})
        shared = dict(options or {})
        mask = self._mask(shared.pop("reset_mask", None))
        one_each = {
            name: self._one_each(f"{name}s", shared.pop(f"{name}s", None))
            for name in ("problem_id", "gate_seed")
        }
        infos: dict[str, Any] = {}
        for index, (env, own_seed) in enumerate(zip(self.envs, self._seeds(seed), strict=True)):
            if mask[index]:
                own = {name: values[index] for name, values in one_each.items()}
                chosen = {name: value for name, value in own.items() if value is not None}
                _, info = env.reset(seed=own_seed, options=shared | chosen)
                infos = self._add_info(infos, info, index)
        return self._observations(), infos

    def step(
        self, actions: Sequence[str]
    ) -> tuple[tuple[str, ...], Floats, Bools, Bools, dict[str, Any]]:
        """Return observations, rewards, terminations, truncations and infos after one step of all.

        Raises:
            ResetNeeded: an episode is missing, or is over and this mode does not reset it here.
            UserError: not one string per sub-environment. Nothing has changed then.
        """
        turns = self._begin_turns(actions)
        results = self._wait_for(turns)
        rewards = np.zeros(self.num_envs, dtype=np.float64)
        terminations = np.zeros(self.num_envs, dtype=np.bool_)
        truncations = np.zeros(self.num_envs, dtype=np.bool_)
        infos: dict[str, Any] = {}
        for index, (env, result) in enumerate(zip(self.envs, results, strict=True)):
            observation, rewards[index], terminations[index], _, info = result
            truncations[index] = self._is_truncated(env)
            over = terminations[index] or truncations[index]
            if over and self.autoreset_mode is AutoresetMode.SAME_STEP:
                final = {"final_obs": observation, "final_info": info}
                infos = self._add_info(infos, final, index)
                _, info = env.reset()
            infos = self._add_info(infos, info, index)
        return self._observations(), rewards, terminations, truncations, infos

    @property
    def rules(self) -> tuple[Rules, ...]:
        """The rules of each sub-environment's next episode; may be set, to one value for all."""
        return tuple(env.rules for env in self.envs)

    @rules.setter
    def rules(self, rules: Rules) -> None:
        self.set_attr("rules", rules)

    def call(self, name: str, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        """Return what a method of every sub-environment returns; an attribute's value as it is."""
        found = self.get_attr(name)
        return tuple(value(*args, **kwargs) if callable(value) else value for value in found)

    def get_attr(self, name: str) -> tuple[Any, ...]:
        """Return an attribute of every sub-environment."""
        return tuple(getattr(env, name) for env in self.envs)

    def set_attr(self, name: str, values: Any) -> None:
        """Set an attribute of every sub-environment: to each its own from a list, or one to all."""
        each = values if isinstance(values, list | tuple) else [values] * self.num_envs
        for env, value in zip(self.envs, self._one_each(name, each), strict=True):
            setattr(env, name, value)

    def render(self) -> tuple[Any, ...]:
        """Return what each sub-environment renders."""
        return tuple(env.render() for env in self.envs)

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the verifier, if it was made here."""
        self.envs[0].close()

    def _begin_turns(self, actions: Sequence[str]) -> list[Turn | None]:
        """Return every live sub-environment's turn, None for those that this step resets."""
        if isinstance(actions, str) or len(actions) != self.num_envs:
            raise UserError(
                f"a sequence of {self.num_envs} actions is needed, not {actions!r:.200}"
            )
        for action in actions:
            if not isinstance(action, str):
                raise UserError(f"every action must be a string, not {action!r:.200}")
        over = [env.episode.stop_reason is not None or self._is_truncated(env) for env in self.envs]
        if any(over) and self.autoreset_mode is not AutoresetMode.NEXT_STEP:
            ended = [index for index, is_over in enumerate(over) if is_over]
            raise ResetNeeded(
                f"these episodes are over: {ended}; reset them first, as by"
                " reset(options={'reset_mask': terminations | truncations})"
            )
        return [
            None if is_over else env.begin_turn(action)
            for env, action, is_over in zip(self.envs, actions, over, strict=True)
        ]

    def _wait_for(self, turns: Sequence[Turn | None]) -> list[StepResult]:
        """Return every sub-environment's result, having asked and verified all at once."""
        queries = [query for turn in turns if turn for query in turn.queries]
        pairs = [pair for turn in turns if turn for pair in turn.pairs]
        replies = self.envs[0].guarded_experts.ask_now(queries) if queries else ()
        verdicts = self.envs[0].verifier.verify(pairs) if pairs else ()
        next_replies, next_verdicts = iter(replies), iter(verdicts)
        return [
            env.end_turn(
                turn,
                tuple(islice(next_replies, len(turn.queries))),
                tuple(islice(next_verdicts, len(turn.pairs))),
            )
            if turn
            else _reset(env)
            for env, turn in zip(self.envs, turns, strict=True)
        ]

    def _is_truncated(self, env: EAPOMathEnv) -> bool:
        return self.max_episode_steps is not None and env.episode.turn >= self.max_episode_steps

    def _observations(self) -> tuple[str, ...]:
        return tuple(env.observe() for env in self.envs)

    def _seeds(self, seed: Seeds) -> Sequence[int | None]:
        if isinstance(seed, int | np.integer):
            return [int(seed) + index for index in range(self.num_envs)]
        return self._one_each("seed", seed)

    def _one_each(self, name: str, values: Sequence[Any] | None) -> Sequence[Any]:
        if values is None:
            return [None] * self.num_envs
        if (
            isinstance(values, str)
            or not hasattr(values, "__len__")
            or len(values) != self.num_envs
        ):
            raise UserError(f"{name} must hold {self.num_envs} values, not {values!r:.200}")
        return values

    def _mask(self, mask: object) -> Bools:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if (
            not isinstance(mask, np.ndarray)
            or mask.shape != (self.num_envs,)
            or mask.dtype != np.bool_
            or not mask.any()
        ):
            raise UserError(
                f"reset_mask must be a boolean array of shape ({self.num_envs},) with a True in"
                f" it, not {mask!r}"
            )
        return mask


def _autoreset_mode(given: AutoresetMode | str) -> AutoresetMode:
    for mode in AutoresetMode:
        if given in (mode, mode.name, mode.value):
            return mode
    names = ", ".join(mode.name for mode in AutoresetMode)
    raise UserError(f"autoreset_mode must be one of {names}, not {given!r}")


def _step_limit(given: int | None) -> int | None:
    if given is None or given == -1:
        return None
    if not isinstance(given, int | np.integer) or given < 1:
        raise UserError(f"max_episode_steps must be a whole number from 1 on, not {given!r}")
    return int(given)


def _reset(env: EAPOMathEnv) -> StepResult:
    observation, info = env.reset()
    return observation, 0.0, False, False, info
