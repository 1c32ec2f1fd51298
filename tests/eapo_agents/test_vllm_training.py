from __future__ import annotations

import json
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm")

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from eapo_agents.char_tokenizer import char_tokenizer
from eapo_agents.config import TrainConfig, with_settings
from eapo_agents.distill import distill
from eapo_agents.learner import Learner, LearnerSettings
from eapo_agents.pretrain import encode
from eapo_agents.run import Run
from eapo_agents.settings import DistillationSettings
from eapo_agents.solutions import Solution
from eapo_agents.tokens import Chat
from eapo_agents.trainer import Trainer
from eapo_agents.trajectory import Demonstration
from eapo_env.episode import act, begin, receive
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Reply, Rules

ON_VLLM = [
    "model.engine=vllm",
    "vllm.dtype=float32",
    "vllm.max_batch=64",
    f"vllm.cache_bytes={32 << 20}",
    "sync.tolerance=1e-4",
]
CONSULTATION = "<consult>\n<query>9</query>\n</consult>"


def demonstration(rng: np.random.Generator, chat: Chat) -> Demonstration:
    """A random digit as the answer, half of the time after a consultation."""
    rules = Rules.alone() if rng.random() < 0.5 else Rules(turn_budget=2)
    statement = f"{'pq'[rng.integers(2)]}{rng.integers(24)}"
    problem = Problem(id="demonstration", statement=statement, answer="3")
    episode = begin(problem, rules, Prompts.terse())
    if not rules.is_alone and rng.random() < 0.5:
        episode = act(episode, CONSULTATION, rng)
        episode = receive(episode, [Reply("expert", str(rng.integers(100)))])
    episode = act(episode, f"\\boxed{{{rng.integers(10)}}}", rng)
    return encode(episode, chat)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model of the other tests, with heads of a size that vLLM's CPU kernels have."""
    torch.manual_seed(0)
    tokenizer = char_tokenizer()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=128,
            hidden_size=64,
            intermediate_size=64,
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
    for _ in range(80):
        learner.sft_update([demonstration(rng, chat) for _ in range(16)])
    folder = tmp_path_factory.mktemp("llama")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig, llama: Path) -> TrainConfig:
    settings = [
        f"model.path={llama}",
        "steps=6",
        "annealing.steps=6",
        "learner.learning_rate=0.003",
    ]
    return with_settings(tiny_config, settings)


def train(trainer: Trainer, folder: Path) -> list[dict[str, float]]:
    rows: list[dict[str, float]] = []
    run = Run.create(trainer.config, folder)
    with closing(trainer):
        assert trainer.train(run, lambda step, metrics: rows.append(dict(metrics)))
    return rows


def test_a_run_on_vllm_is_like_one_on_transformers(config: TrainConfig, tmp_path: Path) -> None:
    theirs = train(Trainer.from_config(config), tmp_path / "transformers")
    ours = train(Trainer.from_config(with_settings(config, ON_VLLM)), tmp_path / "vllm")
    # Whether an expert was asked in a step is a matter of luck.
    apart = {"sync_gap", "expert_failure_rate", "seconds/expert_p50", "seconds/expert_p95"}
    assert [row.keys() - apart for row in ours] == [row.keys() - apart for row in theirs]
    assert all(row["sync_gap"] < 1e-4 for row in ours)
    for rows in (ours, theirs):
        assert len(rows) == 6
        assert all(abs(row["mismatch_kl"]) < 1e-6 for row in rows)
        assert all(row["max_mismatch_ratio"] < 1 + 1e-4 for row in rows)
        assert rows[-1]["accuracy"] > rows[0]["accuracy"] + 0.2
    for name, within in (("accuracy", 0.25), ("call_rate", 0.25), ("response_tokens", 3.0)):
        assert ours[0][name] == pytest.approx(theirs[0][name], abs=within), name


def test_a_run_on_vllm_goes_on_from_its_checkpoint(config: TrainConfig, tmp_path: Path) -> None:
    """The engine of the second process starts from the old weights, and must be given the new."""
    config = with_settings(config, [*ON_VLLM, "steps=4", "checkpoint_every=2"])
    whole = train(Trainer.from_config(config), tmp_path / "whole")
    half = Run.create(config, tmp_path / "half")
    with closing(Trainer.from_config(replace(config, steps=2))) as trainer:
        assert trainer.train(half)
    with closing(Trainer.from_config(config)) as trainer:
        assert trainer.train(half)
    for ours, theirs in zip(half.metrics, whole, strict=True):
        assert ours["accuracy"] == pytest.approx(theirs["accuracy"], abs=0.3)
    assert half.metrics[2]["sync_gap"] < 1e-4


def test_a_hand_over_that_fails_ends_the_run(config: TrainConfig, tmp_path: Path) -> None:
    trainer = Trainer.from_config(with_settings(config, [*ON_VLLM, "sync.tolerance=1e-12"]))
    with closing(trainer), pytest.raises(RuntimeError, match="does not sample from the learner"):
        trainer.train(Run.create(config, tmp_path))


def test_a_distilled_policy_on_vllm_samples_from_merged_adapters(
    config: TrainConfig, tmp_path: Path
) -> None:
    """The solutions stand in the run folder already: no expert is asked."""
    config = replace(
        with_settings(config, [*ON_VLLM, "steps=20"]),
        distillation=DistillationSettings(samples_per_problem=1, learning_rate=1e-2, lora_rank=8),
    )
    run = Run.create(config, tmp_path)
    lines = [
        asdict(
            Solution(problem=problem.id, sample=0, expert="", text="\\boxed{3}", status="correct")
        )
        for problem in config.problems.load()
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run.folder / "solutions.jsonl").write_text(text, encoding="utf-8")
    assert distill(run)
    assert run.metrics[-1]["sync_gap"] < 1e-4
    assert run.metrics[-1]["loss"] < 0.5 * run.metrics[0]["loss"]
    assert run.metrics[-1]["alone/mean_at_k"] >= 0.25  # 0.1 before
