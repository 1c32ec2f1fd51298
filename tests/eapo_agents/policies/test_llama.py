"""A decoding step of a small Llama or Qwen2: the logits of transformers' own forward pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from eapo_agents.policies.llama import is_small_llama, llama_logits
from eapo_agents.policies.slot_cache import SlotCache

SIZES: dict[str, Any] = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "initializer_range": 0.3,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "rope_theta": 10000.0,
}


def llama(**changes: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES | changes)).eval()


def qwen2() -> PreTrainedModel:
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)).eval()


@torch.no_grad()
@pytest.mark.parametrize(
    "model",
    [
        llama(),
        llama(attention_bias=True, mlp_bias=True, head_dim=16, num_key_value_heads=1),
        llama(rope_parameters=YARN),
        qwen2(),
    ],
    ids=["Llama", "other sizes", "scaled positions", "Qwen2"],
)
def test_logits_are_those_of_the_models_own_forward(model: PreTrainedModel) -> None:
    """Two slots, the second one id behind the first."""
    assert is_small_llama(model)
    ids_ST = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    cache = SlotCache(2)
    for t in range(9):
        at_S = torch.tensor([t, t - 1][: 1 if t == 0 else 2])
        cache.write_at(at_S, t + 1)
        last_S = ids_ST[torch.arange(len(at_S)), at_S]
        seen_SW = torch.arange(t + 1) <= at_S[:, None]
        found = llama_logits(model, last_S, at_S, seen_SW, cache)
        for slot, at in enumerate(at_S.tolist()):
            expected = model(ids_ST[slot : slot + 1, : at + 1]).logits[0, -1]
            torch.testing.assert_close(found[slot], expected, rtol=1e-4, atol=1e-4)


def test_other_models_and_types_take_their_own_forward() -> None:
    assert not is_small_llama(MistralForCausalLM(MistralConfig(**SIZES)))
    assert not is_small_llama(llama().bfloat16())
