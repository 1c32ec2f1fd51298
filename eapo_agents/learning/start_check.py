"""A check before the first step: sampler and learner agree, row by row and in a batch.

Some models do not read where a packed sequence ends, add a mask where others expect one, or change
their positions with the longest row. Training on them goes on without an error and learns from
wrong log-probabilities. So a few rows of different lengths are sampled alone and together, and
scored alone and together in the learner's layout. `Chat` checks tokenizer and template.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from eapo_agents.learning.sync_probe import sampled_logprobs
from eapo_agents.policies import (
    Chat,
    Completion,
    Policy,
    Sampler,
    Sampling,
    attention_window,
    plain_ids,
    replicas,
)
from eapo_agents.rollouts import Demonstration
from eapo_env.types import Message
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from eapo_agents.learning.learner import Learner

Ids = npt.NDArray[np.int32]
Logprobs = npt.NDArray[Any]

_TEXT = "What is 6 * 7? Six times seven is forty-two. "
_PROMPT_TOKENS = (12, 31, 50)
_SAMPLED_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyCheck:
    """What is known of a policy before its first episode.

    Args:
        rows_gap: the mean difference of log-probabilities alone and beside others, in nats.
        ends: the tokens that end a turn; None where the policy does not say (`end_ids`).
        prompt: a digest of the ids of a fixed prompt, which is the same when a run goes on.
    """

    rows_gap: float
    ends: tuple[str, ...] | None
    prompt: str


def check_layout(learner: Learner) -> float:
    """Return the mean difference of rows scored alone and in the learner's layout, in nats.

    Raises:
        UserError: it is more than rounding, or the layout does not work with this model.
    """
    layout, config = learner.settings.layout, learner.model.config.get_text_config()
    if layout == "tree" and (window := attention_window(config)):
        raise UserError(
            f"the layout 'tree' has a mask without windows, and this model attends over a window of"
            f" {window} tokens: set learner.layout=padded"
        )
    alone, together = [], []
    for records in _rows(config.vocab_size):
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


def check_saves(learner: Learner) -> None:
    """Pass if a checkpoint of the model can be written.

    Raises:
        UserError: transformers loads its generation config and refuses to save it.
    """
    config = learner.model.generation_config
    try:
        if config is not None:
            config.validate(strict=True)
    except ValueError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"the model's generation_config.json cannot be saved: {reason}") from error


def _rows(vocabulary: int) -> tuple[list[Demonstration], list[Demonstration]]:
    """Return batches of random ids: rows that differ from the start, rows that share a prompt."""
    rng = np.random.default_rng(0)

    def row(start: Ids, length: int) -> Demonstration:
        ids = np.concatenate([start, rng.integers(0, vocabulary, length).astype(np.int32)])
        return Demonstration(token_ids=ids, mask=np.arange(len(ids)) >= max(1, len(start)))

    prompt = rng.integers(0, vocabulary, _PROMPT_TOKENS[0]).astype(np.int32)
    strangers = [row(np.zeros(0, np.int32), length) for length in _PROMPT_TOKENS]
    return strangers, [row(prompt, length) for length in (_SAMPLED_TOKENS, 2 * _SAMPLED_TOKENS)]


async def check_sampler(policy: Policy, learner: Learner, rounding: float) -> float:
    """Return the mean difference between the policy's log-probabilities and the learner's, in nats.

    Each of its replicas completes prompts of different lengths at the same time; where it may cross
    the length at which a model's positions change, one of them does.

    Args:
        policy: the policy.
        learner: the learner.
        rounding: the mean difference, in nats a token, that counts as rounding.

    Raises:
        UserError: it is more than that.
    """
    prompts = _prompts(policy)
    if border := _border(learner.model.config.get_text_config(), policy.max_context_tokens):
        prompts.append(_text_ids(policy, border))
    pairs = [
        await sampled_logprobs(sampler, learner, prompts, _SAMPLED_TOKENS)
        for sampler in replicas(policy)
    ]
    gap = max(_mean_gap([sampler_N], [learner_N]) for sampler_N, learner_N in pairs)
    if not gap <= rounding:
        raise UserError(
            f"the policy and the learner differ by {gap:.3f} nats a token on what the policy"
            " sampled: this engine does not compute this model rightly; set another engine.kind"
        )
    return gap


async def check_policy(policy: Policy, rounding: float) -> PolicyCheck:
    """Return how a policy samples a few prompts alone and together, and where its turns end.

    Args:
        policy: the policy.
        rounding: the mean difference, in nats a token, that counts as rounding.

    Raises:
        UserError: a prompt is sampled otherwise beside others; or the policy does not end where
            its chat template ends a turn.
    """
    chat, tokenizer = Chat(policy.tokenizer), policy.tokenizer
    known = getattr(policy, "end_ids", None)
    ends = None if known is None else tuple(tokenizer.convert_ids_to_tokens(sorted(known)))
    if known is not None and chat.end_of_turn not in (None, *known):
        end = tokenizer.convert_ids_to_tokens(chat.end_of_turn)
        raise UserError(
            f"the chat template ends a turn with {end!r}, and the policy stops at {ends}: add its"
            " id to eos_token_id in the model's generation_config.json"
        )
    prompts = _prompts(policy)
    gap = max([await _gap_beside(sampler, prompts) for sampler in replicas(policy)])
    if not gap <= rounding:
        raise UserError(
            f"the policy gives a prompt other log-probabilities beside longer ones than alone, by"
            f" {gap:.3f} nats a token: this engine does not compute this model rightly in batches;"
            " set another engine.kind"
        )
    opening = np.array(chat.opening([Message("user", _TEXT)]), np.int32)
    return PolicyCheck(
        rows_gap=gap, ends=ends, prompt=hashlib.sha256(opening.tobytes()).hexdigest()
    )


async def _gap_beside(sampler: Sampler, prompts: Sequence[Sequence[int]]) -> float:
    """Return the mean difference, in nats, between prompts completed alone and together."""
    sampling = Sampling(max_tokens=_SAMPLED_TOKENS)
    alone = [await sampler.complete(prompt, sampling, i) for i, prompt in enumerate(prompts)]
    beside = await asyncio.gather(
        *(sampler.complete(prompt, sampling, i) for i, prompt in enumerate(prompts))
    )
    return _gap_while_alike(alone, beside)


def _gap_while_alike(alone: Sequence[Completion], beside: Sequence[Completion]) -> float:
    """Return the mean difference, in nats, while the ids are the same; infinite if few are."""
    gaps, count = [], 0
    for one, other in zip(alone, beside, strict=True):
        count += len(one.token_ids)
        for first, second, *logprobs in zip(
            one.token_ids, other.token_ids, one.logprobs, other.logprobs, strict=False
        ):
            if first != second:
                break
            gaps.append(abs(logprobs[0] - logprobs[1]))
    return float(np.mean(gaps)) if 2 * len(gaps) >= count else math.inf


def _prompts(policy: Policy) -> list[list[int]]:
    return [_text_ids(policy, length) for length in _PROMPT_TOKENS]


def _text_ids(policy: Policy, length: int) -> list[int]:
    room = max(1, policy.max_context_tokens - _SAMPLED_TOKENS)
    text_ids = plain_ids(_TEXT, policy.tokenizer)
    return (text_ids * (1 + length // len(text_ids)))[: min(length, room)]


def _border(config: PretrainedConfig, max_context_tokens: int) -> int | None:
    """Return a prompt length from which a completion crosses the original positions, if any may."""
    rope = getattr(config, "rope_parameters", None) or {}
    original = rope.get("original_max_position_embeddings") or 0
    crosses = rope.get("rope_type") == "longrope" and original < max_context_tokens
    return max(1, original - _SAMPLED_TOKENS // 2) if crosses else None


_NO_LAYOUT = "no layout here reads it rightly, so it cannot be trained in batches of several rows"


def _mean_gap(one: Sequence[Logprobs], other: Sequence[Logprobs]) -> float:
    return float(np.mean(np.abs(np.concatenate(one) - np.concatenate(other))))
