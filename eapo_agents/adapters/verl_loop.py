"""[edge] The agent loop `eapo` of verl: one episode of the environment, sampled by verl's servers.

verl imports this module itself, as a plug-in (entry point group `verl.plugins`). Rows of the data
files name the loop; `eapo export-verl` writes them. For verl 0.9 with its trainer V1.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from omegaconf import OmegaConf
from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)

from eapo_agents.adapters.verl_config import AGENT_NAME, problem_of, verl_settings
from eapo_agents.policies import Completion, PolicyError, Sampling
from eapo_agents.rollouts import Trajectory, derive_seed
from eapo_agents.training import ScheduledRollout, TrainConfig
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase


class EpisodePolicy:
    """The policy of one episode, sampled by verl's servers, which keep its prefix in their cache.

    Temperature and truncation are verl's (`sampling_params`), and so are the random numbers.

    Args:
        client: verl's `LLMServerClient`.
        tokenizer: of the model.
        sampling_params: verl's, of training or of validation.
        max_model_len: the most ids of prompt and completion together.
        response_length: the most ids after the opening prompt, replies of experts included.
    """

    def __init__(
        self,
        client: Any,
        tokenizer: PreTrainedTokenizerBase,
        sampling_params: Mapping[str, Any],
        *,
        max_model_len: int,
        response_length: int,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_context_tokens = max_model_len
        self.weight_versions: list[int] = []
        """The training steps whose weights have sampled, where the servers say."""
        self.seconds = 0.0
        """The time that sampling took."""
        self._client, self._sampling_params = client, sampling_params
        self._response_length = response_length
        self._request_id = uuid4().hex

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return verl's completion of a prompt.

        Raises:
            PolicyError: the server returned nothing, or no log-probabilities.
        """
        end = len(prompt_ids) + self._response_length  # the lowest is that of the opening prompt
        self.max_context_tokens = min(self.max_context_tokens, end)
        limit = min(sampling.max_tokens, self.max_context_tokens - len(prompt_ids))
        params = {**self._sampling_params, "max_tokens": limit}
        if sampling.stop:
            params |= {"stop": list(sampling.stop), "include_stop_str_in_output": True}
        start = time.monotonic()
        output = await self._client.generate(
            self._request_id, prompt_ids=list(prompt_ids), sampling_params=params
        )
        self.seconds += time.monotonic() - start
        self.weight_versions += [
            step
            for name in ("min_global_steps", "max_global_steps")
            if (step := output.extra_fields.get(name)) is not None
        ]
        ids, logprobs = output.token_ids, output.log_probs
        if not ids or not logprobs or len(ids) != len(logprobs):
            raise PolicyError(
                f"verl's server returned {len(ids)} ids and {len(logprobs or ())} logprobs:"
                " actor_rollout_ref.rollout.calculate_log_probs must be True"
            )
        ended = len(ids) < limit or ids[-1] == self.tokenizer.eos_token_id
        return Completion(
            token_ids=tuple(ids), logprobs=tuple(logprobs), finish="stop" if ended else "length"
        )

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Do nothing: verl hands its weights over itself."""

    def close(self) -> None:
        """Do nothing: the servers are verl's."""


@register(AGENT_NAME)
class EapoAgentLoop(AgentLoopBase):
    """Plays an episode under the rules of the training step in which verl dispatched it.

    Args:
        trainer_config: verl's whole config, in a wrapper.
        server_manager: verl's `LLMServerClient`.
        tokenizer: of the model.
        others: what verl's own loops use, its continuous token builder among them, which refuses
            the chat templates of reasoning models.
    """

    def __init__(
        self,
        trainer_config: Any,
        server_manager: Any,
        tokenizer: PreTrainedTokenizerBase,
        **others: Any,
    ) -> None:
        self.config = trainer_config.config
        self.rollout_config = self.config.actor_rollout_ref.rollout
        self.server_manager = server_manager
        self.tokenizer = tokenizer

    async def run(self, sampling_params: dict[str, Any], **row: Any) -> AgentLoopOutput:
        """Return the trajectory of one row, with its reward.

        Raises:
            UserError: a setting or a row that does not fit.
        """
        if "global_steps" not in row:
            raise UserError("verl did not say its training step: trainer.use_v1 must be True")
        settings = self._settings
        policy = EpisodePolicy(
            self.server_manager,
            self.tokenizer,
            sampling_params,
            max_model_len=self._max_model_len,
            response_length=self.rollout_config.response_length,
        )
        episodes = ScheduledRollout.from_config(settings, policy)
        start = time.monotonic()
        problem, extra = problem_of(row), row["extra_info"]
        number, member, step = int(extra["index"]), int(row["session_id"]), int(row["global_steps"])
        if extra["alone"]:
            seed = derive_seed(settings.evaluation_seed, number, member)
            trajectory = await episodes.play_alone(problem, seed=seed)
        else:
            seed = derive_seed(settings.seed, 1, step, number)
            trajectory = await episodes.play(problem, step=step, seed=seed, member=member)
        waited = time.monotonic() - start - policy.seconds
        return output_of(trajectory, policy, waited_s=waited)

    @property
    def _settings(self) -> TrainConfig:
        own = self.config.get("eapo")
        eapo = None if own is None else OmegaConf.to_container(own, resolve=True)
        return verl_settings({**self.config, "eapo": eapo})

    @property
    def _max_model_len(self) -> int:
        rollout = self.rollout_config
        return int(rollout.max_model_len or rollout.prompt_length + rollout.response_length)


def output_of(trajectory: Trajectory, policy: EpisodePolicy, *, waited_s: float) -> AgentLoopOutput:
    """Return a trajectory as verl takes it: what was read after the last sampled id is left out.

    Args:
        waited_s: the time that everything but sampling took: experts, grading.

    Raises:
        UserError: the policy had no room to write in.
    """
    sampled = np.flatnonzero(trajectory.mask)
    if not len(sampled):
        raise UserError(
            f"a prompt of {trajectory.num_tokens} tokens leaves no room: data.max_prompt_length and"
            " data.filter_overlong_prompts=True leave out such rows"
        )
    first, end = int(sampled[0]), int(sampled[-1]) + 1
    episode, versions = trajectory.episode, policy.weight_versions
    return AgentLoopOutput(
        prompt_ids=trajectory.token_ids[:first].tolist(),
        response_ids=trajectory.token_ids[first:end].tolist(),
        response_mask=trajectory.mask[first:end].astype(int).tolist(),
        response_logprobs=trajectory.logprobs[first:end].tolist(),
        reward_score=trajectory.reward,
        num_turns=len(episode.messages),
        metrics=AgentLoopMetrics(generate_sequences=policy.seconds, tool_calls=waited_s),
        extra_fields={
            "min_global_steps": min(versions, default=None),
            "max_global_steps": max(versions, default=None),
            "reward_extra_info": {
                "acc": float(trajectory.correct),
                "acceptance_rate": episode.rules.acceptance_rate,
                "turn_budget": float(episode.rules.turn_budget),
                "queries": float(episode.num_queries),
                "accepted": float(episode.num_accepted),
                **episode.spent.metrics(),
            },
        },
    )
