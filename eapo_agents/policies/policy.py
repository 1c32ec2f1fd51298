"""The `Policy` protocol: token ids in, sampled ids and their log-probabilities out.

Implementations are in `huggingface.py`, `vllm.py` and `vllm_server.py`; a scripted one, and
`check_policy` for your own, in `eapo_agents.testing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from eapo_env.validation import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Finish = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """Truncated sampling: which of the likeliest ids may be drawn; by default all of them.

    Where several are set, min-p comes first, then top-k, then top-p of what these leave.

    Args:
        top_p: the fewest likeliest ids that together hold at least this share; 1 is all.
        top_k: this many of the likeliest ids; -1 is all (as in the paper's Table 5).
        min_p: the ids that are at least this many times as likely as the likeliest; 0 is all.

    Raises:
        ValueError: a value out of its range.
    """

    top_p: float = 1.0
    top_k: int = -1
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k != -1 and self.top_k < 1:
            raise UserError(f"top_k must be at least 1, or -1 for all, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise UserError(f"min_p must be in [0, 1], not {self.min_p}")

    @property
    def keeps_all(self) -> bool:
        """Whether every id may be drawn."""
        return self.top_p == 1 and self.top_k == -1 and self.min_p == 0

    def keeps_one(self, num_ids: int) -> bool:
        """Return whether only the likeliest of `num_ids` ids may be drawn, under any distribution.

        The likeliest of N ids has a probability of at least 1/N.
        """
        return self.top_k == 1 or self.min_p == 1 or self.top_p * num_ids <= 1

    def __str__(self) -> str:
        return f"top_p={self.top_p:g}, top_k={self.top_k}, min_p={self.min_p:g}"


NO_TRUNCATION = Truncation()
"""Every id may be drawn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one completion is drawn.

    Args:
        max_tokens: the most ids to sample, at least 1.
        temperature: divides the logits; 0 takes the likeliest id every time.
        truncation: which ids may be drawn, under the divided logits.
        stop: texts that end the completion as soon as it contains one; their ids are kept.

    Raises:
        ValueError: a value out of its range, an empty stop text.
    """

    max_tokens: int
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.max_tokens < 1:
            raise UserError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if not (0.0 <= self.temperature < math.inf):
            raise UserError(f"temperature must be finite and not negative: {self.temperature}")
        stop: object = self.stop
        if isinstance(stop, str) or not all(self.stop):
            raise UserError(f"stop must be a tuple of non-empty texts, not {self.stop!r}")

    def is_greedy(self, num_ids: int) -> bool:
        """Return whether only the likeliest of `num_ids` ids can be drawn."""
        return self.temperature == 0 or self.truncation.keeps_one(num_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """The ids that a policy sampled for one turn, and their log-probabilities.

    Args:
        token_ids: the sampled ids, never empty; a sampled end-of-turn id or stop text included.
        logprobs: the log-probability (nats) of each id under the distribution it was drawn from,
            temperature and truncation included (those of the ids that may be drawn sum to 1). At
            temperature 0, under the distribution of temperature 1 without truncation.
        finish: "stop" when an end-of-turn id or a stop text came, "length" when `max_tokens` or
            the context ran out before.

    Raises:
        ValueError: no ids, or not one log-probability for each.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish

    def __post_init__(self) -> None:
        if not self.token_ids or len(self.token_ids) != len(self.logprobs):
            raise ValueError(f"{len(self.logprobs)} logprobs for {len(self.token_ids)} token ids")


class PolicyError(UserError):
    """The policy failed: its engine or server is gone, or its weights are not the learner's."""


class Sampler(Protocol):
    """What completes prompts for a policy; many coroutines may await completions at once."""

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """See `Policy.complete`."""


class Policy(Protocol):
    """A model that completes prompts; many coroutines may await completions at once.

    `eapo_agents.testing.check_policy` tests an implementation. One that has `end_ids`, the ids that
    end a completion, is checked at the start to end where the chat template ends a turn. One whose
    weights are in several places, each with a cache of its own, has `replicas`, a `Sampler` for
    each: they are probed one by one, and an episode keeps to one of them (`replica_of`).
    """

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer whose ids the policy reads and writes."""

    @property
    def max_context_tokens(self) -> int:
        """The most ids of prompt and completion together."""

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt.

        What is sampled depends on the prompt, the sampling, the seed and the weights, and not on
        what else is being completed (up to rounding). Cancelling the caller drops the completion.

        Raises:
            ValueError: an empty prompt, or one that leaves no room in the context.
            PolicyError: the engine or server has failed.
        """

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the learner's weights: the next completion is sampled with them.

        Raises:
            PolicyError: the engine or server has failed.
        """

    def close(self) -> None:
        """Free what the policy holds; it is not used afterwards."""


def replicas(policy: Policy) -> Sequence[Sampler]:
    """Return the replicas of a policy, which all sample alike: those that it has, or itself."""
    found: Sequence[Sampler] = getattr(policy, "replicas", (policy,))
    return found


def replica_of(policy: Policy, number: int) -> Sampler:
    """Return the replica that a number, such as that of an episode, always comes to.

    Consecutive numbers come to the replicas in turn.
    """
    found = replicas(policy)
    return found[number % len(found)]


def completion_limit(prompt_ids: Sequence[int], sampling: Sampling, max_context_tokens: int) -> int:
    """Return how many ids may be sampled after the prompt, at least 1.

    Raises:
        ValueError: an empty prompt, or one that leaves no room in the context.
    """
    room = max_context_tokens - len(prompt_ids)
    if not len(prompt_ids):
        raise UserError("a prompt must have at least one token id, not none")
    if room < 1:
        raise UserError(
            f"a prompt of {len(prompt_ids)} tokens leaves no room in {max_context_tokens}"
        )
    return min(sampling.max_tokens, room)
