"""[edge] The vLLM policy in this process: continuous batching, prefix caching, weight updates.

One thread creates the engine and is the only one to touch it. It steps the engine while completions
are pending, and neither it nor the event loop waits for the other: requests go through queues,
completions come back as callbacks. Episodes join and leave a running batch, and expert calls
proceed while the engine computes.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from itertools import count
from multiprocessing import resource_tracker
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from eapo_agents.policies.models import (
    NO_VARIABLES,
    ModelSettings,
    end_ids,
    load_tokenizer,
    model_folder,
)
from eapo_agents.policies.policy import Completion, Finish, PolicyError, Sampling, completion_limit
from eapo_agents.policies.vllm_weights import CheckpointNames, all_loaded, layers_with_weights
from eapo_agents.serving import NO_CPU_BINDING, weights_file
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from vllm import SamplingParams
    from vllm.outputs import RequestOutput
    from vllm.v1.engine.llm_engine import LLMEngine

    from eapo_agents.policies.policy import Policy

T = TypeVar("T")
_Joining = tuple[str, list[int], "SamplingParams"]


class VLLMPolicy:
    """A policy that samples with vLLM in this process and takes new weights without a restart.

    Args:
        model: a folder or hub id with model and tokenizer; the engine starts from its weights.
        settings: see `VLLMEngine`.
        template: variables of the chat template (`ModelSettings`).

    Raises:
        UserError: vLLM refuses the model or a setting, such as a cache too small for one episode.
    """

    def __init__(
        self,
        model: str | Path,
        settings: VLLMEngine | None = None,
        template: Mapping[str, str | bool | int | float] = NO_VARIABLES,
    ) -> None:
        self._settings = settings or VLLMEngine()
        self._names = CheckpointNames(model)  # before vLLM changes the model's class
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._engine = self._thread.submit(self._settings.engine, str(model)).result()
        if self._engine.model_config.using_transformers_backend():
            self.close()
            raise UserError(
                f"vLLM has no class of its own for {model}, and changes that of transformers, which"
                " the learner needs: set engine=vllm-server"
            )
        self._layers = self._engine.collective_rpc(layers_with_weights)[0]
        self.tokenizer = load_tokenizer(model, template)
        self.end_ids = end_ids(None, self.tokenizer)
        self.max_context_tokens: int = self._engine.model_config.max_model_len
        self.num_prompt_tokens = 0
        """Number of prompt ids of all completions so far."""
        self.num_cached_tokens = 0
        """How many of them were in the prefix cache."""
        self._requests = map(str, count())
        self._futures: dict[str, asyncio.Future[Completion]] = {}
        self._joining: deque[_Joining] = deque()
        self._leaving: deque[str] = deque()
        self._driver: asyncio.Task[None] | None = None

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        Raises:
            UserError: an empty prompt, one that leaves no room in the context, an id that the
                model does not know, or a temperature between 0 and 0.01.
            PolicyError: the engine failed.
        """
        limit = completion_limit(prompt_ids, sampling, self.max_context_tokens)
        params = _parameters(sampling, limit, seed, self.end_ids)
        self._start_driver()
        name = next(self._requests)
        future: asyncio.Future[Completion] = asyncio.get_running_loop().create_future()
        self._futures[name] = future
        self._joining.append((name, [int(token_id) for token_id in prompt_ids], params))
        try:
            return await future
        except asyncio.CancelledError:
            self._drop([name])
            raise

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Load weights into the running engine, in its dtype, and drop the prefix cache.

        Tied weights may be named once.

        Raises:
            UserError: an unknown or missing name, or completions in progress.
            PolicyError: the engine failed.
        """
        if self._futures:
            raise UserError(f"cannot load weights: {len(self._futures)} completions in progress")
        weights = self._names.of(state_dict)
        try:
            self._thread.submit(self._load, weights).result()
        except Exception as error:
            raise _failed(error) from error

    def close(self) -> None:
        """Shut down the engine and free its memory."""
        self._thread.submit(self._engine.engine_core.shutdown).result()
        self._thread.shutdown()

    def _start_driver(self) -> None:
        loop, driver = asyncio.get_running_loop(), self._driver
        if driver is not None and not driver.done():
            if driver.get_loop() is loop:
                return
            if not driver.get_loop().is_closed():
                raise UserError("a VLLMPolicy serves one event loop at a time")
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
        """Forget abandoned completions; the thread aborts them."""
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
        leaving = _drained(self._leaving)  # first: a request joins before it leaves
        for name, prompt_ids, params in _drained(self._joining):
            try:
                self._engine.add_request(name, tokens_input(prompt_ids), params)
            except (ValueError, VLLMValidationError) as error:
                refused.append((name, UserError(str(error))))
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
            with all_loaded(self._layers):
                self._engine.collective_rpc("reload_weights", kwargs=reload)
        else:  # the workers are other processes, which tensors reach by a file
            with weights_file(weights) as folder:
                self._engine.collective_rpc("reload_weights", kwargs={"weights_path": folder})
        if not self._engine.reset_prefix_cache():
            raise PolicyError("vLLM did not drop the prefix cache of the old weights")


def _failed(error: Exception) -> PolicyError:
    if isinstance(error, PolicyError):
        return error
    failed = PolicyError(f"the vLLM engine in this process failed: {error or type(error).__name__}")
    failed.__cause__ = error
    return failed


def _drained(queue: deque[T]) -> list[T]:
    """Remove and return the items of a queue that another thread fills."""
    return [queue.popleft() for _ in range(len(queue))]


def _parameters(sampling: Sampling, limit: int, seed: int, ends: list[int]) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    check_temperature(sampling.temperature)
    return SamplingParams(
        max_tokens=limit,
        temperature=sampling.temperature,
        **asdict(sampling.truncation),
        seed=seed,
        stop=list(sampling.stop),
        stop_token_ids=ends,
        detokenize=bool(sampling.stop),
        skip_special_tokens=False,  # a stop text may be one
        logprobs=0,
        flat_logprobs=True,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads, which no fork survives
    **NO_CPU_BINDING,
}
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 2.0
_CPU_CACHE_BYTES = 512 << 20
_CPU_BLOCK_TOKENS = 32  # by default 128: a turn of a short episode would never fill one


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMEngine:
    """vLLM in this process, on a copy of the learner's weights.

    Args:
        dtype: of the engine's weights, by default the model's; log-probabilities agree with the
            learner's as closely as the two precisions allow.
        max_batch: maximum number of completions that decode together; the rest wait.
        max_context_tokens: maximum number of ids of prompt plus completion; by default, the
            model's number of positions.
        cache_bytes: memory for keys and values; by default, what `gpu_memory_utilization` leaves
            on a GPU, 512 MiB on a CPU.
        gpu_memory_utilization: the share of each GPU's memory for weights, activations, keys and
            values; a learner on the same GPU needs the rest.
        tensor_parallel_size: number of GPUs that share the model, one process each.

    Raises:
        UserError: a value out of its range.
    """

    kind: Literal["vllm"] = "vllm"
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    max_batch: int = 256
    max_context_tokens: int | None = None
    cache_bytes: int | None = None
    gpu_memory_utilization: float = 0.45
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_context_tokens", "cache_bytes", "tensor_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"{name} must be at least 1, not {value}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise UserError(
                f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}"
            )

    def build(self, model: ModelSettings, loaded: object = None) -> Policy:
        """Return the policy; it starts from the weights in the model's folder.

        Raises:
            UserError: vLLM is not installed, or refuses the model or a setting.
        """
        try:
            engine = replace(self, dtype=self.dtype or model.dtype)
            return VLLMPolicy(model_folder(model.path), engine, model.template)
        except ModuleNotFoundError as error:
            raise UserError(f"engine=vllm needs vLLM (docs/vllm.md): {error}") from error

    def engine(self, model: str) -> LLMEngine:
        """Return a new vLLM engine; the process's random state is preserved."""
        _prepare_environment()
        with _restored_process_state():
            from vllm.platforms import current_platform

            on_cpu = current_platform.is_cpu()
            with _without_compilation() if on_cpu else nullcontext():
                from vllm.engine.arg_utils import EngineArgs
                from vllm.v1.engine.llm_engine import LLMEngine

                arguments = EngineArgs(**self.arguments(model, on_cpu=on_cpu))
                with _interrupts_blocked():
                    return LLMEngine.from_engine_args(arguments)

    def arguments(self, model: str, *, on_cpu: bool) -> dict[str, Any]:
        """Return the settings as vLLM's engine arguments."""
        arguments: dict[str, Any] = {
            "model": model,
            "dtype": self.dtype or "auto",
            "max_num_seqs": self.max_batch,
            "max_model_len": self.max_context_tokens,
            "kv_cache_memory_bytes": self.cache_bytes,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel_size,
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
            "seed": 0,
        }
        if on_cpu:
            arguments |= {
                "enforce_eager": True,
                "block_size": _CPU_BLOCK_TOKENS,
                "kv_cache_memory_bytes": self.cache_bytes or _CPU_CACHE_BYTES,
                # A prefill in chunks kills the CPU engine when the request has a seed.
                "max_num_batched_tokens": self.max_batch * self._context(model),
            }
        return arguments

    def _context(self, model: str) -> int:
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(model).get_text_config()
        return self.max_context_tokens or int(config.max_position_embeddings)


def check_temperature(temperature: float) -> None:
    """Raise a `UserError` for a temperature that vLLM would silently change or refuse."""
    if 0 < temperature < LEAST_TEMPERATURE or temperature > MOST_TEMPERATURE:
        raise UserError(
            f"vLLM samples at temperature 0 or in [{LEAST_TEMPERATURE}, {MOST_TEMPERATURE}],"
            f" not {temperature}"
        )


def _prepare_environment() -> None:
    """Set the environment variables that vLLM reads."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine lives in this process
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def _restored_process_state() -> Iterator[None]:
    """Restore the process state that vLLM changes: random seeds, a function of torch."""
    import torch

    set_num_threads, python, numpy = torch.set_num_threads, random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's imports use what torch has deprecated
        yield
    torch.set_num_threads = set_num_threads
    random.setstate(python)
    np.random.set_state(numpy)


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C in processes started inside this context: a terminal sends it to all of them,
    and the training step that finishes first needs its workers.
    """
    resource_tracker.ensure_running()  # or it would lift the block when it starts later
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _without_compilation() -> Iterator[None]:
    """Import vLLM's samplers uncompiled: on a CPU their first batch would wait for a compiler."""
    import torch._dynamo

    with torch._dynamo.config.patch(disable=True):
        yield
