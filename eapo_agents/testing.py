"""Tests for implementations of the agents' protocols, and a scripted policy to test with.

Each check passes if an implementation keeps the promises of its protocol, and otherwise raises an
AssertionError that says which one it breaks:

    asyncio.run(check_policy(MyPolicy(), prompt_ids=[5, 6, 7]))
    check_algorithm(CustomAlgorithm(name="mine", advantages=..., loss=...))
"""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from eapo_agents.learning import (
    Algorithm,
    LossInputs,
    LossOutput,
    StatefulAlgorithm,
    check_metric_names,
    saved_state,
)
from eapo_agents.policies import Completion, Finish, Policy, Sampling, Truncation, completion_limit
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Script = Callable[[str, np.random.Generator], str]
"""From a prompt's text and a seeded generator to the text to write."""

_TOLERANCE = 1e-9
"""In float64, how far sums over micro-batches may be from the whole step."""


class ScriptedPolicy:
    """A policy that writes given texts: for tests and demonstrations without a model.

    Args:
        tokenizer: encodes the texts.
        script: the texts to write, in order of the calls; or a function of the prompt's text and
            a generator seeded with the completion's seed (0 for greedy sampling).
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


def _in_order(texts: Sequence[str]) -> Script:
    remaining = iter(texts)

    def write(_prompt: str, _rng: np.random.Generator) -> str:
        text = next(remaining, None)
        if text is None:
            raise ValueError(f"the script's {len(texts)} texts are used up")
        return text

    return write


async def check_policy(policy: Policy, prompt_ids: Sequence[int]) -> None:
    """Pass if a policy keeps its protocol on this prompt: seeds, batches, limits, stop texts.

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


def check_algorithm(algorithm: Algorithm) -> None:
    """Pass if an algorithm has finite advantages and a loss that micro-batches can share.

    Tested on groups of two and more with equal, different and negative rewards, each twice from the
    same state, if it has `state_dict` and `load_state_dict`, and on losses of random sequences
    near to and far from the sampling policy: the shares of micro-batches and their gradients add up
    to those of the whole step, however it is cut; the gradient is finite, zero off the mask, and
    prefers a sequence of higher advantage.

    Raises:
        AssertionError: the algorithm breaks a promise of `Algorithm`; the message says which.
    """
    assert isinstance(algorithm.name, str), f"its name is not text: {algorithm.name!r}"
    assert algorithm.name, "it has no name"
    _check_advantages(algorithm)
    rng = np.random.default_rng(0)
    for spread in (0.0, 0.1, 1.0, 100.0):
        inputs = _random_inputs(rng, spread)
        _check_gradient(algorithm, inputs)
        _check_gradient(algorithm, _as(inputs, torch.float32))
        _check_cuts(algorithm, inputs)
    _check_direction(algorithm, _random_inputs(rng, 0.0))


def _check_advantages(algorithm: Algorithm) -> None:
    for rewards in ([0.0, 0.0], [0.1] * 3, [1.0, 0.0], [1.0, 0.9, -0.5, 0.0], [1e-9, 1.0]):
        rewards_G, before = np.array(rewards), dict[str, Any]()
        if isinstance(algorithm, StatefulAlgorithm):
            before = copy.deepcopy(algorithm.state_dict())
        advantages_G = algorithm.advantages(rewards_G)
        shown = f"advantages of the rewards {rewards}: {advantages_G!r}"
        assert np.array_equal(rewards_G, rewards), f"it changed the rewards {rewards}"
        assert np.shape(advantages_G) == rewards_G.shape, f"not one a trajectory; {shown}"
        assert np.isfinite(advantages_G).all(), f"not finite; {shown}"
        if isinstance(algorithm, StatefulAlgorithm):
            algorithm.load_state_dict(before)
        again = algorithm.advantages(rewards_G)
        assert np.array_equal(again, advantages_G), f"not the same twice; {shown}"
        if isinstance(algorithm, StatefulAlgorithm):
            _check_state(algorithm)


def _check_state(algorithm: StatefulAlgorithm) -> None:
    try:
        saved_state(algorithm)
    except UserError as error:
        raise AssertionError(str(error)) from error


def _random_inputs(rng: np.random.Generator, spread: float) -> LossInputs:
    """Return six sequences of up to nine policy tokens, one of them without any, as one step.

    Args:
        rng: draws them.
        spread: the standard deviation of the log-ratio between the learner and the sampler.
    """
    mask_BT = np.arange(10) < np.array([0, 2, 9, 5, 7, 3])[:, None] + 1
    mask_BT[:, 0] = False
    mask_BT[2, 4] = False  # an expert's reply within a sequence
    shape = mask_BT.shape
    sampler_BT = -rng.exponential(1.0, shape)
    old_BT = sampler_BT + 0.1 * spread * rng.standard_normal(shape)
    new_BT = old_BT + spread * rng.standard_normal(shape)
    tokens_B = mask_BT.sum(1)
    group_of_B = np.array([0, 0, 0, 1, 1, 1])
    return LossInputs(
        logp_BT=torch.tensor(np.where(mask_BT, new_BT, 0.0)),
        logp_old_BT=torch.tensor(np.where(mask_BT, old_BT, 0.0)),
        logp_sampler_BT=torch.tensor(np.where(mask_BT, sampler_BT, 0.0)),
        advantage_B=torch.tensor([1.0, 1.0, -1.0, 0.5, -1.5, 0.0], dtype=torch.float64),
        mask_BT=torch.tensor(mask_BT),
        num_group_tokens_B=torch.tensor(
            [tokens_B[group_of_B == group].sum() for group in group_of_B], dtype=torch.float64
        ),
        num_tokens=float(tokens_B.sum()),
        num_sequences=6.0,
        num_groups=2.0,
    )


