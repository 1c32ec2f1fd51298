"""Pre-training of the embedded model: a small Llama from scratch, by imitation of a demonstrator.

Four phases: copying random texts, which teaches a small model to look things up by their content
far faster than the demonstrations do; arithmetic, from bare chains of steps; the whole format, from
demonstrations without errors, mixed with batches of the first two; and demonstrations with errors,
so that the model knows every step and still gets it wrong at the demonstrator's rate.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import cycle, islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from eapo_agents.files import writing
from eapo_agents.learning import LearnerSettings
from eapo_agents.policies import Chat, plain_ids
from eapo_agents.rollouts import Demonstration, Ids, encode
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.synthetic import MODULUS, OPERATIONS, apply
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import LlamaConfig, PreTrainedTokenizerBase

BUCKETS = 8
"""How many batches are drawn together and sorted by length, so that little is padded."""

LEARNER_SETTINGS = LearnerSettings(
    warmup_steps=0, weight_decay=0.05, max_batch_tokens=1 << 20, precision="bfloat16"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pretraining:
    """How the embedded model is pre-trained.

    Args:
        copying_steps: optimiser steps of the first phase.
        arithmetic_steps: optimiser steps of the second phase.
        format_steps: optimiser steps of the third phase; of five, one copies and one calculates.
        noisy_steps: optimiser steps of the fourth phase.
        batch_size: demonstrations per step.
        learning_rate: at its peak, a third of it in the fourth phase; each phase warms up and
            decays by a cosine to a twentieth.
        demonstrator: of the fourth phase; the third has the same one without errors.
        seed: of the weights and of the demonstrations.

    Raises:
        UserError: a number out of its range.
    """

    copying_steps: int = 500
    arithmetic_steps: int = 4000
    format_steps: int = 1500
    noisy_steps: int = 250
    batch_size: int = 64
    learning_rate: float = 1.5e-3
    demonstrator: NoisyDemonstrator = NoisyDemonstrator()
    seed: int = 0

    def __post_init__(self) -> None:
        if min(*self._phases, self.seed) < 0 or self.batch_size < 1:
            raise UserError(f"steps and seed must not be negative, batch_size positive: {self}")

    def run(self, folder: str | PathLike[str], on_step: Callable[[float], None]) -> None:
        """Train the model and write it, in float16, to a folder in Hugging Face format."""
        import torch
        from transformers import LlamaForCausalLM

        from eapo_agents.learning import Learner
        from eapo_agents.policies import char_tokenizer, with_fast_linears

        folder = Path(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        tokenizer = char_tokenizer()
        torch.manual_seed(self.seed)
        model = with_fast_linears(LlamaForCausalLM(_shape(tokenizer)))
        learner = Learner(model, settings=LEARNER_SETTINGS)
        for learning_rate, batch in self._batches(Chat(tokenizer)):
            on_step(learner.sft_update(batch, learning_rate=learning_rate)["loss"])
        with writing(folder):
            model.half().save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        for weights in folder.glob("*.safetensors"):  # which only their owner could read
            weights.chmod((folder / "config.json").stat().st_mode)

    @property
    def steps(self) -> int:
        """The number of optimiser steps."""
        return sum(self._phases)

    @property
    def _phases(self) -> tuple[int, int, int, int]:
        return self.copying_steps, self.arithmetic_steps, self.format_steps, self.noisy_steps

    def _batches(self, chat: Chat) -> Iterator[tuple[float, list[Demonstration]]]:
        """Yield the learning rate and the batch of every optimiser step."""
        rng = np.random.default_rng(self.seed)
        copying = _copying_batches(chat, rng, self.batch_size)
        arithmetic = _arithmetic_batches(chat, rng, self.batch_size)
        error_free = demonstration_batches(
            replace(self.demonstrator, step_error_rate=0.0), chat, rng, self.batch_size
        )
        noisy = demonstration_batches(self.demonstrator, chat, rng, self.batch_size)
        phases = (
            (copying, 1.0),
            (arithmetic, 1.0),
            (interleave(error_free, copying, error_free, arithmetic, error_free), 1.0),
            (noisy, 1 / 3),
        )
        for (batches, scale), steps in zip(phases, self._phases, strict=True):
            peak = scale * self.learning_rate
            for step, batch in enumerate(islice(batches, steps)):
                yield peak * learning_rate_factor(step, steps), batch


def learning_rate_factor(step: int, steps: int) -> float:
    """Return the factor on the peak learning rate in a step: linear warm-up, cosine decay."""
    cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
    return min(1.0, (step + 1) / 50) * (0.05 + 0.95 * cosine)


def demonstration_batches(
    demonstrator: NoisyDemonstrator, chat: Chat, rng: np.random.Generator, size: int
) -> Iterator[list[Demonstration]]:
    """Yield endless batches of demonstrations; those in a batch are of similar length."""
    while True:
        drawn = [encode(demonstrator.demonstrate(rng), chat) for _ in range(size * BUCKETS)]
        drawn.sort(key=lambda demonstration: demonstration.num_tokens)
        for bucket in rng.permutation(BUCKETS):
            yield drawn[bucket * size : (bucket + 1) * size]


def _copying_batches(
    chat: Chat, rng: np.random.Generator, size: int
) -> Iterator[list[Demonstration]]:
    """Yield endless batches of random texts, each followed by other text and then by itself."""
    ids = np.array(chat.tokenizer.convert_tokens_to_ids(list("0123456789abc+-*=:;,()")), np.int32)
    mark = np.array([chat.tokenizer.eos_token_id], np.int32)
    while True:
        yield [_copy(ids, mark, rng) for _ in range(size)]


def _copy(ids: Ids, mark: Ids, rng: np.random.Generator) -> Demonstration:
    text = rng.choice(ids, int(rng.integers(8, 28)))
    other = rng.choice(ids, int(rng.integers(1, 30)))
    token_ids = np.concatenate([mark, text, other, mark, text])
    mask = np.zeros(len(token_ids), bool)
    mask[1 - len(text) :] = True  # the first token of a copy cannot be predicted
    return Demonstration(token_ids=token_ids, mask=mask)


def _arithmetic_batches(
    chat: Chat, rng: np.random.Generator, size: int
) -> Iterator[list[Demonstration]]:
    """Yield endless batches of bare chains of correct steps."""
    while True:
        yield [_chain(chat, rng) for _ in range(size)]


def _chain(chat: Chat, rng: np.random.Generator) -> Demonstration:
    """Return a chain of four steps, each with an operand of one digit or of two, as in a sum."""
    value, steps = int(rng.integers(MODULUS)), []
    for _ in range(4):
        operation = str(rng.choice(list(OPERATIONS)))
        operand = int(rng.integers(2, 10))
        written = str(operand)
        if rng.random() < 0.5:
            operation, operand = "+", int(rng.integers(MODULUS))
            written = f"{operand:02}"
        result = apply(operation, value, operand)
        steps.append(f"{value:02}{operation}{written}={result:02}")
        value = result
    ids = plain_ids(";" + ",".join(steps), chat.tokenizer)
    mask = np.ones(len(ids), bool)
    mask[0] = False
    return Demonstration(token_ids=np.array(ids, np.int32), mask=mask)


def interleave(*kinds: Iterator[list[Demonstration]]) -> Iterator[list[Demonstration]]:
    """Yield one batch of each kind in turn, endlessly."""
    for batches in cycle(kinds):
        yield next(batches)


def _shape(tokenizer: PreTrainedTokenizerBase) -> LlamaConfig:
    """Return the architecture: a Llama of a million parameters.

    Not a Qwen2: beside one, transformers takes any tokenizer for Qwen2's.
    """
    from transformers import LlamaConfig

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
