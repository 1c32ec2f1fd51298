"""Continuous batching over a transformers model, with one preallocated key-value cache.

Rows with the same ids so far have one cache slot and are computed as one, until they draw different
ids. Slots have lengths of their own, so rows of any age share a forward pass: after each step the
slots in use are the first ones, and new rows join behind them. `huggingface.py` drives it from
asyncio.

    prefill(prompt[:-1]) -> step -> step -> ...      a step feeds each slot's last id, draws for
                                                     each row the next
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from transformers import DynamicCache

from eapo_agents.policies.llama import is_small_llama, llama_logits
from eapo_agents.policies.models import cache_argument, end_ids
from eapo_agents.policies.policy import Completion, Finish, PolicyError, Sampling
from eapo_agents.policies.slot_cache import SlotCache, grouped_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_PREFILL_TOKENS = 8192  # of one forward pass, padding included: bounds its memory

_ROW = np.dtype(
    [
        ("slot", "i8"),  # of the cache
        ("last", "i8"),  # the id to feed next: the prompt's last, or the one drawn last
        ("length", "i8"),  # cached positions; `last` is written after them
        ("count", "i8"),  # of ids drawn so far
        ("limit", "i8"),
        ("temperature", "f8"),
        ("top_p", "f8"),
        ("top_k", "i8"),
        ("min_p", "f8"),
        ("stop", "i8"),  # index into the stop table
    ]
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """A completion to sample: at most `limit` ids after the prompt. Compares by identity."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    limit: int


class Batch:
    """The rows that decode together, and their key-value cache, which is reused."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._stops = StopTable(model, tokenizer)
        self.clear()

    @property
    def end_ids(self) -> list[int]:
        """The ids that end a completion."""
        return self._stops.ends

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
        """Add requests to the next step; equal prompts share one prefill and one slot."""
        start, slots = len(self.live), dict[tuple[int, ...], int]()
        taken = len(np.unique(self._rows["slot"][:start]))
        self._reserve(start + len(requests), max(request.limit for request in requests))
        for row, request in enumerate(requests, start):
            self._take(row, request)
            slot = slots.setdefault(request.prompt_ids, taken + len(slots))
            self._rows[row]["slot"] = slot
        self.live += requests
        longest_first = sorted(slots, key=len, reverse=True)
        for prompts in _chunks([prompt for prompt in longest_first if len(prompt) > 1]):
            self._prefill(prompts, [slots[prompt] for prompt in prompts])

    @torch.inference_mode()
    def step(self) -> list[tuple[Request, Completion]]:
        """Sample one id for every row; remove and return the finished completions.

        Raises:
            PolicyError: the model's logits are not finite.
        """
        rows, each = self._rows[: len(self.live)], np.arange(len(self.live))
        temperature_B = self._on_device(rows["temperature"])
        uniforms_B = self._on_device(self._uniforms[each, rows["count"]])
        logits_BV = self._logits(rows)[self._on_device(rows["slot"])]
        drawn = draw(logits_BV, temperature_B, uniforms_B, self._truncations(rows))
        ids_B, logprobs_B = (tensor.cpu().numpy() for tensor in drawn)
        if not np.isfinite(logprobs_B).all():
            raise PolicyError("the policy's logits are not finite: its weights may have diverged")
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
        """Remove live requests unfinished."""
        self._remove(np.array([self.live.index(request) for request in requests], np.intp))

    def _take(self, number: int, request: Request) -> None:
        row, sampling = self._rows[number], request.sampling
        row["last"] = request.prompt_ids[-1]
        row["length"] = len(request.prompt_ids) - 1
        row["count"] = 0
        row["limit"] = request.limit
        row["temperature"] = sampling.temperature
        truncation = sampling.truncation
        row["top_p"], row["top_k"] = truncation.top_p, truncation.top_k
        row["min_p"] = truncation.min_p
        row["stop"] = self._stops.index(sampling.stop)
        rng = np.random.default_rng(request.seed)
        self._uniforms[number, : request.limit] = rng.random(request.limit)

    def _truncations(self, rows: npt.NDArray[Any]) -> Truncations | None:
        """Return each row's truncation; None, which saves the sorting, if no row has one."""
        if all(request.sampling.truncation.keeps_all for request in self.live):
            return None
        return Truncations(*(self._on_device(rows[name]) for name in ("top_p", "top_k", "min_p")))

    def _logits(self, rows: npt.NDArray[Any]) -> Tensor:
        """Return the logits after each slot."""
        slots = rows[np.unique(rows["slot"], return_index=True)[1]]
        at_S = self._on_device(slots["length"])
        width = int(slots["length"].max()) + 1
        seen_SW = torch.arange(width, device=at_S.device) <= at_S[:, None]
        self._cache.write_at(at_S, width)
        last_S = self._on_device(slots["last"])
        if is_small_llama(self._model):
            return llama_logits(self._model, last_S, at_S, seen_SW, self._cache)
        with grouped_attention(self._model):
            output = self._model(
                input_ids=last_S[:, None],
                attention_mask=seen_SW[:, None, None],
                position_ids=at_S[:, None],
                **cache_argument(self._model, self._cache),
                use_cache=True,
                logits_to_keep=1,
            )
        logits_SV: Tensor = output.logits[:, -1]
        return logits_SV

    def _prefill(self, prompts: Sequence[tuple[int, ...]], slots: Sequence[int]) -> None:
        """Fill the slots' cache: padded on the right, where causal attention never looks."""
        ids = np.zeros((len(prompts), len(prompts[0]) - 1), np.int64)
        for row, prompt in enumerate(prompts):
            ids[row, : len(prompt) - 1] = prompt[:-1]
        fresh = DynamicCache()
        self._model(
            input_ids=self._on_device(ids),
            **cache_argument(self._model, fresh),
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache.fill(fresh, self._on_device(slots))

    def _completion(self, row: int, stopped: bool) -> Completion:
        count = self._rows["count"][row]
        finish: Finish = "stop" if stopped else "length"
        return Completion(
            token_ids=tuple(self._tokens[row, :count].tolist()),
            logprobs=tuple(self._logprobs[row, :count].tolist()),
            finish=finish,
        )

    def _remove(self, done: npt.NDArray[np.intp]) -> None:
        """Free these rows by moving the last ones into their places, then update the slots."""
        left = len(self.live) - len(done)
        stays = np.ones(len(self.live), np.bool_)
        stays[done] = False
        holes, movers = done[done < left], left + np.flatnonzero(stays[left:])
        for array in (self._rows, self._uniforms, self._tokens, self._logprobs):
            array[holes] = array[movers]
        for mover, hole in zip(movers, holes, strict=True):
            self.live[hole] = self.live[mover]
        del self.live[left:]
        self._split_slots(self._rows[:left])

    def _split_slots(self, rows: npt.NDArray[Any]) -> None:
        """Give rows of one slot that drew different ids slots of their own."""
        histories, history_B = np.unique(rows["slot"] << 32 | rows["last"], return_inverse=True)
        source_S = histories >> 32
        target_S = slots_after(source_S)
        moved = np.flatnonzero(target_S != source_S)
        if len(moved):
            width = int(rows["length"].max())
            self._cache.move(
                self._on_device(source_S[moved]), self._on_device(target_S[moved]), width
            )
        rows["slot"] = target_S[history_B]

    def _reserve(self, rows: int, columns: int) -> None:
        self._rows = _grown(self._rows, (rows,))
        self._uniforms = _grown(self._uniforms, (rows, columns))
        self._tokens = _grown(self._tokens, (rows, columns))
        self._logprobs = _grown(self._logprobs, (rows, columns))

    def _on_device(self, array: npt.ArrayLike) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=self._model.device)


