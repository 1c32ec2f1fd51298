from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.huggingface import HFPolicy


def load(folder: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(folder)


def learner_of(model: PreTrainedModel, temperature: float = 1.0) -> Learner:
    return Learner(model, settings=LearnerSettings(device="cpu"), temperature=temperature)


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_equal_weights_pass(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast, temperature: float
) -> None:
    policy, learner = (
        HFPolicy(load(tiny_model), tokenizer),
        learner_of(load(tiny_model), temperature),
    )
    assert asyncio.run(SyncProbe(tolerance=1e-4).check(policy, learner)) < 1e-4


@pytest.mark.parametrize("wrong", [1.05, float("nan")])
def test_other_weights_are_refused(
    tiny_model: Path, tokenizer: PreTrainedTokenizerFast, wrong: float
) -> None:
    model = load(tiny_model)
    model.model.norm.weight.data.mul_(wrong)
    policy = HFPolicy(load(tiny_model), tokenizer)
    with pytest.raises(ValueError, match=r"tolerance is 0.001; .*log-probability -.*, the learner"):
        asyncio.run(SyncProbe().check(policy, learner_of(model)))


@pytest.mark.parametrize("wrong", [{"tolerance": 0.0}, {"num_completions": 0}, {"max_tokens": 0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    [(name, value)] = wrong.items()
    with pytest.raises(ValueError, match=f"{name}.*{value}"):
        SyncProbe(**wrong)  # type: ignore[arg-type]
