"""New weights in vLLM: they are in the next completion, what does not fit is refused."""

from __future__ import annotations

import asyncio
import copy
from pathlib import Path

import pytest

pytest.importorskip("vllm")

import torch
from asked import gap, together
from families import family_of, made
from safetensors.torch import load_file
from transformers import PreTrainedModel

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.learning.sync_probe import SyncProbe
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.policies.policy import Sampling
from eapo_agents.policies.vllm import VLLMPolicy
from eapo_agents.policies.vllm_weights import CheckpointNames

PROMPT = [5 + number % 90 for number in range(100)]


def changed(model: PreTrainedModel, seed: int = 1, scale: float = 0.05) -> PreTrainedModel:
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(scale * torch.randn(weight.shape, generator=generator))
    return other


def learner_of(model: PreTrainedModel, temperature: float = 1.0) -> Learner:
    settings = LearnerSettings(device="cpu")
    return Learner(copy.deepcopy(model), settings=settings, temperature=temperature)


def test_new_weights_are_in_the_next_completion(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    asked = [(PROMPT, Sampling(max_tokens=40), number) for number in range(8)]
    before = together(vllm, asked)
    other = changed(llama)
    vllm.load_weights(other.state_dict())
    after = together(vllm, asked)
    assert [one.token_ids for one in before] != [one.token_ids for one in after]
    for request, old, new in zip(asked, before, after, strict=True):
        assert gap(other, request, new) < 1e-4
        assert gap(other, request, old) > 0.1
    vllm.load_weights(llama.state_dict())
    assert [one.token_ids for one in together(vllm, asked)] == [one.token_ids for one in before]


def test_tied_weights_may_be_named_once(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    other = changed(llama)
    vllm.load_weights(dict(other.named_parameters()))
    request = (PROMPT, Sampling(max_tokens=40), 0)
    assert gap(other, request, together(vllm, [request])[0]) < 1e-4


def test_weights_that_do_not_fit_are_refused(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    state = llama.state_dict()
    norm = state.pop("model.norm.weight")
    with pytest.raises(ValueError, match=r"unknown \[\], missing \['model.norm.weight'\]"):
        vllm.load_weights(state)
    with pytest.raises(ValueError, match=r"unknown \['what.weight'\], missing \[\]"):
        vllm.load_weights(state | {"model.norm.weight": norm, "what.weight": norm})


def test_weights_are_refused_while_completions_are_under_way(
    vllm: VLLMPolicy, llama: PreTrainedModel
) -> None:
    async def run() -> None:
        task = asyncio.ensure_future(vllm.complete(PROMPT, Sampling(max_tokens=100), 0))
        await asyncio.sleep(0)
        with pytest.raises(ValueError, match="1 completions in progress"):
            vllm.load_weights(llama.state_dict())
        await task

    asyncio.run(run())


def test_the_cache_is_dropped_with_the_weights(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    together(vllm, [(PROMPT, Sampling(max_tokens=2), 0)])
    vllm.load_weights(llama.state_dict())
    before = vllm.num_cached_tokens
    together(vllm, [(PROMPT, Sampling(max_tokens=2), 0)])
    assert vllm.num_cached_tokens == before


def test_the_probe_passes_a_right_hand_over(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    other = changed(llama)
    vllm.load_weights(other.state_dict())
    assert asyncio.run(SyncProbe(tolerance=1e-4).check(vllm, learner_of(other, 0.7))) < 1e-4


@pytest.mark.parametrize("part", ["lm_head.weight", "model.layers.1.mlp.down_proj.weight", ""])
def test_the_probe_refuses_a_wrong_hand_over(
    vllm: VLLMPolicy, llama: PreTrainedModel, part: str
) -> None:
    """A part of the weights (all of them for "") is still that of the model before."""
    other = changed(llama)
    stale = {name: weight for name, weight in llama.state_dict().items() if name.startswith(part)}
    vllm.load_weights(other.state_dict() | stale)
    with pytest.raises(
        ValueError, match=r"tolerance is 0\.001; .*log-probability -.*, the learner -"
    ):
        asyncio.run(SyncProbe().check(vllm, learner_of(other)))


def test_the_probe_refuses_old_keys_and_values(vllm: VLLMPolicy, llama: PreTrainedModel) -> None:
    """The weights are new, but the cache was not dropped (as `reload_weights` alone leaves it)."""
    probe, other = SyncProbe(), changed(llama)
    asyncio.run(probe.check(vllm, learner_of(llama)))
    reload = {"weights_iterator": iter(other.state_dict().items())}
    vllm._thread.submit(vllm._engine.collective_rpc, "reload_weights", kwargs=reload).result()
    with pytest.raises(ValueError, match="does not sample from the learner's weights"):
        asyncio.run(probe.check(vllm, learner_of(other)))


def test_experts_are_named_as_in_a_checkpoint(tmp_path: Path) -> None:
    """verl#6896, vllm#42577: in memory they are fused."""
    folder = made(family_of("Qwen3 MoE"), tmp_path / "model")
    model, _ = load_model(ModelSettings(path=str(folder)))
    sent = CheckpointNames(folder).of(model.state_dict())
    stored = load_file(folder / "model.safetensors")
    assert sent.keys() == stored.keys()
    assert all(torch.equal(weight, stored[name]) for name, weight in sent.items())
