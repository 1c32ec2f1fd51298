"""[edge] The policy on vLLM, in this process: continuous batching, prefix caching, live weights.

One thread makes the engine and is the only one ever to touch it. It steps the engine as long as any
completion is wanted, and neither it nor the event loop waits for the other: requests go over by
queues, completions come back as callbacks. Episodes join and leave a running batch, and experts are
heard while the engine computes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from eapo_agents.policy import Completion, Finish, PolicyError, Sampling, completion_limit
from eapo_agents.vllm_engine import (
    VLLMSettings,
    check_temperature,
    weight_names,
    weights_file,
    with_tied,
)

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput

T = TypeVar("T")
_Joining = tuple[str, list[int], "SamplingParams"]


class VLLMPolicy:
    """A policy that samples with vLLM, and takes the learner's weights while it runs.

    Args:
        model: a folder or hub id with model and tokenizer; the engine starts from its weights.
        settings: see `VLLMSettings`.

    Raises:
        ValueError: what vLLM refuses, such as a cache too small for one episode.
    """

    def __init__(self, model: str | Path, settings: VLLMSettings | None = None) -> None:
        from transformers import AutoTokenizer

        self._settings = settings or VLLMSettings()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._engine = self._thread.submit(self._settings.engine, str(model)).result()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self.max_context_tokens: int = self._engine.model_config.max_model_len
        self.num_prompt_tokens = 0
        """Ids of all prompts that were completed so far."""
        self.num_cached_tokens = 0
        """How many of them the prefix cache held."""
        self._weight_names = weight_names(self._engine.model_config.hf_config)
        self._names = map(str, count())
        self._futures: dict[str, asyncio.Future[Completion]] = {}
        self._joining: deque[_Joining] = deque()
        self._leaving: deque[str] = deque()
        self._driver: asyncio.Task[None] | None = None

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        Raises:
            ValueError: an empty prompt, one that leaves no room in the context, an id that the
                model does not know, or a temperature between 0 and 0.01.
            PolicyError: the engine failed.
        """
        limit = completion_limit(prompt_ids, sampling, self.max_context_tokens)
        params = _parameters(sampling, limit, seed)
        self._start_driver()
        name = next(self._names)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._futures[name] = future
        self._joining.append((name, [int(token_id) for token_id in prompt_ids], params))
        try:
            return await future
        except asyncio.CancelledError:
            self._drop([name])
            raise

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put weights into the running engine, in its own precision; cached prefixes are dropped.

        Tied weights may be named once.

        Raises:
            ValueError: a name that is unknown or missing, or completions under way.
            PolicyError: the engine failed.
        """
        if self._futures:
            raise ValueError(f"{len(self._futures)} completions under way would mix two policies")
        weights = with_tied(state_dict, self._weight_names)
        try:
            self._thread.submit(self._load, weights).result()
        except Exception as error:
            raise _failed(error) from error

    def close(self) -> None:
        """End the engine and free its memory."""
        self._thread.submit(self._engine.engine_core.shutdown).result()
        self._thread.shutdown()

    def _start_driver(self) -> None:
        loop, driver = asyncio.get_running_loop(), self._driver
        if driver is not None and not driver.done():
            if driver.get_loop() is loop:
                return
            if not driver.get_loop().is_closed():
                raise ValueError("a VLLMPolicy serves one event loop at a time")
        self._drop(list(self._futures))
        self._driver = loop.create_task(self._drive(loop))

    async def _drive(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._futures or self._leaving:
                await loop.run_in_executor(self._thread, self._serve)
        except Exception as error:
            failed = _failed(error)
            for name in list(self._futures):
                self._settle(name, failed)
        finally:
            self._drop(list(self._futures))

    def _settle(self, name: str, outcome: Completion | Exception) -> None:
        future = self._futures.pop(name, None)
        if future is None or future.done():
            return
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)

    def _drop(self, names: Sequence[str]) -> None:
        """Forget completions that nobody waits for; the thread will abort them."""
        self._leaving.extend(name for name in names if self._futures.pop(name, None) is not None)

    # In the engine's thread from here on.

    def _serve(self) -> None:
        """Step the engine until it has nothing to do; never wait for an event loop."""
        while True:
            for name, refusal in self._admit():
                self._send(name, refusal)
            if not self._engine.has_unfinished_requests():
                return
            for output in self._engine.step():
                self._send(output.request_id, self._read(output))

    def _send(self, name: str, outcome: Completion | Exception) -> None:
        # Each to its own loop: a run that was cut short may serve requests of the next loop.
        if future := self._futures.get(name):
            with suppress(RuntimeError):  # that loop is closed
                future.get_loop().call_soon_threadsafe(self._settle, name, outcome)

    def _admit(self) -> list[tuple[str, ValueError]]:
        """Let requests join and leave; return those that vLLM refuses."""
        from vllm.exceptions import VLLMValidationError
        from vllm.inputs import tokens_input

        refused: list[tuple[str, ValueError]] = []
        leaving = _drained(self._leaving)  # first: whoever leaves has joined before
        for name, prompt_ids, params in _drained(self._joining):
            try:
                self._engine.add_request(name, tokens_input(prompt_ids), params)
            except (ValueError, VLLMValidationError) as error:
                refused.append((name, ValueError(str(error))))
        if leaving:
            self._engine.abort_request(leaving)
        return refused

    def _read(self, output: RequestOutput) -> Completion | Exception:
        sampled = output.outputs[0]
        if sampled.finish_reason not in ("stop", "length"):
            return PolicyError(f"vLLM ended a completion with {sampled.finish_reason!r}")
        self.num_prompt_tokens += len(output.prompt_token_ids)
        self.num_cached_tokens += output.num_cached_tokens or 0
        finish: Finish = "stop" if sampled.finish_reason == "stop" else "length"
        return Completion(
            token_ids=tuple(sampled.token_ids),
            logprobs=tuple(sampled.logprobs.logprobs),
            finish=finish,
        )

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        self._admit()
        if self._settings.tensor_parallel_size == 1:
            reload = {"weights_iterator": iter(weights.items())}
            self._engine.collective_rpc("reload_weights", kwargs=reload)
        else:  # the workers are other processes, and tensors are no arguments of a call
            with weights_file(weights) as folder:
                self._engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        if not self._engine.reset_prefix_cache():
            raise PolicyError("vLLM did not drop its prefix cache, which is of the old weights")


def _failed(error: Exception) -> PolicyError:
    if isinstance(error, PolicyError):
        return error
    failed = PolicyError(f"the vLLM engine in this process failed: {error or type(error).__name__}")
    failed.__cause__ = error
    return failed


def _drained(queue: deque[T]) -> list[T]:
    """Return what is in a queue that another thread fills, and take it out."""
    return [queue.popleft() for _ in range(len(queue))]


def _parameters(sampling: Sampling, limit: int, seed: int) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    check_temperature(sampling.temperature)
    return SamplingParams(
        max_tokens=limit,
        temperature=sampling.temperature,
        **asdict(sampling.truncation),
        seed=seed,
        stop=list(sampling.stop),
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,  # a stop text may be one
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )
