"""A tiny model that knows the format and guesses, problems it can learn by heart, and settings.

The model, a Llama of 10,000 parameters with the character tokenizer, has been taught to answer with
a random digit, and half of the time to consult first. Every problem's answer is 3.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_llama import saved, teach, tiny_llama
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.vllm import VLLMEngine, VLLMPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.presets import embedded
from eapo_agents.training.run_folder import Run
from eapo_env.verifier import Verifier

Recorder = Callable[..., Run]

_OF_A_STEP = {
    "call_rate": 0.25,
    "turn_budget": 2.0,
    "response_tokens": 12.5,
    "paradigm/self_resolution": 0.75,
    "paradigm/direct_consultation": 0.0,
    "paradigm/decomposition": 0.25,
}
"""What a recorded step says, whatever its accuracy."""


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return char_tokenizer()


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    with Verifier() as one:
        yield one


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Hugging Face format."""
    model = tiny_llama(hidden_size=24, intermediate_size=32)
    teach(model, updates=100)
    return saved(model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def settings_without_model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Settings that turn the preset `embedded` into a run of four steps and about a second."""
    folder = tmp_path_factory.mktemp("problems")
    for name, letter, count in (("train", "p", 24), ("held_out", "q", 4)):
        rows = [
            json.dumps({"id": f"{letter}{n}", "problem": f"{letter}{n}", "answer": "3"})
            for n in range(count)
        ]
        (folder / f"{name}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return [
        "name=tiny",
        "steps=4",
        "checkpoint_every=2",
        "transcripts_every=2",
        f"problems.source={folder / 'train.jsonl'}",
        f"evaluation.problems.source={folder / 'held_out.jsonl'}",
        "evaluation.samples_per_problem=2",
        "rollout.group_size=4",
        "rollout.sampling.groups_per_step=4",
        "rollout.sampling.problems_per_round=6",
        "rollout.sampling.max_rounds=2",
        "rollout.limits.max_response_tokens=48",
        "rollout.limits.max_reply_tokens=16",
        "learner.learning_rate=0.005",
        "learner.warmup_steps=1",
        "learner.device=cpu",
    ]


@pytest.fixture(scope="session")
def tiny_settings(settings_without_model: list[str], tiny_model: Path) -> list[str]:
    return [*settings_without_model, f"model.path={tiny_model}"]


@pytest.fixture(scope="session")
def tiny_config(tiny_settings: list[str]) -> TrainConfig:
    return with_settings(embedded(), tiny_settings)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def llama(request: pytest.FixtureRequest) -> PreTrainedModel:
    """A fresh model whose input and output embeddings are one, and another."""
    return tiny_llama(max_position_embeddings=4100, tie_word_embeddings=request.param)


@pytest.fixture(scope="module")
def vllm_of_module(
    llama: PreTrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VLLMPolicy]:
    settings = VLLMEngine(dtype="float32", max_batch=32, cache_bytes=32 << 20)
    with closing(VLLMPolicy(saved(llama, tmp_path_factory.mktemp("llama")), settings)) as policy:
        yield policy


@pytest.fixture
def vllm(vllm_of_module: VLLMPolicy, llama: PreTrainedModel) -> VLLMPolicy:
    """vLLM in process, with the weights of the fresh model."""
    vllm_of_module.load_weights(llama.state_dict())
    return vllm_of_module


@pytest.fixture
def recorded(tmp_path: Path) -> Recorder:
    """A function that makes run folders as training leaves them, with chosen numbers."""

    def record(
        name: str,
        accuracies: Sequence[float],
        *,
        seed: int = 0,
        correct: Mapping[int, Sequence[Sequence[bool]]] | None = None,
    ) -> Run:
        run = Run.create(replace(embedded(), name=name, seed=seed), tmp_path)
        for step, accuracy in enumerate(accuracies, start=1):
            run.record(step, {"accuracy": accuracy, **_OF_A_STEP, "acceptance_rate": 1 / step})
        for step, correct_PK in (correct or {}).items():
            run.record_evaluation(step, {"correct_PK": correct_PK})
        return run

    return record
