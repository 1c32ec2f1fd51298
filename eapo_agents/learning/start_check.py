"""A check before the first step: sampler and learner agree, row by row and in a batch.

Some models do not read where a packed sequence ends, add a mask where others expect one, or change
their positions with the longest row. Training on them goes on without an error and learns from
wrong log-probabilities. So a few rows of different lengths are scored alone, together in the
learner's layout, and by the policy that sampled them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eapo_agents.learning.sync_probe import sampled_logprobs
from eapo_agents.policies import Policy, plain_ids
from eapo_agents.rollouts import Demonstration
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from eapo_agents.learning.learner import Learner

Ids = npt.NDArray[np.int32]
Logprobs = npt.NDArray[Any]

_TEXT = "What is 6 * 7? Six times seven is forty-two. "
_PROMPT_TOKENS = (12, 31, 50)
_SAMPLED_TOKENS = 8


def check_layout(learner: Learner) -> float:
    """Return the mean difference of rows scored alone and in the learner's layout, in nats.

    Raises:
        UserError: it is more than rounding, or the layout does not work with this model.
    """
    layout = learner.settings.layout
    alone, together = [], []
    for records in _rows(learner.model.config.get_text_config().vocab_size):
        try:
            together += learner.logprobs(records)
        except (RuntimeError, LookupError, TypeError, AttributeError, ValueError) as error:
            raise UserError(
                f"this model cannot be read in the layout {layout!r} ({type(error).__name__}:"
                f" {error}): set learner.layout=padded"
            ) from error
        alone += [learner.logprobs([record])[0] for record in records]
    gap = _mean_gap(alone, together)
    if not gap <= learner.settings.rounding:
        advice = "set learner.layout=padded" if layout != "padded" else _NO_LAYOUT
        raise UserError(
            f"in the layout {layout!r} this model mixes the sequences of a batch: they differ by"
            f" {gap:.3f} nats a token from those of each alone; {advice}"
        )
    return gap


def _rows(vocabulary: int) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return batches of random ids: rows that differ from the start, rows that share a prompt."""
    rng = np.random.default_rng(0)

    def row(start: Ids, length: int) -> Demonstration:
        ids = np.concatenate([start, rng.integers(0, vocabulary, length).astype(np.int32)])
        return Demonstration(token_ids=ids, mask=np.arange(len(ids)) >= max(1, len(start)))

    prompt = rng.integers(0, vocabulary, _PROMPT_TOKENS[0]).astype(np.int32)
    strangers = [row(np.zeros(0, np.int32), length) for length in _PROMPT_TOKENS]
    return strangers, [row(prompt, length) for length in (_SAMPLED_TOKENS, 2 * _SAMPLED_TOKENS)]


async def check_sampler(policy: Policy, learner: Learner) -> float:
    """Return the mean difference between the policy's log-probabilities and the learner's, in nats.

    The policy completes prompts of different lengths at the same time.

    Raises:
        UserError: it is more than rounding.
    """
    text_ids = plain_ids(_TEXT, policy.tokenizer) * max(_PROMPT_TOKENS)
    room = max(1, policy.max_context_tokens - _SAMPLED_TOKENS)
    prompts = [text_ids[: min(length, room)] for length in _PROMPT_TOKENS]
    sampler_N, learner_N = await sampled_logprobs(policy, learner, prompts, _SAMPLED_TOKENS)
    gap = _mean_gap([sampler_N], [learner_N])
    if not gap <= learner.settings.rounding:
        raise UserError(
            f"the policy and the learner differ by {gap:.3f} nats a token on what the policy"
            " sampled: this engine does not compute this model rightly; set engine.kind=vllm"
        )
    return gap


_NO_LAYOUT = "no layout here reads it rightly, so it cannot be trained in batches of several rows"


def _mean_gap(one: Sequence[Logprobs], other: Sequence[Logprobs]) -> float:
    return float(np.mean(np.abs(np.concatenate(one) - np.concatenate(other))))
