"""A check that the policy samples from the learner's weights, run after every hand-over of them.

A hand-over that fails silently is the most expensive fault there is: training goes on, and the
policy never gets the updates, or only a part of them. So the policy completes one fixed prompt, and
the learner computes the log-probabilities of what was sampled. The prompt stays the same and is
longer than the blocks of a prefix cache, so that keys and values of old weights are caught as well.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from eapo_agents.policies import Completion, Policy, PolicyError, Sampling, plain_ids
from eapo_agents.rollouts import Demonstration
from eapo_env.validation import at_least, positive

if TYPE_CHECKING:
    from eapo_agents.learning.learner import Learner

_TEXT = "What is 6 * 7? Six times seven is forty-two. "
_PROMPT_TOKENS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncProbe:
    """How closely the log-probabilities of policy and learner must agree, and on how many tokens.

    Args:
        tolerance: the largest difference of a token's log-probabilities, in nats, that counts as
            rounding. In float32 differences are below 1e-5; a sampler in bfloat16 reaches 1e-2 on
            small models and several times that on large ones.
        num_completions: completions of the fixed prompt.
        max_tokens: the most tokens of each completion.

    Raises:
        UserError: a value out of its range.
    """

    tolerance: float = 0.01
    num_completions: int = 4
    max_tokens: int = 16

    def __post_init__(self) -> None:
        positive(self, "tolerance")
        at_least(1, self, "num_completions", "max_tokens")

    async def check(self, policy: Policy, learner: Learner) -> float:
        """Return the largest difference of log-probabilities on the probe's tokens, in nats.

        Raises:
            PolicyError: it is beyond the tolerance, or NaN.
        """
        prompt_ids = self._prompt_ids(policy)
        sampling = Sampling(max_tokens=self.max_tokens, temperature=learner.temperature)
        completions = await asyncio.gather(
            *(policy.complete(prompt_ids, sampling, n) for n in range(self.num_completions))
        )
        records = [_record(prompt_ids, completion) for completion in completions]
        sampler_N = np.concatenate([completion.logprobs for completion in completions])
        learner_N = np.concatenate(
            [
                logp_T[record.mask]
                for logp_T, record in zip(learner.logprobs(records), records, strict=True)
            ]
        )
        gap_N = np.abs(sampler_N - learner_N)
        worst = int(np.argmax(gap_N))
        if not gap_N[worst] <= self.tolerance:
            raise PolicyError(
                "the policy does not sample from the learner's weights: it gives a token the"
                f" log-probability {sampler_N[worst]:.6f}, the learner {learner_N[worst]:.6f};"
                f" they differ by {gap_N[worst]:.6f}, and the tolerance is {self.tolerance:g}."
                " If the two differ in precision only, raise the tolerance"
            )
        return float(gap_N[worst])

    def _prompt_ids(self, policy: Policy) -> Sequence[int]:
        room = policy.max_context_tokens - self.max_tokens
        text_ids = plain_ids(_TEXT, policy.tokenizer)
        return (text_ids * _PROMPT_TOKENS)[: max(1, min(_PROMPT_TOKENS, room))]


def _record(prompt_ids: Sequence[int], completion: Completion) -> Demonstration:
    sampled = len(completion.token_ids)
    return Demonstration(
        token_ids=np.array([*prompt_ids, *completion.token_ids]),
        mask=np.array([False] * len(prompt_ids) + [True] * sampled),
    )
