"""The check before the first step, on models that read their batches rightly and on others.

They are tiny and random, in the classes of the families that public reports name.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import torch
import transformers
from tiny_llama import tiny_llama

from eapo_agents.learning import Learner, LearnerSettings, check_layout, check_sampler
from eapo_agents.learning.settings import Layout
from eapo_agents.policies import HFPolicy
from eapo_agents.policies.characters import char_tokenizer
from eapo_env.validation import UserError

SIZES = {
    "vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "intermediate_size": 96, "max_position_embeddings": 256,
    "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "Qwen3": {"head_dim": 16},
    "Qwen3Moe": {
        "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48,
    },
    "GptOss": {
        "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 32,
    },
    "Qwen3Next": {
        "head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
    },
    "Lfm2": {"block_dim": 64, "block_ff_dim": 96, "full_attn_idxs": [1, 3]},
    "Falcon": {"num_kv_heads": 2},
    "GPTJ": {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 256, "rotary_dim": 8},
    "Phi3": {
        "sliding_window": None, "original_max_position_embeddings": 32,
        "rope_parameters": {
            "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": [1.0] * 8,
            "long_factor": [4.0 + i for i in range(8)], "original_max_position_embeddings": 32,
        },
    },
}  # fmt: skip


def model_of(family: str) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**SIZES | OWN[family])
    attention = "eager" if family in ("GptOss", "GPTJ") else "sdpa"
    cls = getattr(transformers, f"{family}ForCausalLM")
    return cls._from_config(config, attn_implementation=attention).eval()


def learner_of(family: str, layout: Layout = "padded") -> Learner:
    return Learner(model_of(family), settings=LearnerSettings(device="cpu", layout=layout))


@pytest.mark.parametrize("layout", ["padded", "packed", "shared"])
@pytest.mark.parametrize("family", ["Qwen3", "Qwen3Moe"])
def test_right_layouts_pass(family: str, layout: Layout) -> None:
    assert check_layout(learner_of(family, layout)) < 1e-5


@pytest.mark.parametrize("family", ["GptOss", "Qwen3Next", "Lfm2", "Falcon"])
def test_packed_rows_that_see_each_other_are_refused(family: str) -> None:
    """transformers#39997, #46859, ms-swift#9565: these do not read where a sequence ends."""
    with pytest.raises(UserError, match=r"'packed' .* mixes .*; set learner.layout=padded"):
        check_layout(learner_of(family, "packed"))
    assert check_layout(learner_of(family)) < 1e-5


@pytest.mark.parametrize("family", ["Qwen3Next", "Lfm2"])
def test_a_layout_that_fails_is_refused_by_name(family: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read in the layout 'shared' \(IndexError"):
        check_layout(learner_of(family, "shared"))


def test_positions_that_depend_on_the_longest_row_are_seen() -> None:
    """transformers#33129, vllm#27431: LongRoPE changes its factors with it."""
    with pytest.raises(UserError, match="no layout here reads it rightly"):
        check_layout(learner_of("Phi3"))
    assert HFPolicy(model_of("Phi3"), char_tokenizer()).max_context_tokens == 32


def test_a_sampler_that_agrees_with_the_learner_passes() -> None:
    model = tiny_llama()
    learner = Learner(model, settings=LearnerSettings(device="cpu"))
    assert asyncio.run(check_sampler(HFPolicy(model, char_tokenizer()), learner)) < 1e-4


@pytest.mark.parametrize("family", ["Falcon", "GPTJ"])
def test_a_sampler_that_computes_a_model_wrongly_is_refused(family: str) -> None:
    """They have attention of their own, which adds the mask."""
    model = model_of(family)
    policy = HFPolicy(model, char_tokenizer())
    with pytest.raises(UserError, match=r"differ by .* nats a token .* set engine.kind=vllm"):
        asyncio.run(check_sampler(policy, Learner(model, settings=LearnerSettings(device="cpu"))))
