"""Log-probabilities of a batch's policy tokens under a causal language model.

Logits are asked for only in the columns that predict a policy token (`logits_to_keep`), through
the model's own forward, so that whatever it does to its logits (soft-capping, scaling) is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from eapo_agents.learning.batches import Batch, ModelInputs, Prefix
from eapo_agents.policies import cache_argument

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_VALUES = 1 << 22
"""How many logits are copied at once: 16 MiB in float32."""


def token_logprobs(
    model: PreTrainedModel,
    batch: Batch,
    layout: Callable[[Batch], ModelInputs],
    temperature: float,
) -> tuple[Tensor, Tensor]:
    """Return logp_BT, which is 0 off the mask, and the summed entropy of the policy's tokens.

    Both in nats, of the softmax of logits / temperature, in float32 or better. Only the
    log-probabilities carry a gradient.
    """
    inputs = layout(batch)
    mask = {} if inputs.seen_SS is None else _mask(inputs.seen_SS, model.dtype)
    cached = cache_argument(model, _read(model, inputs.prefix)) if inputs.prefix else {}
    logits_RKV = model(
        input_ids=inputs.ids_RS,
        position_ids=inputs.positions_RS,
        logits_to_keep=inputs.columns_K,
        **mask,
        **cached,
        use_cache=inputs.prefix is not None,
    ).logits
    logp_RK, entropy_RK = _Chosen.apply(  # type: ignore[no-untyped-call]
        logits_RKV, inputs.targets_RK, temperature
    )
    zeros_BT = logp_RK.new_zeros(batch.mask_BT.shape)
    logp_BT = zeros_BT.masked_scatter(batch.mask_BT, logp_RK.flatten()[inputs.chosen_N])
    return logp_BT, entropy_RK.flatten()[inputs.chosen_N].sum()


def _read(model: PreTrainedModel, prefix: Prefix) -> DynamicCache:
    """Return each row's keys and values of the prefix, which carry its gradient."""
    once = DynamicCache()
    model(input_ids=prefix.ids_PW, **cache_argument(model, once), use_cache=True, logits_to_keep=1)
    row_R = prefix.of_row_R
    return DynamicCache([(layer.keys[row_R], layer.values[row_R]) for layer in once.layers])


def _mask(seen_SS: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    """Return the argument that is added to the attention scores of all heads: 0 where seen."""
    added_SS = torch.zeros(seen_SS.shape, dtype=dtype, device=seen_SS.device)
    return {"attention_mask": added_SS.masked_fill(~seen_SS, torch.finfo(dtype).min)[None, None]}


class _Chosen(torch.autograd.Function):
    """log softmax(logits / temperature) at the targets, and the entropy, which has no gradient.

    Logits are the largest tensor of an update with a large vocabulary. They are read chunk by
    chunk in float32 or better, and nothing else of their size is made but their gradient, which
    has their type:

        d logp / d logits = (onehot(target) - softmax(logits / temperature)) / temperature
    """

    @staticmethod
    def forward(
        ctx: Any, logits_RKV: Tensor, targets_RK: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        found = [
            _statistics(_scaled(logits_RKV[:, part], temperature), targets_RK[:, part])
            for part in _parts(logits_RKV)
        ]
        total_RK, chosen_RK, entropy_RK = (torch.cat(some, 1) for some in zip(*found, strict=True))
        ctx.save_for_backward(logits_RKV, targets_RK, total_RK)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy_RK)
        return chosen_RK - total_RK, entropy_RK

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_logp_RK: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        logits_RKV, targets_RK, total_RK = ctx.saved_tensors
        of_logits_RKV = torch.empty_like(logits_RKV)
        for part in _parts(logits_RKV):
            of_logp_RC1 = of_logp_RK[:, part, None] / ctx.temperature
            scaled_RCV = _scaled(logits_RKV[:, part], ctx.temperature)
            of_scaled_RCV = (scaled_RCV - total_RK[:, part, None]).exp_().mul_(-of_logp_RC1)
            of_scaled_RCV.scatter_add_(-1, targets_RK[:, part, None], of_logp_RC1)
            of_logits_RKV[:, part] = of_scaled_RCV
        return of_logits_RKV, None, None


def _statistics(scaled_RCV: Tensor, targets_RC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each column's log-sum-exp, its target's logit, and its entropy."""
    total_RC1 = scaled_RCV.logsumexp(-1, keepdim=True)
    expected_RC = ((scaled_RCV - total_RC1).exp_() * scaled_RCV).sum(-1)
    chosen_RC = scaled_RCV.gather(-1, targets_RC[..., None])[..., 0]
    return total_RC1[..., 0], chosen_RC, total_RC1[..., 0] - expected_RC


def _parts(logits_RKV: Tensor) -> Iterator[slice]:
    """Yield the columns in runs of about `CHUNK_VALUES` logits."""
    rows, columns, vocabulary = logits_RKV.shape
    width = max(1, CHUNK_VALUES // max(1, rows * vocabulary))
    yield from (slice(start, start + width) for start in range(0, max(1, columns), width))


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return logits if temperature == 1.0 else logits / temperature
