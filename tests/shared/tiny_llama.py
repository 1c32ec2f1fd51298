"""Llamas of some 80,000 parameters with the character tokenizer: fresh, saved, and taught a format.

Their heads have a size that vLLM's kernels for CPUs know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from eapo_agents.learning.learner import Learner
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.chat import Chat
from eapo_agents.rollouts.trajectory import Demonstration, encode
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Reply, Rules

CONSULTATION = "<consult>\n<query>9</query>\n</consult>"


def tiny_llama(seed: int = 0, **changes: Any) -> PreTrainedModel:
    """Return a model with fresh weights, of other dimensions where they are named."""
    torch.manual_seed(seed)
    tokenizer = char_tokenizer()
    sizes = {
        "vocab_size": 128,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 160,
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    return LlamaForCausalLM(LlamaConfig(**sizes | changes)).eval()


def saved(model: PreTrainedModel, folder: Path) -> Path:
    """Write the model and its tokenizer in Hugging Face format; return where."""
    model.save_pretrained(folder)
    char_tokenizer().save_pretrained(folder)
    return folder


def teach(model: PreTrainedModel, updates: int) -> None:
    """Teach it to answer with a random digit, and half of the time to consult first."""
    settings = LearnerSettings(device="cpu", learning_rate=1e-2, warmup_steps=10, weight_decay=0.0)
    learner, rng = Learner(model, settings=settings), np.random.default_rng(0)
    chat = Chat(char_tokenizer())
    for _ in range(updates):
        learner.sft_update([_demonstration(rng, chat) for _ in range(16)])


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
