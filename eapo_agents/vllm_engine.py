"""[edge] vLLM's engine in this process: how it is made, and what its weights are called."""

from __future__ import annotations

import os
import random
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from multiprocessing import resource_tracker
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor
    from vllm.v1.engine.llm_engine import LLMEngine

UNBOUND = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""On a CPU, what lets several workers share a NUMA node: by default vLLM wants one for each."""

_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",  # this process has threads, which no fork survives
    **UNBOUND,
}
LEAST_TEMPERATURE = 0.01
_SHARED_MEMORY = Path("/dev/shm")
_CPU_CACHE_BYTES = 512 << 20
_CPU_BLOCK_TOKENS = 32  # by default 128: a turn of a short episode would never fill one


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMSettings:
    """How vLLM holds a model.

    Args:
        dtype: of the weights in the engine, whatever the checkpoint's; log-probabilities come as
            close to the learner's as the two precisions allow.
        max_batch: the most completions that decode together; the rest wait.
        max_context_tokens: the most ids of prompt and completion together; by default, the
            model's number of positions.
        cache_bytes: memory for keys and values; by default, what `gpu_memory_utilization` leaves
            on a GPU, 512 MiB on a CPU.
        gpu_memory_utilization: the share of each GPU's memory for weights, activations, keys and
            values; a learner on the same GPU needs the rest.
        tensor_parallel_size: how many GPUs share the model; each has a process of its own.

    Raises:
        ValueError: a value out of its range.
    """

    dtype: Literal["float32", "bfloat16", "float16"] = "bfloat16"
    max_batch: int = 256
    max_context_tokens: int | None = None
    cache_bytes: int | None = None
    gpu_memory_utilization: float = 0.45
    tensor_parallel_size: int = 1

    def __post_init__(self) -> None:
        for name in ("max_batch", "max_context_tokens", "cache_bytes", "tensor_parallel_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        if not 0 < self.gpu_memory_utilization <= 1:
            raise ValueError(
                f"gpu_memory_utilization must be in (0, 1], not {self.gpu_memory_utilization}"
            )

    def engine(self, model: str) -> LLMEngine:
        """Return a fresh engine in this process; the process keeps its luck and its settings."""
        _prepare_environment()
        with _process_as_it_was():
            from vllm.platforms import current_platform

            on_cpu = current_platform.is_cpu()
            with _without_compilation() if on_cpu else nullcontext():
                from vllm.engine.arg_utils import EngineArgs
                from vllm.v1.engine.llm_engine import LLMEngine

                arguments = EngineArgs(**self.arguments(model, on_cpu=on_cpu))
                with _deaf_to_interrupts():
                    return LLMEngine.from_engine_args(arguments)

    def arguments(self, model: str, *, on_cpu: bool) -> dict[str, Any]:
        """Return the same as vLLM's own engine arguments."""
        arguments: dict[str, Any] = {
            "model": model,
            "dtype": self.dtype,
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
    """Raise a `ValueError` for a temperature that vLLM would change without a word."""
    if 0 < temperature < LEAST_TEMPERATURE:
        raise ValueError(
            f"vLLM samples at temperature 0 or at least {LEAST_TEMPERATURE}, not {temperature}"
        )


def weight_names(config: Any) -> dict[str, str]:
    """Return each weight's name in a state dict, with the name of the weight it is tied to."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(weight), name)
        for name, weight in model.state_dict(keep_vars=True).items()
    }


def with_tied(state_dict: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """Return a weight for every name: where vLLM is given one of two tied weights, it keeps the
    other as it was, without a word.
    """
    given = {names[name]: weight for name, weight in state_dict.items() if name in names}
    unknown = [name for name in state_dict if name not in names]
    missing = [name for name, same in names.items() if same not in given]
    if unknown or missing:
        raise ValueError(f"weights do not fit: unknown {unknown}, missing {missing}")
    return {name: given[same].detach() for name, same in names.items()}


@contextmanager
def weights_file(weights: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield a folder that holds the weights, in shared memory if there is any."""
    from safetensors.torch import save_file

    place = _SHARED_MEMORY if _SHARED_MEMORY.is_dir() else None
    with TemporaryDirectory(prefix="eapo-weights-", dir=place) as folder:
        copies = {name: weight.cpu().clone().contiguous() for name, weight in weights.items()}
        save_file(copies, Path(folder) / "model.safetensors")
        yield folder


def _prepare_environment() -> None:
    """Set what vLLM reads when it is imported or makes its configuration."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine lives in this process
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


@contextmanager
def _process_as_it_was() -> Iterator[None]:
    """Undo what an engine in this process does to it: seeds set, a function of torch replaced."""
    import torch

    set_num_threads, python, numpy = torch.set_num_threads, random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # vLLM's imports use what torch has deprecated
        yield
    torch.set_num_threads = set_num_threads
    random.setstate(python)
    np.random.set_state(numpy)


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Keep Ctrl-C from processes that are started meanwhile: a terminal sends it to all of them,
    and the training step that it lets end needs its workers.
    """
    resource_tracker.ensure_running()  # which would lift the block when it starts later
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
