"""The policy as agents see it: token ids in, sampled ids and their log-probabilities out.

Owns the `Policy` protocol, the values it speaks, a scripted double, and the conformance check that
every implementation can run. Real policies live in `*_policy.py`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Finish = Literal["stop", "length"]
Script = Callable[[str, np.random.Generator], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Truncation:
    """The likeliest ids, among which one is drawn; by default all of them.

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
            raise ValueError(f"top_p must be in (0, 1], not {self.top_p}")
        if self.top_k != -1 and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, or -1 for all, not {self.top_k}")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be in [0, 1], not {self.min_p}")

    @property
    def keeps_all(self) -> bool:
        """Whether every id may be drawn."""
        return self.top_p == 1 and self.top_k == -1 and self.min_p == 0

    def keeps_one(self, num_ids: int) -> bool:
        """Return whether, of so many ids, only the likeliest may be drawn, however they are spread.

        The likeliest of N ids holds at least 1/N.
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
            raise ValueError(f"max_tokens must be at least 1, not {self.max_tokens}")
        if not (0.0 <= self.temperature < math.inf):
            raise ValueError(f"temperature must be finite and not negative: {self.temperature}")
        stop: object = self.stop
        if isinstance(stop, str) or not all(self.stop):
            raise ValueError(f"stop must be a tuple of non-empty texts, not {self.stop!r}")

    def is_greedy(self, num_ids: int) -> bool:
        """Return whether only the likeliest of so many ids can be drawn."""
        return self.temperature == 0 or self.truncation.keeps_one(num_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a policy sampled in one turn.

    Args:
        token_ids: the sampled ids, never empty; a sampled end-of-turn id or stop text included.
        logprobs: the log-probability (nats) of each id under the distribution it was drawn from,
            temperature included, and truncation: of the ids that may not be drawn nothing is
            left, so those that may share 1. At temperature 0, under that of temperature 1, whole.
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


class PolicyError(RuntimeError):
    """The policy cannot go on: its engine or server failed, or does not hold the right weights."""


class Policy(Protocol):
    """A model that completes prompts; many coroutines may await completions at once."""

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
            PolicyError: what samples has failed, or is gone.
        """

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Take the learner's weights, so that the next completion is drawn from them.

        Raises:
            PolicyError: what samples has failed, or is gone.
        """

    def close(self) -> None:
        """Free what the policy holds; it completes nothing afterwards."""


class ScriptedPolicy:
    """A policy that writes what a script says: the double for tests and demonstrations.

    Args:
        tokenizer: encodes the texts.
        script: the texts to write, in order of the calls; or a function of the prompt's text and
            of a generator seeded with the completion's seed (with 0 where only the likeliest id
            may be drawn).
        max_context_tokens: the most ids of prompt and completion together.
        logprob: the log-probability reported for every id.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        script: Script | Sequence[str],
        *,
        max_context_tokens: int = 1 << 20,
        logprob: float = -0.5,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_context_tokens = max_context_tokens
        self._script = script if callable(script) else _in_order(script)
        self._logprob = logprob

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return the script's text as a completion: ended by a stop text, else by end-of-turn.

        Raises:
            ValueError: an empty prompt, one that leaves no room, or a list of texts used up.
        """
        limit = completion_limit(prompt_ids, sampling, self.max_context_tokens)
        await asyncio.sleep(0)
        rng = np.random.default_rng(0 if sampling.is_greedy(len(self.tokenizer)) else seed)
        text = self._script(self.tokenizer.decode(list(prompt_ids)), rng)
        ids, stopped = self._encode(text, sampling.stop)
        finish: Finish = "stop" if stopped and len(ids) <= limit else "length"
        ids = ids[:limit]
        return Completion(token_ids=tuple(ids), logprobs=(self._logprob,) * len(ids), finish=finish)

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Do nothing: a script has no weights."""

    def close(self) -> None:
        """Do nothing: a script holds nothing."""

    def _encode(self, text: str, stop: tuple[str, ...]) -> tuple[list[int], bool]:
        ids = self.tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        if any(mark in text for mark in stop):
            for length in range(1, len(ids) + 1):
                if any(mark in self.tokenizer.decode(ids[:length]) for mark in stop):
                    return ids[:length], True
        end = self.tokenizer.eos_token_id
        return (ids, False) if end is None else ([*ids, end], True)


