"""One decoding step of a Llama or Qwen2, in half of the operations of transformers' own.

With few rows of a small model on a CPU, starting an operation costs more than its work: most of a
step of transformers goes into what its modules do besides. Weights and layers are the model's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import rms_norm, scaled_dot_product_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from eapo_agents.policies.slot_cache import SlotCache


def is_small_llama(model: PreTrainedModel) -> bool:
    """Return whether `llama_logits` computes this model, and is faster than its own forward."""
    from transformers import LlamaForCausalLM, Qwen2ForCausalLM

    return (
        type(model) in (LlamaForCausalLM, Qwen2ForCausalLM)
        and model.dtype == torch.float32
        and model.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
    )


def llama_logits(
    model: PreTrainedModel, last_S: Tensor, at_S: Tensor, seen_SW: Tensor, cache: SlotCache
) -> Tensor:
    """Return the logits after one more id in each slot, [S, V], and keep its keys and values.

    Args:
        model: a model for which `is_small_llama`.
        last_S: the id.
        at_S: its position, at which the cache writes next.
        seen_SW: which positions each slot sees.
        cache: the earlier ids' keys and values.
    """
    body: Any = model.model
    x_SH = body.embed_tokens(last_S[:, None])[:, 0]
    cos_S1D, sin_S1D = body.rotary_emb(x_SH, at_S[:, None])
    slots, size = len(last_S), cos_S1D.shape[-1]
    sin_S1D = torch.cat([-sin_S1D[..., : size // 2], sin_S1D[..., size // 2 :]], -1)
    # As numbers: attention would turn a mask of bools into these in each layer.
    mask_S11W = torch.where(seen_SW, 0.0, -torch.inf)[:, None, None]
    for index, layer in enumerate(body.layers):
        attention, input_SH = layer.self_attn, _normed(layer.input_layernorm, x_SH)
        query_SH = attention.q_proj(input_SH)
        heads = query_SH.shape[-1] // size
        both_SHD = torch.cat([query_SH, attention.k_proj(input_SH)], -1).view(slots, -1, size)
        both_SHD = both_SHD * cos_S1D + both_SHD.roll(size // 2, -1) * sin_S1D
        values = attention.v_proj(input_SH).view(slots, -1, 1, size)
        keys, values = cache.update(both_SHD[:, heads:, None], values, index)
        # Heads that share keys and values are taken as positions, as in `grouped_sdpa`.
        query = both_SHD[:, :heads].reshape(slots, keys.shape[1], -1, size)
        read = scaled_dot_product_attention(query, keys, values, attn_mask=mask_S11W)
        x_SH = x_SH + attention.o_proj(read.reshape(slots, -1))
        x_SH = x_SH + layer.mlp(_normed(layer.post_attention_layernorm, x_SH))
    logits_SV: Tensor = model.lm_head(_normed(body.norm, x_SH))
    return logits_SV


def _normed(norm: Any, x_SH: Tensor) -> Tensor:
    return rms_norm(x_SH, x_SH.shape[-1:], norm.weight, norm.variance_epsilon)
