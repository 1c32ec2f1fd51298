"""The log-probabilities of a batch's policy tokens under a causal language model.

Logits are asked for only in the columns that predict a policy token (`logits_to_keep`), through
the model's own forward, so that whatever it does to its logits (soft-capping, scaling) is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import DynamicCache

from eapo_agents.batches import Batch, ModelInputs, Prefix

if TYPE_CHECKING:
    from transformers import PreTrainedModel


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
    logits_RKV = model(
        input_ids=inputs.ids_RS,
        position_ids=inputs.positions_RS,
        logits_to_keep=inputs.columns_K,
        past_key_values=inputs.prefix and _read(model, inputs.prefix),
        use_cache=inputs.prefix is not None,
    ).logits
    logp_N, entropy = _of_logits(logits_RKV, inputs, temperature)
    zeros_BT = logp_N.new_zeros(batch.mask_BT.shape)
    return zeros_BT.masked_scatter(batch.mask_BT, logp_N), entropy


def _read(model: PreTrainedModel, prefix: Prefix) -> DynamicCache:
    """Return each row's keys and values of the prefix, which carry its gradient."""
    once = DynamicCache()
    model(input_ids=prefix.ids_PW, past_key_values=once, use_cache=True, logits_to_keep=1)
    row_R = prefix.of_row_R
    return DynamicCache([(layer.keys[row_R], layer.values[row_R]) for layer in once.layers])


def _of_logits(
    logits_RKV: Tensor, inputs: ModelInputs, temperature: float
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits_RKV.dtype, torch.float32)
    logits_RKV = logits_RKV.to(dtype)
    if temperature != 1.0:  # a copy of the logits is the largest tensor there is
        logits_RKV = logits_RKV / temperature
    total_RK = logits_RKV.logsumexp(-1)
    chosen_RK = logits_RKV.gather(-1, inputs.targets_RK[..., None])[..., 0]
    with torch.no_grad():
        expected_RK = ((logits_RKV - total_RK[..., None]).exp() * logits_RKV).sum(-1)
        entropy = (total_RK - expected_RK)[inputs.mask_RK].sum()
    return (chosen_RK - total_RK)[inputs.mask_RK], entropy
