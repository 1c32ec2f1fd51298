"""[edge] Servers of expert models on this machine: vLLM's, started and ended as a whole."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import FrameType

from eapo_agents.serving.process import HOST, POLL_S, ServerProcess, run_server
from eapo_env.validation import UserError, at_least

_API_KEY_ENV = "VLLM_API_KEY"
"""The variable from which vLLM's server reads the key that it demands."""
NO_CPU_BINDING = {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
"""Lets several vLLM workers share a NUMA node on CPUs; by default each needs its own."""
_ON_CPU = {
    # Even where it is told to run eagerly, vLLM compiles two functions.
    "TORCH_COMPILE_DISABLE": "1",
    # Without this, vLLM overrules the executor "uni" on CPUs.
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    **NO_CPU_BINDING,
}
"""Environment variables of servers on CPUs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertServers:
    """Servers of one expert model on this machine, on consecutive ports of the loopback.

    Args:
        model: a folder or hub id with model, tokenizer and chat template.
        name: under which the model is served; by default, `model`.
        replicas: the number of servers; on GPUs each has its own.
        port: of the first server.
        tensor_parallel_size: the number of GPUs of one replica.
        max_model_len: the most tokens of question and reply; by default, the model's.
        max_num_seqs: the most calls that one server decodes together.
        reasoning_parser: vLLM's, which puts reasoning in a field of its own; see
            `policies.reasoning_parser`.
        options: further command-line options of vLLM's server; they override ours.
        start_timeout_s: timeout until a server answers; a large model loads for minutes.
        environment: environment variables of the servers, beside this process's.

    Raises:
        UserError: a value out of its range.
    """

    model: str
    name: str | None = None
    replicas: int = 1
    port: int = 8000
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    max_num_seqs: int = 64
    reasoning_parser: str | None = None
    options: Sequence[str] = ()
    start_timeout_s: float = 1800.0
    environment: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        at_least(1, self, "replicas", "tensor_parallel_size", "max_num_seqs")
        if not 1 <= self.port <= 65_536 - self.replicas:
            raise UserError(
                f"port must leave room for {self.replicas} up to 65535, not {self.port}"
            )

    @property
    def setting(self) -> str:
        """The options of `eapo train` that make it ask these servers."""
        endpoints = [
            {"base_url": f"http://{HOST}:{self.port + replica}/v1", "models": [self._served_name]}
            | ({"api_key_env": _API_KEY_ENV} if os.environ.get(_API_KEY_ENV) else {})
            for replica in range(self.replicas)
        ]
        return f"--set experts.kind=openai --set 'experts.endpoints={json.dumps(endpoints)}'"

    def command(self, replica: int, *, on_cpu: bool) -> list[str]:
        """Return the command that starts one server."""
        options = ["--model", self.model, "--served-model-name", self._served_name]
        options += ["--host", HOST, "--port", str(self.port + replica)]
        options += ["--max-num-seqs", str(self.max_num_seqs), "--shutdown-timeout", "10"]
        options += ["--disable-uvicorn-access-log"]
        options += ["--tensor-parallel-size", str(self.tensor_parallel_size)]
        if self.max_model_len:
            options += ["--max-model-len", str(self.max_model_len)]
        if self.reasoning_parser:
            options += ["--reasoning-parser", self.reasoning_parser]
        if on_cpu:
            # A prefill in chunks kills the CPU engine when a request has a seed.
            tokens = self.max_num_seqs * (self.max_model_len or _positions(self.model))
            options += ["--enforce-eager", "--dtype", "float32", "--block-size", "32"]
            options += ["--max-num-batched-tokens", str(tokens)]
            options += ["--kv-cache-memory-bytes", str(512 << 20)]
            if self.tensor_parallel_size == 1:
                # For a worker in a process of its own the engine would spin, on the same cores.
                options += ["--distributed-executor-backend", "uni"]
        # Not the command `vllm`, which the CPU build does not have.
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options, *self.options]

    @contextmanager
    def run(self) -> Iterator[list[ServerProcess]]:
        """Yield the servers once all of them answer; end them afterwards.

        Raises:
            ServerError: a server ended before it answered, with the end of its output, or did not
                answer in time.
            UserError: fewer GPUs than the replicas need.
        """
        gpus = _visible_gpus()
        with ExitStack() as servers:
            started = [
                servers.enter_context(
                    run_server(
                        self.command(replica, on_cpu=not gpus),
                        self.port + replica,
                        environment=self._environment(replica, gpus),
                    )
                )
                for replica in range(self.replicas)
            ]
            for server in started:
                server.wait_until_healthy(self.start_timeout_s)
            yield started

    @property
    def _served_name(self) -> str:
        return self.name or self.model

    def _environment(self, replica: int, gpus: Sequence[str]) -> dict[str, str]:
        if not gpus:
            return {**_ON_CPU, **self.environment}
        first = replica * self.tensor_parallel_size
        own = gpus[first : first + self.tensor_parallel_size]
        if len(own) < self.tensor_parallel_size:
            raise UserError(
                f"{self.replicas} replicas on {self.tensor_parallel_size} GPUs each need more than"
                f" the {len(gpus)} that are visible"
            )
        return {"CUDA_VISIBLE_DEVICES": ",".join(own), **self.environment}


def serve_expert(servers: ExpertServers) -> int:
    """Serve experts until Ctrl-C or SIGTERM; return the exit status (see `serve`)."""
    return serve(servers, "to consult it", servers.setting)


def serve(servers: ExpertServers, purpose: str, setting: str) -> int:
    """Serve until Ctrl-C or SIGTERM, or until no server is left; return the exit status.

    Once all answer, prints the options to append to `eapo train`.

    Raises:
        UserError: as `ExpertServers.run`.
    """
    from rich.console import Console

    console = Console()
    with _sigterm_as_interrupt(), ExitStack() as stack:
        try:
            with console.status(f"{servers.replicas} x {servers.model} is loading"):
                started = stack.enter_context(servers.run())
            console.print(f"ready; {purpose}:")
            # Not with rich, which would wrap a line that is to be copied.
            print(setting, flush=True)
            _watch(started)
        except KeyboardInterrupt:
            console.print("ending")
            return 0
    return 1


def _watch(servers: Sequence[ServerProcess]) -> None:
    """Return when no server is left; print the last output of each."""
    living = list(servers)
    while living:
        time.sleep(POLL_S)
        for server in [server for server in living if not server.alive]:
            living.remove(server)
            print(f"the server on port {server.port} ended:\n{server.last_output}", flush=True)


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _visible_gpus() -> list[str]:
    import torch

    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None and torch.cuda.is_available():
        return named.split(",")
    return [str(number) for number in range(torch.cuda.device_count())]


def _positions(model: str) -> int:
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings)
