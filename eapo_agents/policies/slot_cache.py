"""A key-value cache whose rows have different lengths, and attention that reads it uncopied."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import Cache

from eapo_env.validation import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_ATTENTION = "eapo_grouped_sdpa"


class SlotCache(Cache):  # type: ignore[misc]
    """A transformers cache whose rows have different lengths.

    Call `write_at` before each forward pass.
    """

    def __init__(self, num_layers: int) -> None:
        super().__init__(layers=[])
        self._keys: list[Tensor | None] = [None] * num_layers
        self._values: list[Tensor | None] = [None] * num_layers
        self._at_B = self._each_B = torch.zeros(0, dtype=torch.long)
        self._width = 0

    def write_at(self, at_B: Tensor, width: int) -> None:
        """Make the next forward pass write row r at `at_B[r]` and read `width` positions."""
        self._at_B, self._width = at_B, width
        self._each_B = torch.arange(len(at_B), device=at_B.device)

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[Tensor, Tensor]:
        """Write one position of every row; return the keys and values to attend to."""
        written = []
        for buffers, states in ((self._keys, key_states), (self._values, value_states)):
            buffer = self._reserve(buffers, layer_idx, states, len(states), self._width)
            buffer[self._each_B, :, self._at_B] = states[:, :, 0]
            written.append(buffer[: len(states), :, : self._width])
        return written[0], written[1]

    def fill(self, prefilled: DynamicCache, target: Tensor) -> None:
        """Copy the prefilled rows into the slots `target`, from position 0 on."""
        num_slots = int(target.max()) + 1
        for index, layer in enumerate(prefilled.layers):
            for buffers, states in ((self._keys, layer.keys), (self._values, layer.values)):
                length = states.shape[2]
                buffer = self._reserve(buffers, index, states, num_slots, length)
                buffer[target, :, :length] = states

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first `length` positions of some slots into others."""
        num_slots = int(target.max()) + 1
        for buffers in (self._keys, self._values):
            for index, old in enumerate(buffers):
                assert old is not None, "rows are live, so every layer has its buffer"
                buffer = self._reserve(buffers, index, old, num_slots, length)
                buffer[target, :, :length] = old[source, :, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the largest number of positions before the one being written."""
        return max(self._width - 1, 0)

    @staticmethod
    def _reserve(
        buffers: list[Tensor | None], layer: int, like: Tensor, num_slots: int, length: int
    ) -> Tensor:
        """Return a layer's buffer [slot, head, position, size], which may have grown.

        A head's positions are contiguous: strided, attention took 1.2 to 1.6 times as long.
        """
        old = buffers[layer]
        slots, positions = (0, 0) if old is None else (old.shape[0], old.shape[2])
        if old is not None and slots >= num_slots and positions >= length:
            return old
        slots = slots if slots >= num_slots else max(num_slots, slots * 3 // 2)
        positions = positions if positions >= length else max(length + 64, positions * 3 // 2)
        # Zeros, because a masked position still takes part, and 0 * NaN is NaN.
        grown = like.new_zeros(slots, like.shape[1], positions, like.shape[3])
        if old is not None:
            grown[: old.shape[0], :, : old.shape[2]] = old
        buffers[layer] = grown
        return grown


@contextmanager
def grouped_attention(model: PreTrainedModel) -> Iterator[None]:
    """Decode one id per row inside this context without copying the key-value heads."""
    config = model.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        config._attn_implementation = before


def grouped_sdpa(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Return attention of one position per row, [B, 1, heads, head size].

    The query heads that share a key-value head are taken as positions of one head: transformers'
    own sdpa repeats keys and values for each of them instead, which costs 2 to 5 times the step.

    Raises:
        UserError: attention with sinks (`s_aux`, as in gpt-oss), which this is not.
    """
    if s_aux is not None:
        raise UserError("this model's attention has sinks: engine.kind=vllm samples from it")
    rows, heads, _one, size = query.shape
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], size)
    output = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(rows, 1, heads, -1), None


AttentionInterface.register(_ATTENTION, grouped_sdpa)
