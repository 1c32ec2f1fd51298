"""Make the embedded model: a small Llama from scratch, taught by the careless student.

Three phases: the arithmetic, from short flawless solutions; the whole format, from flawless
demonstrations; and carelessness, from demonstrations whose steps go wrong at the student's rate, so
that the model knows every step and yet takes it wrongly that often.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from eapo_agents.char_tokenizer import char_tokenizer
from eapo_agents.cold_start import Student
from eapo_agents.learner import Learner, LearnerSettings
from eapo_agents.tokens import Chat, plain_ids
from eapo_agents.trajectory import Demonstration
from eapo_env.episode import Episode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_SETTINGS = LearnerSettings(
    warmup_steps=0, weight_decay=0.05, max_batch_tokens=1 << 20, precision="bfloat16"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How the embedded model is made.

    Args:
        arithmetic_steps: optimiser steps of the first phase.
        format_steps: optimiser steps of the second phase.
        careless_steps: optimiser steps of the third phase.
        batch_size: demonstrations a step.
        learning_rate: at its peak in the first phase, and half and a quarter of it in the others;
            each phase warms up and decays by a cosine to a twentieth.
        student: who demonstrates in the third phase.
        seed: of the weights and of the demonstrations.

    Raises:
        ValueError: a number out of its range.
    """

    arithmetic_steps: int = 5000
    format_steps: int = 900
    careless_steps: int = 300
    batch_size: int = 64
    learning_rate: float = 2e-3
    student: Student = Student()
    seed: int = 0

    def __post_init__(self) -> None:
        phases = (self.arithmetic_steps, self.format_steps, self.careless_steps)
        if min(*phases, self.seed) < 0 or self.batch_size < 1:
            raise ValueError(f"steps and seed must not be negative, batch_size positive: {self}")

    def run(self, folder: Path, on_step: Callable[[float], None]) -> None:
        """Train the model and write it, in float16, to a folder in Hugging Face format."""
        tokenizer = char_tokenizer()
        torch.manual_seed(self.seed)
        model = LlamaForCausalLM(_shape(tokenizer))
        learner = Learner(model, settings=_SETTINGS)
        for learning_rate, batch in self._batches(Chat(tokenizer)):
            learner.settings = replace(_SETTINGS, learning_rate=learning_rate)
            on_step(learner.sft_update(batch)["loss"])
        model.half().save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # written for their owner alone
            weights.chmod((folder / "config.json").stat().st_mode)

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return self.arithmetic_steps + self.format_steps + self.careless_steps

    def _batches(self, chat: Chat) -> Iterator[tuple[float, list[Demonstration]]]:
        """Yield the learning rate and the batch of every optimiser step."""
        rng = np.random.default_rng(self.seed)
        flawless = replace(self.student, slip=0.0)
        arithmetic = replace(flawless, alone=1.0, max_brackets=2)
        phases = (
            (arithmetic, self.arithmetic_steps, self.learning_rate),
            (flawless, self.format_steps, self.learning_rate / 2),
            (self.student, self.careless_steps, self.learning_rate / 4),
        )
        for student, steps, peak in phases:
            for start in range(0, steps, 8):
                batches = _bucketed(student, chat, rng, self.batch_size, min(8, steps - start))
                for step, batch in enumerate(batches, start=start):
                    yield peak * _schedule(step, steps), batch


def _schedule(step: int, steps: int) -> float:
    """Return a step's share of the peak learning rate: linear warm-up, cosine decay."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / 50) * (0.05 + 0.95 * cosine)


def encode(episode: Episode, chat: Chat) -> Demonstration:
    """Return a demonstration's ids and mask, laid out exactly as a rollout lays them out."""
    ids = chat.opening(episode.messages[:1])
    mask = [False] * len(ids)
    for message in episode.messages[1:]:
        if message.role == "assistant":
            new = plain_ids(message.content, chat.tokenizer)
            new += [chat.tokenizer.eos_token_id] if message is episode.messages[-1] else []
        else:
            new = chat.reply(message, after=ids[-1])
        ids += new
        mask += [message.role == "assistant"] * len(new)
    return Demonstration(token_ids=np.array(ids, np.int32), mask=np.array(mask))


def _bucketed(
    student: Student, chat: Chat, rng: np.random.Generator, size: int, num_batches: int
) -> list[list[Demonstration]]:
    """Return batches of demonstrations of like length, in random order: little padding."""
    drawn = [encode(student.demonstrate(rng), chat) for _ in range(size * num_batches)]
    drawn.sort(key=lambda demonstration: demonstration.num_tokens)
    batches = [drawn[number * size : (number + 1) * size] for number in range(num_batches)]
    return [batches[number] for number in rng.permutation(num_batches)]


def _shape(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Return the shape of the model: a million parameters.

    A Llama, because transformers takes any tokenizer it finds beside a Qwen2 for Qwen2's own.
    """
    return LlamaConfig(
        vocab_size=128,
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
