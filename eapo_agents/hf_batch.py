"""Continuous batching over a transformers model: the rows that decode together.

Every row has a slot of one preallocated key-value cache and writes at its own length, so rows of
any age share a forward pass, a finished row leaves by moving the last one into its slot, and a new
one joins in any step. Knows nothing of coroutines; `hf_policy.py` does.

    prefill(prompt[:-1]) -> step -> step -> ...      a step feeds each row's last id, draws the next
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from eapo_agents.hf_cache import SlotCache, grouped_attention
from eapo_agents.hf_sampling import StopTable, Truncations, draw
from eapo_agents.policy import Completion, Finish, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PREFILL_TOKENS = 8192  # of one forward pass, padding included: bounds its memory

_ROW = np.dtype(
    [
        ("last", "i8"),  # the id to feed next: the prompt's last, or the one drawn last
        ("length", "i8"),  # of what the cache holds of the row: where `last` will be written
        ("count", "i8"),  # of ids drawn so far
        ("limit", "i8"),
        ("temperature", "f8"),
        ("top_p", "f8"),
        ("top_k", "i8"),
        ("min_p", "f8"),
        ("stop", "i8"),  # the stop texts' number in the stop table
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A completion to be drawn: at most `limit` ids after the prompt. Compares by identity."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    limit: int


class Batch:
    """The rows that decode together, and their key-value cache, which is kept between uses."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._stops = StopTable(model, tokenizer)
        self.clear()

    def clear(self) -> None:
        """Forget every row and the cache."""
        self.live: list[Request] = []
        self._cache = SlotCache(self._model.config.get_text_config().num_hidden_layers)
        self._rows = np.zeros(0, _ROW)
        self._uniforms: npt.NDArray[np.float64] = np.zeros((0, 0))
        self._tokens: npt.NDArray[np.int64] = np.zeros((0, 0), np.int64)
        self._logprobs: npt.NDArray[np.float32] = np.zeros((0, 0), np.float32)

    @torch.inference_mode()
    def admit(self, requests: Sequence[Request]) -> None:
        """Let requests join the next step; equal prompts among them share one prefill."""
        start = len(self.live)
        self._reserve(start + len(requests), max(request.limit for request in requests))
        slots: dict[tuple[int, ...], list[int]] = {}
        for slot, request in enumerate(requests, start):
            self._take(slot, request)
            slots.setdefault(request.prompt_ids[:-1], []).append(slot)
        self.live += requests
        slots.pop((), None)
        for prompts in _chunks(sorted(slots, key=len, reverse=True)):
            self._prefill(prompts, [slots[prompt] for prompt in prompts])

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Completion]]:
        """Draw one id for every row; return those that are finished, which leave.

        Raises:
            ValueError: the model's logits are not finite.
        """
        rows, each = self._rows[: len(self.live)], np.arange(len(self.live))
        temperature_B = self._on_device(rows["temperature"])
        uniforms_B = self._on_device(self._uniforms[each, rows["count"]])
        drawn = draw(self._logits(rows), temperature_B, uniforms_B, self._truncations(rows))
        ids_B, logprobs_B = (tensor.cpu().numpy() for tensor in drawn)
        if not np.isfinite(logprobs_B).all():
            raise ValueError("the policy's logits are not finite: its weights are spoilt")
        self._tokens[each, rows["count"]] = ids_B
        self._logprobs[each, rows["count"]] = logprobs_B
        rows["last"] = ids_B
        rows["length"] += 1
        rows["count"] += 1
        stopped = self._stops.hit(self._tokens[: len(rows)], rows["count"], rows["stop"])
        done = np.flatnonzero(stopped | (rows["count"] >= rows["limit"]))
        finished = [
            (self.live[row], self._completion(int(row), bool(stopped[row]))) for row in done
        ]
        self._remove(done)
        return finished

    @torch.inference_mode()
    def drop(self, requests: Sequence[Request]) -> None:
        """Let live requests leave unfinished."""
        self._remove(np.array([self.live.index(request) for request in requests], np.intp))

    def _take(self, slot: int, request: Request) -> None:
        row, sampling = self._rows[slot], request.sampling
        row["last"] = request.prompt_ids[-1]
        row["length"] = len(request.prompt_ids) - 1
        row["count"] = 0
        row["limit"] = request.limit
        row["temperature"] = sampling.temperature
        truncation = sampling.truncation
        row["top_p"], row["top_k"] = truncation.top_p, truncation.top_k
        row["min_p"] = truncation.min_p
        row["stop"] = self._stops.index(sampling.stop)
        luck = np.random.default_rng(request.seed)
        self._uniforms[slot, : request.limit] = luck.random(request.limit)

    def _truncations(self, rows: npt.NDArray[Any]) -> Truncations | None:
        """Return each row's truncation; None where all ids may be drawn, which costs no sorting."""
        if all(request.sampling.truncation.keeps_all for request in self.live):
            return None
        return Truncations(*(self._on_device(rows[name]) for name in ("top_p", "top_k", "min_p")))

    def _logits(self, rows: npt.NDArray[Any]) -> Tensor:
        at_B = self._on_device(rows["length"])
        width = int(rows["length"].max()) + 1
        seen_BW = torch.arange(width, device=at_B.device) <= at_B[:, None]
        self._cache.write_at(at_B, width)
        with grouped_attention(self._model):
            output = self._model(
                input_ids=self._on_device(rows["last"])[:, None],
                attention_mask=seen_BW[:, None, None],
                position_ids=at_B[:, None],
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV

    def _prefill(self, prompts: Sequence[tuple[int, ...]], slots: Sequence[Sequence[int]]) -> None:
        """Fill the slots' cache: padded on the right, where causal attention never looks."""
        ids = np.zeros((len(prompts), len(prompts[0])), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt)] = prompt
        fresh = DynamicCache()
        self._model(
            input_ids=self._on_device(ids), past_key_values=fresh, use_cache=True, logits_to_keep=1
        )
        source = [row for row, taken in enumerate(slots) for _ in taken]
        target = [slot for taken in slots for slot in taken]
        self._cache.fill(fresh, self._on_device(source), self._on_device(target))

    def _completion(self, row: int, stopped: bool) -> Completion:
        count = self._rows["count"][row]
        finish: Finish = "stop" if stopped else "length"
        return Completion(
            token_ids=tuple(self._tokens[row, :count].tolist()),
            logprobs=tuple(self._logprobs[row, :count].tolist()),
            finish=finish,
        )

    def _remove(self, done: npt.NDArray[np.intp]) -> None:
        """Free these rows by moving the last ones into their slots."""
        left = len(self.live) - len(done)
        holes = done[done < left]
        movers = np.setdiff1d(np.arange(left, len(self.live)), done)
        if len(movers):
            width = int(self._rows["length"][movers].max())
            self._cache.move(self._on_device(movers), self._on_device(holes), width)
            for array in (self._rows, self._uniforms, self._tokens, self._logprobs):
                array[holes] = array[movers]
            for mover, hole in zip(movers, holes, strict=True):
                self.live[hole] = self.live[mover]
        del self.live[left:]

    def _reserve(self, rows: int, columns: int) -> None:
        self._rows = _grown(self._rows, (rows,))
        self._uniforms = _grown(self._uniforms, (rows, columns))
        self._tokens = _grown(self._tokens, (rows, columns))
        self._logprobs = _grown(self._logprobs, (rows, columns))

    def _on_device(self, array: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self._model.device)


def _chunks(prompts: Iterable[tuple[int, ...]]) -> Iterator[list[tuple[int, ...]]]:
    """Yield prompts, given longest first, in batches of bounded size."""
    batch: list[tuple[int, ...]] = []
    for prompt in prompts:
        if batch and len(batch[0]) * (len(batch) + 1) > _PREFILL_TOKENS:
            yield batch
            batch = []
        batch.append(prompt)
    if batch:
        yield batch


def _grown(array: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Return the array, or a larger one that begins with it, so that this shape fits in."""
    if all(old >= new for old, new in zip(array.shape, shape, strict=True)):
        return array
    grown = np.zeros(
        [max(old, new) for old, new in zip(array.shape, shape, strict=True)], array.dtype
    )
    grown[tuple(slice(size) for size in array.shape)] = array
    return grown
