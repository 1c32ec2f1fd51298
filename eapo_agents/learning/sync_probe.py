"""A check that the policy samples from the learner's weights, run after every hand-over of them.

A hand-over that fails silently is the most expensive fault there is: training goes on, and the
policy never gets the updates, or only a part of them. So the policy completes one fixed prompt, and
the learner computes the log-probabilities of what was sampled. The prompt stays the same and is
longer than the blocks of a prefix cache, so that keys and values of old weights are caught as well.
A policy with several replicas is probed at each of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eapo_agents.policies import (
    Completion,
    Policy,
    PolicyError,
    Sampler,
    Sampling,
    plain_ids,
    replicas,
)
from eapo_agents.rollouts import Demonstration, gather
from eapo_env.validation import at_least, positive

if TYPE_CHECKING:
    from eapo_agents.learning.learner import Learner

_TEXT = "What is 6 * 7? Six times seven is forty-two. "
_PROMPT_TOKENS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProbe:
    """How closely the log-probabilities of policy and learner must agree, and on how many tokens.

    Args:
        tolerance: the mean difference of the tokens' log-probabilities, in nats, that counts as
            rounding; by default that of the learner's precision (`LearnerSettings.rounding`).
        num_completions: completions of the fixed prompt.
        max_tokens: the most tokens of each completion.

    Raises:
        UserError: a value out of its range.
    """

    tolerance: float | None = None
    num_completions: int = 4
    max_tokens: int = 16

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            positive(self, "tolerance")
        at_least(1, self, "num_completions", "max_tokens")

    async def check(self, policy: Policy, learner: Learner) -> float:
        """Return the mean difference of log-probabilities on the probe's tokens, in nats.

        Of several replicas, that of the one which differs most.

        Raises:
            PolicyError: it is beyond the tolerance, or NaN.
        """
        prompts = [self._prompt_ids(policy)] * self.num_completions
        probed = replicas(policy)
        return max(
            await gather(
                self._gap(one, learner, prompts, _named(number, len(probed)))
                for number, one in enumerate(probed, start=1)
            )
        )

    async def _gap(
        self, sampler: Sampler, learner: Learner, prompts: Sequence[Sequence[int]], name: str
    ) -> float:
        sampler_N, learner_N = await sampled_logprobs(sampler, learner, prompts, self.max_tokens)
        gap_N = np.abs(sampler_N - learner_N)
        gap, worst = float(np.mean(gap_N)), int(np.argmax(gap_N))
        tolerance = self.tolerance or learner.settings.rounding
        if not gap <= tolerance:
            raise PolicyError(
                f"{name} does not sample from the learner's weights: they differ by {gap:.6f}"
                f" nats a token, and the tolerance is {tolerance:g}; at most, the policy gives a"
                f" token the log-probability {sampler_N[worst]:.6f}, the learner"
                f" {learner_N[worst]:.6f}. If the two differ in precision only, set sync.tolerance"
            )
        return gap

    def _prompt_ids(self, policy: Policy) -> Sequence[int]:
        room = policy.max_context_tokens - self.max_tokens
        text_ids = plain_ids(_TEXT, policy.tokenizer)
        return (text_ids * _PROMPT_TOKENS)[: max(1, min(_PROMPT_TOKENS, room))]


def _named(number: int, of: int) -> str:
    return "the policy" if of == 1 else f"replica {number} of {of} of the policy"


async def sampled_logprobs(
    sampler: Sampler, learner: Learner, prompts: Sequence[Sequence[int]], max_tokens: int
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the sampler's and the learner's log-probabilities (N) of what the sampler draws.

    The prompts are completed at the same time, and scored one at a time.
    """
    sampling = Sampling(max_tokens=max_tokens, temperature=learner.temperature)
    completions = await asyncio.gather(
        *(sampler.complete(prompt, sampling, seed) for seed, prompt in enumerate(prompts))
    )
    records = [_record(*pair) for pair in zip(prompts, completions, strict=True)]
    scored = [learner.logprobs([record])[0][record.mask] for record in records]
    sampled = [completion.logprobs for completion in completions]
    return np.concatenate(sampled), np.concatenate(scored)


def _record(prompt_ids: Sequence[int], completion: Completion) -> Demonstration:
    sampled = len(completion.token_ids)
    return Demonstration(
        token_ids=np.array([*prompt_ids, *completion.token_ids], np.int32),
        mask=np.array([False] * len(prompt_ids) + [True] * sampled),
    )