def _as(inputs: LossInputs, dtype: torch.dtype) -> LossInputs:
    """Return the inputs with their floating-point tensors in another precision."""
    return _mapped(inputs, lambda value: value.to(dtype) if value.is_floating_point() else value)


def _mapped(inputs: LossInputs, change: Callable[[Tensor], Tensor]) -> LossInputs:
    tensors = {
        item.name: change(value)
        for item in fields(inputs)
        if isinstance(value := getattr(inputs, item.name), Tensor)
    }
    return replace(inputs, **tensors)  # type: ignore[arg-type]


def _loss_and_gradient(algorithm: Algorithm, inputs: LossInputs) -> tuple[LossOutput, Tensor]:
    """Return an algorithm's loss and its gradient in the log-probabilities [B, T]."""
    logp_BT = inputs.logp_BT.clone().requires_grad_()
    given = replace(_mapped(inputs, torch.clone), logp_BT=logp_BT)
    output = algorithm.loss(given)
    assert isinstance(output, LossOutput), f"the loss is not a LossOutput: {output!r}"
    assert output.loss.requires_grad, "the loss has no gradient in logp_BT"
    (gradient_BT,) = torch.autograd.grad(output.loss, logp_BT)
    for item in fields(inputs):
        before, after = getattr(inputs, item.name), getattr(given, item.name)
        same = before.equal(after) if isinstance(before, Tensor) else before == after
        assert same, f"the loss changed its input {item.name}"
    return output, gradient_BT


def _check_gradient(algorithm: Algorithm, inputs: LossInputs) -> None:
    output, gradient_BT = _loss_and_gradient(algorithm, inputs)
    try:
        check_metric_names(output)
    except UserError as error:
        raise AssertionError(str(error)) from error
    numbers = {"loss": output.loss, **output.sums, **output.maxima}
    farthest = (inputs.logp_BT - inputs.logp_old_BT).abs().max()
    for name, value in numbers.items():
        assert torch.isfinite(value).all(), (
            f"{name} is not finite: {value} ({value.dtype}), where logp_BT differs from logp_old_BT"
            f" by up to {farthest:.0f}: a ratio must be bounded before exp"
        )
    assert torch.isfinite(gradient_BT).all(), f"the gradient is not finite ({gradient_BT.dtype})"
    assert not gradient_BT[~inputs.mask_BT].any(), "the gradient is not zero off the mask"


def _check_cuts(algorithm: Algorithm, inputs: LossInputs) -> None:
    whole, gradient_BT = _loss_and_gradient(algorithm, inputs)
    for cut in ([[0], [1], [2], [3], [4], [5]], [[0, 3], [4, 2], [1, 5]], [[5, 4, 3, 2, 1, 0]]):
        joined_BT = torch.zeros_like(gradient_BT)
        outputs = []
        for rows in cut:
            part = _micro_batch(inputs, rows)
            output, part_BT = _loss_and_gradient(algorithm, part)
            joined_BT[rows, : part_BT.shape[1]] = part_BT
            outputs.append(output)
        shown = f"of the micro-batches {cut}"
        _check_close(joined_BT, gradient_BT, f"the gradients {shown}")
        _check_close(sum(one.loss for one in outputs), whole.loss, f"the losses {shown}")
        for name, value in whole.sums.items():
            _check_close(sum(one.sums[name] for one in outputs), value, f"{name} {shown}")
        for name, value in whole.maxima.items():
            _check_close(max(one.maxima[name] for one in outputs), value, f"the largest {name}")


def _micro_batch(inputs: LossInputs, rows: Sequence[int]) -> LossInputs:
    """Return some sequences of a step, without the padding behind the longest of them."""
    columns = inputs.mask_BT[rows].any(0).nonzero()
    width = int(columns.max()) + 1 if len(columns) else 1
    return _mapped(inputs, lambda value: value[rows, :width] if value.ndim == 2 else value[rows])


def _check_close(found: Tensor | float, whole: Tensor, what: str) -> None:
    found = torch.as_tensor(found, dtype=torch.float64)
    gap = float((found - whole).detach().abs().max())
    allowed = _TOLERANCE * (1.0 + float(whole.detach().abs().max()))
    assert gap <= allowed, f"{what} do not add up to the whole step: {gap:.3g} apart"


def _check_direction(algorithm: Algorithm, inputs: LossInputs) -> None:
    """Check that a step down the gradient favours sequences of positive advantage."""
    _, gradient_BT = _loss_and_gradient(algorithm, inputs)
    slope_B, advantage_B = gradient_BT.sum(1), inputs.advantage_B
    best, worst = slope_B[advantage_B > 0][1:].max(), slope_B[advantage_B < 0].min()
    assert best < worst, "a step against the gradient lowers sequences of positive advantage"
