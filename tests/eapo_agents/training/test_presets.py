"""Presets: the paper's numbers, and what the baseline changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from eapo_agents.learning.algorithms import DAPO
from eapo_agents.policies.engines import HFEngine
from eapo_agents.policies.policy import Truncation
from eapo_agents.policies.vllm import VLLMEngine
from eapo_agents.policies.vllm_server import VLLMServerEngine
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.imitation_settings import DistillationSettings
from eapo_agents.training.presets import (
    PRESETS,
    R1_LLAMA_8B,
    R1_QWEN_7B,
    R1_QWEN_14B,
    demo,
    distilled,
    embedded,
    local,
    one_gpu,
    preset_named,
    r1_distill_qwen_7b,
    self_exploratory,
    smollm2,
    table_5,
)
from eapo_agents.training.problem_sets import without
from eapo_env.types import Rules

PAPERS = [preset() for preset in PRESETS if preset not in (embedded, demo, local, smollm2, one_gpu)]
QWQ = ("Qwen/QwQ-32B",) * 3


def test_a_preset_holds_table_5() -> None:
    """The table's own rows; what it calls prompts is a problem here, of which each has a group."""
    for config in PAPERS:
        assert config.rollout.limits.max_response_tokens == 20_480  # "Max response length"
        assert config.rollout.sampling.groups_per_step == 32  # "Train batch size"
        assert config.rollout.sampling.problems_per_round == 96  # "Gen batch size"
        assert config.learner.learning_rate == 1e-6  # "Learning rate"
        assert config.learner.warmup_steps == 10  # "LR warmup steps"
        assert config.rollout.temperature == 1.0  # "Temperature"
        assert config.rollout.truncation == Truncation(top_p=1.0, top_k=-1)  # "Top-p", "Top-k"
        assert config.rollout.limits.max_prompt_tokens == 2_048  # "Max prompt length"
        assert config.engine == VLLMServerEngine()  # "vLLM backend"
        assert isinstance(config.algorithm, DAPO)
        assert config.algorithm.clip_low == 0.20  # "Clip Ratio (Low)"
        assert config.algorithm.clip_high == 0.28  # "Clip Ratio (High)"


def test_a_preset_takes_the_rest_from_the_dapo_recipe() -> None:
    for config in PAPERS:
        assert config.rollout.group_size == 16
        assert config.rollout.sampling.max_rounds == 10
        assert (config.learner.weight_decay, config.learner.max_grad_norm) == (0.1, 1.0)
        assert isinstance(config.algorithm, DAPO)
        assert (config.algorithm.dual_clip, config.algorithm.importance_cap) == (10.0, 2.0)
        assert config.algorithm.normalisation == "batch"
        assert (config.annealing.turn_budget, config.evaluation.samples_per_problem) == (10, 32)
        assert config.problems.source == "dapo-math-17k"
        assert (config.evaluation.problems.source, config.evaluation.every) == ("aime-2024", 20)
        assert config.model.dtype == config.learner.precision == "bfloat16"
        assert config.learner.gradient_checkpointing
        assert config.sync.tolerance is None
        assert config.learner.rounding == 0.15
        assert config.experts.kind == "openai"
    for value in ("group size 16", "10 generation", "weight decay 0.1", "gradient clip 1.0"):
        assert value in (table_5.__doc__ or "").split("Inferred from the DAPO recipe")[1]


@pytest.mark.parametrize(
    ("name", "policy", "experts", "queries"),
    [
        ("r1_distill_qwen_7b", R1_QWEN_7B, QWQ, 3),
        ("r1_distill_qwen_14b", R1_QWEN_14B, QWQ, 3),
        ("qwen3_8b", "Qwen/Qwen3-8B", QWQ, 3),
        ("sequential_queries", R1_QWEN_7B, QWQ, 1),
        ("r1_distill_qwen_14b_experts", R1_QWEN_7B, (R1_QWEN_14B,) * 3, 3),
        ("r1_distill_qwen_7b_experts", R1_QWEN_7B, (R1_QWEN_7B,) * 3, 3),
        ("deepseek_distill_llama_8b_experts", R1_QWEN_7B, (R1_LLAMA_8B,) * 3, 3),
        ("mixed_experts", R1_QWEN_7B, (R1_QWEN_7B, R1_QWEN_14B, QWQ[0]), 3),
    ],
)
def test_policies_and_pools(name: str, policy: str, experts: tuple[str, ...], queries: int) -> None:
    config = preset_named(name)
    assert config.model.path == policy
    endpoints = config.experts.endpoints
    assert tuple(model for endpoint in endpoints for model in endpoint.models) == experts
    assert len({endpoint.base_url for endpoint in endpoints}) == len(endpoints)
    assert config.annealing.queries_per_turn == queries


