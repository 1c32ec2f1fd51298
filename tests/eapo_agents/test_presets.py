"""Presets: the paper's numbers, and what the baseline changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from eapo_agents.config import TrainConfig
from eapo_agents.presets import embedded, paper, preset_named, self_exploratory
from eapo_env.types import Rules


def test_the_paper_preset_holds_table_5() -> None:
    config = paper()
    assert config.model.path == "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"
    assert config.problems.source == "dapo-math-17k"
    assert config.rollout.limits.max_response_tokens == 20_480
    assert config.rollout.sampling.groups_per_step == 32
    assert config.rollout.sampling.problems_per_round == 96
    assert config.rollout.temperature == config.learner.temperature == 1.0
    assert (config.learner.learning_rate, config.learner.warmup_steps) == (1e-6, 10)
    assert (config.annealing.turn_budget, config.annealing.queries_per_turn) == (4, 3)
    (endpoint,) = config.experts.endpoints
    assert endpoint.models == ("Qwen/QwQ-32B",) * 3
    assert config.evaluation.samples_per_problem == 32
    assert config.algorithm == "dapo"


@pytest.mark.parametrize("config", [embedded(), paper()], ids=lambda config: config.name)
def test_the_experts_are_withdrawn_by_the_last_step(config: TrainConfig) -> None:
    assert config.annealing.rules_at(config.steps - 1, 0.0).is_alone
    assert not config.annealing.rules_at(0).is_alone
    assert config.annealing.acceptance_rate_at(0) == 1.0


@pytest.mark.parametrize("config", [embedded(), paper()], ids=lambda config: config.name)
def test_self_exploratory_is_the_same_training_alone(config: TrainConfig) -> None:
    alone = self_exploratory(config)
    rules = [alone.annealing.rules_at(step, draw) for step in (0, 50, 500) for draw in (0.0, 0.99)]
    assert all(one.is_alone for one in rules)
    assert rules[0].turn_budget == Rules.alone().turn_budget
    assert alone.name == f"{config.name}-self-exploratory"
    assert replace(alone, name=config.name, annealing=config.annealing) == config


def test_training_and_held_out_problems_of_the_embedded_preset_differ() -> None:
    config = embedded()
    trained = {problem.statement for problem in config.problems.load()}
    held_out = {problem.statement for problem in config.evaluation.problems.load()}
    assert (len(trained), len(held_out)) == (4096, 64)
    assert not trained & held_out


def test_presets_are_found_by_name() -> None:
    assert preset_named("paper") == paper()
    with pytest.raises(ValueError, match="unknown preset 'embeded': did you mean 'embedded'"):
        preset_named("embeded")
