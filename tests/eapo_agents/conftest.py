"""A tiny model that knows the format and guesses, problems it can learn by heart, and settings.

The model, a Llama of 10,000 parameters with the character tokenizer, has been taught to answer with
a random digit, and half of the time to consult first. Every problem's answer is 3.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from eapo_agents.char_tokenizer import char_tokenizer
from eapo_agents.config import TrainConfig, with_settings
from eapo_agents.learner import Learner, LearnerSettings
from eapo_agents.presets import embedded
from eapo_agents.pretrain import encode
from eapo_agents.run import Run
from eapo_agents.tokens import Chat
from eapo_agents.trajectory import Demonstration
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Reply, Rules
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

CONSULTATION = "<consult>\n<query>9</query>\n</consult>"


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return char_tokenizer()


@pytest.fixture(scope="session")
def verifier() -> Iterator[Verifier]:
    with Verifier() as one:
        yield one


@pytest.fixture(scope="session")
def tiny_model(
    tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast
) -> Path:
    """A folder in Hugging Face format."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128,
            hidden_size=24,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=160,
            initializer_range=0.1,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    settings = LearnerSettings(device="cpu", learning_rate=1e-2, warmup_steps=10, weight_decay=0.0)
    learner, rng, chat = (
        Learner(model, settings=settings),
        np.random.default_rng(0),
        Chat(tokenizer),
    )
    for _ in range(100):
        learner.sft_update([_demonstration(rng, chat) for _ in range(16)])
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
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
        "annealing.steps=4",
        "checkpoint_every=2",
        "transcripts_every=2",
        f"model.path={tiny_model}",
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
def tiny_config(tiny_settings: list[str]) -> TrainConfig:
    return with_settings(embedded(), tiny_settings)


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
        run.close()
        return run

    return record


def _demonstration(rng: np.random.Generator, chat: Chat) -> Demonstration:
    rules = Rules.alone() if rng.random() < 0.5 else Rules(turn_budget=2)
    letter, number = "pq"[rng.integers(2)], int(rng.integers(24))
    problem = Problem(id="demonstration", statement=f"{letter}{number}", answer="3")
    episode = begin(problem, rules, Prompts.terse())
    if not rules.is_alone and rng.random() < 0.5:
        episode = _consulted(episode, rng)
    episode = act(episode, f"\\boxed{{{rng.integers(10)}}}", rng)
    return encode(episode, chat)


def _consulted(episode: Episode, rng: np.random.Generator) -> Episode:
    episode = act(episode, CONSULTATION, rng)
    return receive(episode, [Reply("expert", str(rng.integers(100)))])
