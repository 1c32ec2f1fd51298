"""The transformers policy: continuous batching in this process, in the caller's event loop.

There is no thread. While completions are pending, one asyncio task repeats: add waiting requests to
the batch, sample one id for every row, yield to the other coroutines. Batches therefore depend only
on the order of the requests, and a run is reproducible bit for bit. The batch is in `decoding.py`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from eapo_agents.policies.decoding import Batch, Request
from eapo_agents.policies.policy import Completion, Sampling, completion_limit
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)
_WINDOWED = {"sliding_attention"}

# A prefill costs about half a step whatever its size: requests join in groups; none waits long.
_JOIN_SHARE = 16
_JOIN_STEPS = 8


class HFPolicy:
    """A policy that samples from a transformers causal language model.

    The model is not copied: on the learner's own module it samples from the updated weights
    without `load_weights`.

    Args:
        model: a decoder with attention in every layer and explicit positions (Llama, Qwen2, Qwen3,
            Mistral, Gemma 3, ...), in any precision, on one device.
        tokenizer: the model's tokenizer.
        max_batch: maximum number of completions that decode together; the rest wait.
        max_context_tokens: maximum number of ids of prompt plus completion; by default, the
            model's number of positions, or what its sliding window holds: up to there, attention
            over a window is full attention.

    Raises:
        UserError: a limit out of range or beyond the model's window, or a model with layers of
            another kind than attention.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_batch: int = 256,
        max_context_tokens: int | None = None,
    ) -> None:
        config = model.config.get_text_config()
        positions = usable_positions(config)
        self.tokenizer = tokenizer
        self.max_context_tokens = max_context_tokens or _default_context(config, positions)
        if max_batch < 1:
            raise UserError(f"max_batch must be at least 1, not {max_batch}")
        if not 1 < self.max_context_tokens <= positions:
            raise UserError(
                f"max_context_tokens must be in 2..{positions}, not {self.max_context_tokens}"
            )
        _check_attention(config, self.max_context_tokens)
        self._model = model
        self._max_batch = max_batch
        self._batch = Batch(model, tokenizer)
        self._waiting: list[Request] = []
        self._futures: dict[Request, asyncio.Future[Completion]] = {}
        self._steps_waited = 0
        self._engine: asyncio.Task[None] | None = None

    @property
    def end_ids(self) -> Sequence[int]:
        """The ids that end a completion."""
        return self._batch.end_ids

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        Raises:
            UserError: an empty prompt, or one that leaves no room in the context.
            PolicyError: the model's logits are not finite.
        """
        request = Request(
            prompt_ids=tuple(int(token_id) for token_id in prompt_ids),
            sampling=sampling,
            seed=seed,
            limit=completion_limit(prompt_ids, sampling, self.max_context_tokens),
        )
        self._start_engine()
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._futures[request] = future
        self._waiting.append(request)
        try:
            return await future
        except asyncio.CancelledError:
            self._drop(request)
            raise

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Copy weights into the model, keeping its dtype and device.

        Tied weights may be named once.

        Raises:
            UserError: an unknown or missing name, or completions in progress.
        """
        if self._futures:
            raise UserError(f"cannot load weights: {len(self._futures)} completions in progress")
        own = self._model.state_dict()
        given = {own[name].data_ptr() for name in state_dict if name in own}
        unknown = [name for name in state_dict if name not in own]
        missing = [name for name, weight in own.items() if weight.data_ptr() not in given]
        if unknown or missing:
            raise UserError(f"weights do not fit: unknown {unknown}, missing {missing}")
        self._model.load_state_dict(state_dict, strict=False)

    def close(self) -> None:
        """Do nothing: the caller owns the model."""

    def _start_engine(self) -> None:
        loop = asyncio.get_running_loop()
        engine = self._engine
        if engine is not None and not engine.done():
            if engine.get_loop() is loop:
                return
            if not engine.get_loop().is_closed():
                raise UserError("an HFPolicy serves one event loop at a time")
        self._forget()
        self._engine = loop.create_task(self._run())

    async def _run(self) -> None:
        was_training = self._model.training
        self._model.eval()
        try:
            while self._futures:
                self._admit()
                for request, completion in self._batch.step():
                    future = self._futures.pop(request)
                    if not future.cancelled():
                        future.set_result(completion)
                await asyncio.sleep(0)
        except Exception as error:
            for future in self._futures.values():
                if not future.cancelled():
                    future.set_exception(error)
            self._batch.clear()
        finally:
            self._model.train(was_training)
            self._forget()

    def _admit(self) -> None:
        """Admit waiting requests if there are enough, or they have waited for some steps."""
        num_live = len(self._batch.live)
        num_ready = min(len(self._waiting), self._max_batch - num_live)
        self._steps_waited += num_ready > 0
        if num_ready > num_live // _JOIN_SHARE or self._steps_waited > _JOIN_STEPS:
            self._batch.admit(self._waiting[:num_ready])
            del self._waiting[:num_ready]
            self._steps_waited = 0

    def _drop(self, request: Request) -> None:
        if self._futures.pop(request, None) is None:
            return
        if request in self._waiting:
            self._waiting.remove(request)
        else:
            self._batch.drop([request])

    def _forget(self) -> None:
        """Drop what an ended loop left behind."""
        for future in self._futures.values():
            if not future.done() and not future.get_loop().is_closed():
                future.cancel()
        self._futures.clear()
        self._waiting.clear()
        self._batch.drop(self._batch.live)
        self._steps_waited = 0


def usable_positions(config: Any) -> int:
    """Return the most positions that a model reads alike whatever else is in the batch.

    LongRoPE takes other factors for every row as soon as the longest one passes the length of the
    original model (Phi-3.5, Phi-4-mini), so it is used up to there.
    """
    positions = int(config.max_position_embeddings)
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type") != "longrope":
        return positions
    original = rope.get("original_max_position_embeddings") or getattr(
        config, "original_max_position_embeddings", positions
    )
    return min(positions, int(original or positions))


def _default_context(config: Any, positions: int) -> int:
    """Return the longest context that is attended to in full; warn if a window bounds it."""
    window = attention_window(config)
    if window is None or window >= positions:
        return positions
    _LOG.warning(
        "this model attends over a window of %d tokens: longer contexts are cut off there;"
        " engine.kind=vllm samples them",
        window,
    )
    return window


def _check_attention(config: Any, max_context_tokens: int) -> None:
    """Raise a UserError unless every layer attends to the whole context."""
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention", *_WINDOWED}
    if kinds:
        raise UserError(
            f"HFPolicy needs attention in every layer, not {sorted(kinds)}; engine.kind=vllm"
            " samples from this model"
        )
    window = attention_window(config)
    if window is not None and max_context_tokens > window:
        raise UserError(
            f"max_context_tokens={max_context_tokens} is more than this model's window of"
            f" {window} tokens; engine.kind=vllm samples longer contexts"
        )


def attention_window(config: Any) -> int | None:
    """Return the number of tokens in the window of a model's layers; None if none has one."""
    layers = getattr(config, "layer_types", None)
    used = getattr(config, "use_sliding_window", True) if layers is None else _WINDOWED & {*layers}
    window = getattr(config, "sliding_window", None)
    return int(window) if used and window else None
