"""Prompts, and random completion lengths, to sample with a policy. Not a benchmark."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

from eapo_agents.policies import char_tokenizer

Work = Sequence[tuple[list[int], int]]  # prompt ids, and how many ids to sample


def endless_tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer without an end of turn: every completion runs to its length."""
    tokenizer = char_tokenizer()
    tokenizer.eos_token = None
    return tokenizer


def ragged_work(num_rows: int, rng: np.random.Generator) -> Work:
    """Return prompts of 16-200 ids and completions of 4-256."""
    lengths = zip(rng.integers(16, 201, num_rows), rng.integers(4, 257, num_rows), strict=True)
    return [(rng.integers(4, 109, prompt).tolist(), int(output)) for prompt, output in lengths]