def slots_after(source_S: Ints) -> Ints:
    """Return the new slots of S histories, 0 to S - 1 in some order, given their old ones, sorted.

    The first history of a slot keeps it where it can; the others are copied to slots that no
    history comes from, so that all copies can be made at once.
    """
    is_first_S = np.diff(source_S, prepend=-1) > 0
    keeps_S = is_first_S & (source_S < len(source_S))
    is_free_S = np.ones(len(source_S), np.bool_)
    is_free_S[source_S[keeps_S]] = False
    target_S = source_S.copy()
    target_S[~keeps_S] = np.flatnonzero(is_free_S)
    return target_S


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
    """Return the array, zero-padded where it is smaller than `shape`."""
    if all(old >= new for old, new in zip(array.shape, shape, strict=True)):
        return array
    grown = np.zeros(
        [max(old, new) for old, new in zip(array.shape, shape, strict=True)], array.dtype
    )
    grown[tuple(slice(size) for size in array.shape)] = array
    return grown


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

    One uniform number u in [0, 1) per row, so a row's id does not depend on the others. t = 0 is
    greedy; its log-probability is that of temperature 1 without truncation.
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
    """Return the truncated and renormalised log-probabilities; -inf for excluded ids.

    In vLLM's order: min-p, then top-k, then top-p of the rest. Among equally likely ids the first
    are kept, and the likeliest id always is.
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
    """Stop conditions, looked up for all rows at once: end-of-turn ids and stop texts."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        size = max(model.config.get_text_config().vocab_size, len(tokenizer))
        self._ends: Bools = np.zeros(size, np.bool_)
        config = getattr(model, "generation_config", None)
        self._ends[end_ids(getattr(config, "eos_token_id", None), tokenizer)] = True
        self._indices: dict[tuple[str, ...], int] = {(): 0}
        self._screens_SV: Bools = np.zeros((1, size), np.bool_)

    @property
    def ends(self) -> list[int]:
        """The ids that end a turn."""
        ends: list[int] = np.flatnonzero(self._ends).tolist()
        return ends

    def index(self, stop: tuple[str, ...]) -> int:
        """Return the index of these stop texts, for `hit`."""
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
