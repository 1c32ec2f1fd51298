"""Completions that a policy is asked for, all at once, and what a model thinks of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from eapo_agents.policies.policy import Completion, Policy, Sampling

Asked = tuple[Sequence[int], Sampling, int]  # prompt, sampling, seed


def together(policy: Policy, asked: Sequence[Asked]) -> list[Completion]:
    async def run() -> list[Completion]:
        return await asyncio.gather(*(policy.complete(*request) for request in asked))

    return asyncio.run(run())


@torch.no_grad()
def gap(model: PreTrainedModel, asked: Asked, done: Completion) -> float:
    """The largest difference of the model's and the policy's log-probabilities."""
    prompt, sampling, _ = asked
    ids = torch.tensor([[*prompt, *done.token_ids]])
    logits = model(ids).logits[0, len(prompt) - 1 : -1] / (sampling.temperature or 1.0)
    chosen = torch.tensor(done.token_ids)[:, None]
    logp = torch.log_softmax(logits, dim=-1).gather(1, chosen)[:, 0]
    return float((logp - torch.tensor(done.logprobs)).abs().max())