def completion_limit(prompt_ids: Sequence[int], sampling: Sampling, max_context_tokens: int) -> int:
    """Return how many ids may be sampled after the prompt, at least 1.

    Raises:
        ValueError: an empty prompt, or one that leaves no room in the context.
    """
    room = max_context_tokens - len(prompt_ids)
    if not len(prompt_ids):
        raise ValueError("a prompt must have at least one token id, not none")
    if room < 1:
        raise ValueError(
            f"a prompt of {len(prompt_ids)} tokens leaves no room in {max_context_tokens}"
        )
    return min(sampling.max_tokens, room)


async def check_policy(policy: Policy, prompt_ids: Sequence[int]) -> None:
    """Pass if the policy keeps the protocol on this prompt: a test for any implementation.

    Raises:
        AssertionError: a promise of `Policy` is broken; the message says which.
    """
    sampling = Sampling(max_tokens=12)
    alone = [await policy.complete(prompt_ids, sampling, seed) for seed in range(4)]
    for completion in alone:
        _check_completion(completion, sampling)
    await _check_batching(policy, prompt_ids, alone, sampling)
    await _check_stop(policy, prompt_ids, alone[0], sampling)
    await _check_length(policy, prompt_ids)
    await _check_greedy(policy, prompt_ids, sampling)


def _check_completion(completion: Completion, sampling: Sampling) -> None:
    count = len(completion.token_ids)
    assert 1 <= count <= sampling.max_tokens, f"{count} ids of at most {sampling.max_tokens}"
    assert all(-math.inf < logprob <= 1e-6 for logprob in completion.logprobs), "bad logprobs"
    full = count == sampling.max_tokens
    assert completion.finish == "stop" or full, "finished for length before the limit"


async def _check_batching(
    policy: Policy, prompt_ids: Sequence[int], alone: Sequence[Completion], sampling: Sampling
) -> None:
    """Complete the same seeds together, in reverse, with a call among them that is cancelled."""
    doomed = asyncio.ensure_future(policy.complete(prompt_ids, sampling, 99))
    others = [policy.complete(prompt_ids, sampling, seed) for seed in reversed(range(len(alone)))]
    together = asyncio.gather(*others)
    await asyncio.sleep(0)
    doomed.cancel()
    batched = list(reversed(await together))
    assert doomed.cancelled(), "cancelling did not end the completion"
    for one, other in zip(alone, batched, strict=True):
        assert one.token_ids == other.token_ids, "a batch changed what a seed samples"
        assert np.allclose(one.logprobs, other.logprobs, atol=1e-3), "a batch changed logprobs"


async def _check_stop(
    policy: Policy, prompt_ids: Sequence[int], known: Completion, sampling: Sampling
) -> None:
    """Ask for the known completion again, with the text of one of its ids as a stop text."""
    text = policy.tokenizer.decode([known.token_ids[len(known.token_ids) // 2]])
    if not text or "\ufffd" in text:
        return
    stopped = await policy.complete(prompt_ids, replace(sampling, stop=(text,)), 0)
    assert stopped.finish == "stop", f"did not stop at {text!r}"
    assert stopped.token_ids == known.token_ids[: len(stopped.token_ids)], "stop changed the ids"
    assert text in policy.tokenizer.decode(list(stopped.token_ids)), "the stop text was not kept"
    assert text not in policy.tokenizer.decode(list(stopped.token_ids[:-1])), (
        "went on after a stop text"
    )


async def _check_greedy(policy: Policy, prompt_ids: Sequence[int], sampling: Sampling) -> None:
    """Take the likeliest ids in every way there is."""
    greedy = replace(sampling, temperature=0.0)
    first, second = [(await policy.complete(prompt_ids, greedy, seed)).token_ids for seed in (1, 2)]
    assert first == second, "at temperature 0 the seed changed the completion"
    for narrow in (Truncation(top_k=1), Truncation(top_p=1e-6)):
        one = await policy.complete(prompt_ids, replace(sampling, truncation=narrow), 3)
        assert one.token_ids == first, f"with {narrow} another id than the likeliest was drawn"


async def _check_length(policy: Policy, prompt_ids: Sequence[int]) -> None:
    one = await policy.complete(prompt_ids, Sampling(max_tokens=1), 0)
    assert len(one.token_ids) == 1, f"{len(one.token_ids)} ids at max_tokens=1"
    for bad in ((), (prompt_ids[0],) * policy.max_context_tokens):
        try:
            await policy.complete(bad, Sampling(max_tokens=1), 0)
        except ValueError:
            continue
        raise AssertionError(f"a prompt of {len(bad)} tokens was taken")


def _in_order(texts: Sequence[str]) -> Script:
    remaining = iter(texts)

    def write(_prompt: str, _rng: np.random.Generator) -> str:
        text = next(remaining, None)
        if text is None:
            raise ValueError(f"the script's {len(texts)} texts are used up")
        return text

    return write
