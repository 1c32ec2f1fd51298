"""Models of given dimensions, and sequences for them. Not a benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from eapo_agents.rollouts import Demonstration


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The dimensions of a Qwen2 model."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    vocabulary: int
    tied: bool = False

    def model(self, attention: str = "sdpa") -> Qwen2ForCausalLM:
        """Return a model with fresh weights, the same every time, and this attention."""
        torch.manual_seed(0)
        config = Qwen2Config(
            num_hidden_layers=self.layers,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            vocab_size=self.vocabulary,
            max_position_embeddings=1 << 17,
            tie_word_embeddings=self.tied,
            attn_implementation=attention,
        )
        return Qwen2ForCausalLM(config)

    @property
    def multiplied(self) -> int:
        """Weights that each token is multiplied with: all matrices but the embedding."""
        head = self.hidden // self.heads
        attention = 2 * self.hidden * head * (self.heads + self.kv_heads)
        block = attention + 3 * self.hidden * self.intermediate
        return self.layers * block + self.hidden * self.vocabulary

    @property
    def cached(self) -> int:
        """Keys and values that a cache holds for each token."""
        return 2 * self.layers * self.kv_heads * self.hidden // self.heads

    def update_flops(self, num: int, length: int) -> float:
        """Return the operations of forward and backward over `num` sequences of `length` ids.

        6 a weight and token, and 6 layers x hidden x length a token for causal attention; what is
        recomputed does not count (model FLOPs, as in PaLM's appendix B).
        """
        tokens = num * length
        return 6.0 * tokens * (self.multiplied + self.layers * self.hidden * length)


SHAPES: Final[Mapping[str, Shape]] = {
    "1M": Shape(
        layers=4, hidden=128, intermediate=512, heads=4, kv_heads=2, vocabulary=128, tied=True
    ),
    "12M": Shape(  # about the proportions of 7B
        layers=4, hidden=256, intermediate=1408, heads=4, kv_heads=2, vocabulary=10752
    ),
    "100M": Shape(
        layers=12,
        hidden=768,
        intermediate=2560,
        heads=12,
        kv_heads=4,
        vocabulary=16384,
        tied=True,
    ),
    "135M": Shape(  # SmolLM2-135M
        layers=30, hidden=576, intermediate=1536, heads=9, kv_heads=3, vocabulary=49152, tied=True
    ),
    "500M": Shape(  # Qwen2.5-0.5B
        layers=24, hidden=896, intermediate=4864, heads=14, kv_heads=2, vocabulary=151936, tied=True
    ),
    "1.5B": Shape(  # Qwen2.5-1.5B
        layers=28,
        hidden=1536,
        intermediate=8960,
        heads=12,
        kv_heads=2,
        vocabulary=151936,
        tied=True,
    ),
    "3B": Shape(  # Qwen2.5-3B
        layers=36,
        hidden=2048,
        intermediate=11008,
        heads=16,
        kv_heads=2,
        vocabulary=151936,
        tied=True,
    ),
    "7B": Shape(  # Qwen2.5-7B
        layers=28, hidden=3584, intermediate=18944, heads=28, kv_heads=4, vocabulary=152064
    ),
}


def sequences(number: int, length: int, vocabulary: int) -> list[Demonstration]:
    """Return sequences of random ids, of which all but the first are trained on."""
    rng = np.random.default_rng(0)
    mask = np.arange(length) > 0
    return [
        Demonstration(token_ids=rng.integers(1, vocabulary, length, np.int32), mask=mask)
        for _ in range(number)
    ]