def test_one_gpu_takes_nothing_that_needs_several_gpus_or_long_responses() -> None:
    config = one_gpu()
    assert isinstance(config.engine, VLLMEngine)
    assert (config.engine.tensor_parallel_size, config.engine.gpu_memory_utilization) == (1, 0.2)
    [expert] = config.experts.endpoints
    assert expert.base_url == "http://127.0.0.1:8000/v1"
    assert expert.models == ("Qwen/Qwen2.5-7B-Instruct",)
    assert config.evaluation.problems.source != r1_distill_qwen_7b().evaluation.problems.source
    assert config.algorithm == r1_distill_qwen_7b().algorithm


def test_the_longest_episode_of_one_gpu_fits_its_context() -> None:
    config = one_gpu()
    limits, annealing = config.rollout.limits, config.annealing
    replies = (annealing.turn_budget - 1) * annealing.queries_per_turn * limits.max_reply_tokens
    longest = limits.max_prompt_tokens + limits.max_response_tokens + replies
    assert isinstance(config.engine, VLLMEngine)
    assert config.engine.max_context_tokens is not None
    assert 256 < config.engine.max_context_tokens - longest < 1024  # tags and the chat template
    assert config.learner.max_batch_tokens == config.engine.max_context_tokens
    assert config.experts.extra_body == {"max_tokens": limits.max_reply_tokens}


def test_every_preset_has_a_name_of_its_own() -> None:
    assert len({preset().name for preset in PRESETS}) == len(PRESETS)


def test_the_experts_are_withdrawn_by_the_last_step() -> None:
    for config in [preset() for preset in PRESETS]:
        assert config.schedule.rules_at(config.steps, 0.0).is_alone
        assert not config.schedule.rules_at(1).is_alone
        rate = 0.5 if config in (demo(), smollm2()) else 1.0
        assert config.schedule.acceptance_rate_at(1) == rate


def test_self_exploratory_is_the_same_training_alone() -> None:
    for config in [preset() for preset in PRESETS]:
        alone = self_exploratory(config)
        rules = [
            alone.schedule.rules_at(step, draw) for step in (1, 50, 500) for draw in (0.0, 0.99)
        ]
        assert all(one.is_alone for one in rules)
        assert rules[0].turn_budget == Rules.alone().turn_budget
        assert alone.name == f"{config.name}-self-exploratory"
        assert replace(alone, name=config.name, annealing=config.annealing) == config


@pytest.mark.parametrize("preset", [r1_distill_qwen_7b, embedded])
def test_distillation_is_of_the_same_experts_alone(preset: Callable[[], TrainConfig]) -> None:
    """All else is the preset's."""
    config = preset()
    for rank in (0, 8):
        found = distilled(config, lora_rank=rank)
        assert found.distillation == DistillationSettings()
        assert found.model.lora.rank == rank
        assert found.schedule.rules_at(1).is_alone
        assert found.name == f"{config.name}-distilled{'-lora' if rank else ''}"
        changed = replace(found, name=config.name, annealing=config.annealing, distillation=None)
        assert replace(changed, model=config.model) == config


def test_training_and_held_out_problems_of_the_embedded_preset_differ() -> None:
    config = embedded()
    trained = {problem.statement for problem in config.problems.load()}
    held_out = {problem.statement for problem in config.evaluation.problems.load()}
    assert (len(trained), len(held_out)) == (4096, 64)
    assert not trained & held_out


def test_the_local_preset_needs_no_network_but_for_its_model() -> None:
    config = local()
    assert isinstance(config.engine, HFEngine)
    assert config.experts.kind == "synthetic"
    held_out = config.evaluation.problems.load()
    assert len(without(held_out, config.problems.load())) > 400


def test_the_preset_of_smollm2_has_the_settings_of_the_main_claim() -> None:
    config, claim = smollm2(), demo()
    assert config.annealing == claim.annealing
    assert config.rollout.turn_budgets == claim.rollout.turn_budgets
    assert config.rollout.gate_draws == claim.rollout.gate_draws
    assert config.reward == claim.reward


def test_presets_are_found_by_name() -> None:
    assert preset_named("r1_distill_qwen_7b") == r1_distill_qwen_7b()
    with pytest.raises(
        ValueError, match=r"'embeded': did you mean 'embedded'\? There are embedded, demo"
    ):
        preset_named("embeded")
