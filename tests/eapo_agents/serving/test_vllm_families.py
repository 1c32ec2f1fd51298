"""vLLM's column of `docs/families.md`: families sampled from, before and after new weights.

No other engine is open meanwhile, for vllm 0.32.0 makes the groups of processes that experts need
for the first engine of a process alone.
"""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import family_table
from families import Family, family_of, made
from family_table import WIDE

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.policies.policy import PolicyError
from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy

IN_FLOAT32 = VLLMEngine(max_context_tokens=256, dtype="float32")


@pytest.mark.parametrize("family", family_table.IN_VLLM, ids=lambda family: family.models)
def test_what_runs_in_vllm_is_in_the_table(family: Family, tmp_path: Path) -> None:
    found = family_table.measured_in_vllm(family, tmp_path / "model")
    assert found == family_table.rows()[family.models]["vllm"]


def test_layers_that_keep_their_old_weights_are_named(tmp_path: Path) -> None:
    """vllm 0.32.0 only logs it."""
    folder = made(family_of("gpt-oss"), tmp_path / "model", **WIDE, head_dim=32)
    model, _ = load_model(ModelSettings(path=str(folder), attention="eager"))
    with closing(VLLMPolicy(folder, IN_FLOAT32)) as policy:
        asyncio.run(
            SyncProbe().check(policy, Learner(model, settings=LearnerSettings(device="cpu")))
        )
        with pytest.raises(PolicyError, match="vLLM kept old weights in GptOssRoutedExperts"):
            policy.load_weights({name: weight + 1 for name, weight in model.state_dict().items()})
