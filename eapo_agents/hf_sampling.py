"""Drawing the next id of every row of a batch, and noticing which rows that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Truncations(NamedTuple):
    """The truncation of each row of a batch (see `Truncation`), as tensors [B]."""

    top_p_B: Tensor
    top_k_B: Tensor
    min_p_B: Tensor


def draw(
    logits_BV: Tensor,
    temperature_B: Tensor,
    uniforms_B: Tensor,
    truncations: Truncations | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the id drawn for each row and its log-probability (nats, float32), both [B].

        id = min{v : sum_{w <= v} p_w > u * sum_w p_w},    p = truncated(softmax(logits / t))

    One uniform number u in [0, 1) draws one id, so a row's luck is its own. A row of t = 0
    takes the likeliest id; its log-probability is that of temperature 1, with nothing truncated.
    Without truncations no row has one.
    """
    greedy_B = temperature_B == 0
    divisor_B = torch.where(greedy_B, 1.0, temperature_B).float()
    logp_BV = torch.log_softmax(logits_BV.float() / divisor_B[:, None], dim=-1)
    if truncations is not None:
        logp_BV = torch.where(greedy_B[:, None], logp_BV, truncated(logp_BV, truncations))
    cumulative_BV = logp_BV.exp().cumsum(-1, dtype=torch.float64)
    total_B = cumulative_BV[:, -1]
    target_B = torch.minimum(uniforms_B * total_B, total_B.nextafter(torch.zeros_like(total_B)))
    ids_B = torch.searchsorted(cumulative_BV, target_B[:, None], right=True)[:, 0]
    ids_B = torch.where(greedy_B, logp_BV.argmax(-1), ids_B.clamp(max=logp_BV.shape[1] - 1))
    return ids_B, logp_BV.gather(1, ids_B[:, None])[:, 0]


def truncated(logp_BV: Tensor, truncations: Truncations) -> Tensor:
    """Return the log-probabilities of what may be drawn, summing to 1 again; -inf elsewhere.

    In the order of vLLM: min-p, then top-k, then top-p of what is left. Of ids that are equally
    likely the first ones are kept. The likeliest id always is.
    """
    top_p_B1, top_k_B1, min_p_B1 = (one_B[:, None] for one_B in truncations)
    sorted_BV, order_BV = logp_BV.sort(dim=-1, descending=True, stable=True)
    p_BV = sorted_BV.double().exp()
    rank_V = torch.arange(p_BV.shape[1], device=p_BV.device)
    keep_BV = (p_BV >= min_p_B1 * p_BV[:, :1]) & ((rank_V < top_k_B1) | (top_k_B1 < 0))
    mass_BV = (p_BV * keep_BV).cumsum(-1)
    before_BV = mass_BV - p_BV * keep_BV  # what the likelier ones hold
    keep_BV &= (before_BV < top_p_B1 * mass_BV[:, -1:]) | (top_p_B1 == 1)
    keep_BV[:, 0] = True
    kept_BV = sorted_BV.masked_fill(~keep_BV, -torch.inf)
    kept_BV = kept_BV - kept_BV.logsumexp(-1, keepdim=True)
    return torch.empty_like(kept_BV).scatter_(1, order_BV, kept_BV)


class StopTable:
    """Which ids end a turn, and which may complete a stop text: looked up for all rows at once."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        size = max(model.config.get_text_config().vocab_size, len(tokenizer))
        self._ends: Bools = np.zeros(size, np.bool_)
        self._ends[_end_ids(model, tokenizer)] = True
        self._indices: dict[tuple[str, ...], int] = {(): 0}
        self._screens_SV: Bools = np.zeros((1, size), np.bool_)

    def index(self, stop: tuple[str, ...]) -> int:
        """Return the number under which `hit` knows these stop texts."""
        if stop not in self._indices:
            self._indices[stop] = len(self._indices)
            screens = [self._screen(mark) for mark in stop]
            self._screens_SV = np.vstack([self._screens_SV, np.any(screens, axis=0)])
        return self._indices[stop]

    def hit(self, tokens_BT: Ints, counts_B: Ints, stop_B: Ints) -> Bools:
        """Return which rows end with their last id: an end of turn, or the end of a stop text."""
        last_B = tokens_BT[np.arange(len(counts_B)), counts_B - 1]
        hit_B = self._ends[last_B]
        stops = tuple(self._indices)
        for row in np.flatnonzero(self._screens_SV[stop_B, last_B] & ~hit_B):
            hit_B[row] = self._has_stop(tokens_BT[row, : counts_B[row]], stops[stop_B[row]])
        return hit_B

    def _screen(self, mark: str) -> Bools:
        """Return which ids may complete a stop text: those that hold its last character."""
        if not (mark[-1].isascii() and mark[-1].isprintable() and mark[-1] != " "):
            return np.ones(len(self._ends), np.bool_)  # a vocabulary may spell it in bytes
        screen = np.zeros(len(self._ends), np.bool_)
        tokens = self._tokenizer.convert_ids_to_tokens(list(range(len(self._tokenizer))))
        screen[: len(tokens)] = [token is None or mark[-1] in token for token in tokens]
        return screen

    def _has_stop(self, ids: Ints, stop: Sequence[str]) -> bool:
        # An id is at least one byte of text, and earlier ids have completed nothing.
        longest = max(len(mark.encode()) for mark in stop) + 2
        tail = self._tokenizer.decode(ids[-longest:].tolist(), clean_up_tokenization_spaces=False)
        return any(mark in tail for mark in stop)


def _end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids that end a turn: the tokenizer's, and those the model was released with."""
    config = getattr(model, "generation_config", None)
    released = getattr(config, "eos_token_id", None)
    ends = released if isinstance(released, list) else [released]
    return sorted({end for end in (*ends, tokenizer.eos_token_id) if end is not None})
