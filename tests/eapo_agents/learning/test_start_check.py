"""The check before the first step, on models that read their batches rightly and on others.

They are tiny and random, in the classes of the families that public reports name.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from families import family_of, made, model_of
from tiny_llama import tiny_llama

from eapo_agents.learning import (
    Learner,
    LearnerSettings,
    check_layout,
    check_policy,
    check_sampler,
    check_saves,
)
from eapo_agents.learning.settings import Layout
from eapo_agents.policies import Completion, HFPolicy, Sampling
from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.models import load_tokenizer
from eapo_agents.testing import ScriptedPolicy
from eapo_env.validation import UserError

SHORT_ROPE = {
    "original_max_position_embeddings": 32,
    "rope_parameters": family_of("Phi-3.5 (LongRoPE)").sizes["rope_parameters"]
    | {"original_max_position_embeddings": 32},
}


def learner_of(family: str, layout: Layout = "padded", **changes: Any) -> Learner:
    settings = LearnerSettings(device="cpu", layout=layout)
    return Learner(model_of(family_of(family), **changes), settings=settings)


@pytest.mark.parametrize("layout", ["padded", "packed", "shared", "tree"])
@pytest.mark.parametrize("family", ["Qwen3", "Qwen3 MoE"])
def test_right_layouts_pass(family: str, layout: Layout) -> None:
    assert check_layout(learner_of(family, layout)) < 1e-5


@pytest.mark.parametrize("family", ["gpt-oss", "Qwen3-Next", "LFM2"])
def test_packed_rows_that_see_each_other_are_refused(family: str) -> None:
    """transformers#39997, #46859, ms-swift#9565: these do not read where a sequence ends."""
    with pytest.raises(UserError, match=r"'packed' .* mixes .*; set learner.layout=padded"):
        check_layout(learner_of(family, "packed"))
    assert check_layout(learner_of(family)) < 1e-5


@pytest.mark.parametrize("family", ["Qwen3-Next", "LFM2"])
def test_a_layout_that_fails_is_refused_by_name(family: str) -> None:
    with pytest.raises(UserError, match=r"cannot be read in the layout 'shared' \(IndexError"):
        check_layout(learner_of(family, "shared"))


def test_a_window_of_attention_has_no_place_in_a_tree() -> None:
    with pytest.raises(UserError, match=r"attends over a window of 64 tokens: set learner.layout"):
        check_layout(learner_of("Mistral 7B v0.1", "tree", sliding_window=64))


def test_positions_that_depend_on_the_longest_row_are_seen() -> None:
    """transformers#33129, vllm#27431: LongRoPE changes its factors with it."""
    with pytest.raises(UserError, match="no layout here reads it rightly"):
        check_layout(learner_of("Phi-3.5 (LongRoPE)", **SHORT_ROPE))
    model = learner_of("Phi-3.5 (LongRoPE)", **SHORT_ROPE).model
    assert HFPolicy(model, char_tokenizer()).max_context_tokens == 32


def test_a_sampler_that_agrees_with_the_learner_passes() -> None:
    model = tiny_llama()
    learner = Learner(model, settings=LearnerSettings(device="cpu"))
    assert asyncio.run(check_sampler(HFPolicy(model, char_tokenizer()), learner, 1e-3)) < 1e-4


def test_a_sampler_that_computes_a_model_wrongly_is_refused() -> None:
    """Falcon has attention of its own, which adds the mask."""
    learner = learner_of("Falcon")
    policy = HFPolicy(learner.model, char_tokenizer())
    with pytest.raises(UserError, match=r"differ by .* nats a token .* another engine.kind"):
        asyncio.run(check_sampler(policy, learner, 1e-3))
    with pytest.raises(UserError, match=r"beside longer ones than alone, by .*another engine.kind"):
        asyncio.run(check_policy(policy, 1e-3))


class Asked(ScriptedPolicy):
    """A policy that remembers the longest prompt."""

    longest = 0

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        self.longest = max(self.longest, len(prompt_ids))
        return await super().complete(prompt_ids, sampling, seed)


@pytest.mark.parametrize(("context", "longest"), [(128, 50), (512, 124)])
def test_where_long_rope_may_change_a_completion_crosses_it(context: int, longest: int) -> None:
    """Its original positions are 128, and a completion has 8 ids."""
    policy = Asked(char_tokenizer(), lambda *_: "7" * 8, max_context_tokens=context)
    with pytest.raises(UserError, match="nats a token"):
        asyncio.run(check_sampler(policy, learner_of("Phi-3.5 (LongRoPE)"), 1e-3))
    assert policy.longest == longest


def test_the_ends_of_a_turn_are_named() -> None:
    tokenizer = char_tokenizer()
    policy = HFPolicy(tiny_llama(), tokenizer)
    found = asyncio.run(check_policy(policy, 1e-3))
    assert found.ends == (tokenizer.eos_token,)
    assert found.rows_gap < 1e-5
    assert asyncio.run(check_policy(ScriptedPolicy(tokenizer, lambda *_: "7"), 1e-3)).ends is None


def test_a_policy_that_does_not_end_with_the_template_is_refused(tmp_path: Path) -> None:
    """QwenLM/Qwen3#927: a base model's end is that of a document."""
    tokenizer = load_tokenizer(made(family_of("Qwen2.5 base"), tmp_path / "model"))
    policy = ScriptedPolicy(tokenizer, lambda *_: "7")
    policy.end_ids = [tokenizer.eos_token_id]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"turn with '<\|im_end\|>', .* stops at .*endoftext"):
        asyncio.run(check_policy(policy, 1e-3))


def test_a_model_that_cannot_be_saved_is_refused() -> None:
    """transformers#29988: its generation config is read, and not written."""
    learner = Learner(tiny_llama(), settings=LearnerSettings(device="cpu"))
    check_saves(learner)
    learner.model.generation_config.temperature = 0.6
    with pytest.raises(UserError, match=r"generation_config.json cannot be saved: .*temperature"):
        check_saves(learner)
