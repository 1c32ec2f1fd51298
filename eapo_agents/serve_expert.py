"""[edge] Experts of one's own: vLLM's OpenAI server, one or several, started and ended as a whole.

A server is a family of processes, of which the first may die (or exit with status 0) and leave the
others behind, holding ports and memory. So each server leads a process group of its own, what
counts is whether its process is there and `/health` answers, and its end is the end of the group.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType

HOST = "127.0.0.1"
_KEY = "VLLM_API_KEY"  # which vLLM's server reads for itself
_POLL_S = 0.2
_LAST_CHARS = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertServers:
    """Servers of one expert model on this machine, on consecutive ports of the loopback.

    Args:
        model: a folder or hub id with model, tokenizer and chat template.
        name: under which the model is served; by default, `model`.
        replicas: how many servers; on GPUs each gets its own.
        port: of the first server.
        tensor_parallel_size: how many GPUs share one replica.
        max_model_len: the most tokens of question and reply; by default, the model's.
        max_num_seqs: the most calls that one server decodes together.
        options: further options of vLLM's server, as on its command line; they win over ours.
        start_timeout_s: how long a server may take to answer; a large model loads for minutes.

    Raises:
        ValueError: a value out of its range.
    """

    model: str
    name: str | None = None
    replicas: int = 1
    port: int = 8000
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    max_num_seqs: int = 64
    options: Sequence[str] = ()
    start_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        for field in ("replicas", "tensor_parallel_size", "max_num_seqs"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, not {getattr(self, field)}")
        if not 1 <= self.port <= 65_536 - self.replicas:
            raise ValueError(
                f"port must leave room for {self.replicas} up to 65535, not {self.port}"
            )

    @property
    def setting(self) -> str:
        """What makes a config ask these servers, as options of `eapo train`."""
        endpoints = [
            {"base_url": f"http://{HOST}:{self.port + replica}/v1", "models": [self._served_name]}
            | ({"api_key_env": _KEY} if os.environ.get(_KEY) else {})
            for replica in range(self.replicas)
        ]
        return f"--set experts.kind=openai --set 'experts.endpoints={json.dumps(endpoints)}'"

    def command(self, replica: int, *, on_cpu: bool) -> list[str]:
        """Return the command that starts one server."""
        options = ["--model", self.model, "--served-model-name", self._served_name]
        options += ["--host", HOST, "--port", str(self.port + replica)]
        options += ["--max-num-seqs", str(self.max_num_seqs), "--shutdown-timeout", "10"]
        options += ["--tensor-parallel-size", str(self.tensor_parallel_size)]
        if self.max_model_len:
            options += ["--max-model-len", str(self.max_model_len)]
        if on_cpu:
            # A prefill in chunks kills the CPU engine when a request has a seed.
            tokens = self.max_num_seqs * (self.max_model_len or _positions(self.model))
            options += ["--enforce-eager", "--dtype", "float32", "--block-size", "32"]
            options += ["--max-num-batched-tokens", str(tokens)]
            options += ["--kv-cache-memory-bytes", str(512 << 20)]
        # Not the command `vllm`, which the CPU build does not have.
        return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *options, *self.options]

    @contextmanager
    def run(self) -> Iterator[list[ServerProcess]]:
        """Start all servers and yield them when every one answers; end them all afterwards.

        Raises:
            ChildProcessError: a server ended before it answered; the end of its output is in it.
            TimeoutError: a server did not answer in time.
            ValueError: fewer GPUs than the replicas need.
        """
        gpus = _visible_gpus()
        with ExitStack() as servers:
            started = [
                servers.enter_context(
                    running(
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
            # vLLM compiles two functions at the first call, even where it is told to run eagerly.
            return {"TORCH_COMPILE_DISABLE": "1"}
        first = replica * self.tensor_parallel_size
        own = gpus[first : first + self.tensor_parallel_size]
        if len(own) < self.tensor_parallel_size:
            raise ValueError(
                f"{self.replicas} replicas on {self.tensor_parallel_size} GPUs each need more than"
                f" the {len(gpus)} that are visible"
            )
        return {"CUDA_VISIBLE_DEVICES": ",".join(own)}


class ServerProcess:
    """A running server: the leader of a process group that `kill` ends as a whole."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the server's process is there; its exit status says nothing about why not."""
        return self._process.poll() is None

    @property
    def healthy(self) -> bool:
        """Whether the engine behind the server is up."""
        connection = HTTPConnection(HOST, self.port, timeout=5)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    @property
    def last_words(self) -> str:
        """The end of the server's output."""
        return self._log.read_text(encoding="utf-8", errors="replace")[-_LAST_CHARS:]

    def wait_until_healthy(self, timeout_s: float) -> None:
        """Return when the server answers.

        Raises:
            ChildProcessError: it ended before.
            TimeoutError: it did not in time.
        """
        deadline = time.monotonic() + timeout_s
        while not self.healthy:
            if not self.alive:
                raise ChildProcessError(f"the server on port {self.port} ended:\n{self.last_words}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"the server on port {self.port} is silent for {timeout_s:g} s")
            time.sleep(_POLL_S)

    def kill(self) -> None:
        """End every process of the group at once, as a machine that fails would."""
        with suppress(ProcessLookupError):  # nobody is left in the group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def end(self, grace_s: float = 15.0) -> None:
        """Let calls under way finish, then end the whole group, whatever is left of it."""
        try:
            self._process.terminate()
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()


@contextmanager
def running(
    command: Sequence[str], port: int, environment: Mapping[str, str]
) -> Iterator[ServerProcess]:
    """Start a server in a process group of its own; end the group afterwards.

    Raises:
        ValueError: the port answers already: another server would be taken for this one.
    """
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            raise ValueError(f"port {port} is taken: something answers there")
    with tempfile.TemporaryDirectory(prefix="eapo-expert-") as folder:
        log = Path(folder) / f"{port}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "VLLM_NO_USAGE_STATS": "1", **environment},
            )
        server = ServerProcess(process, port, log)
        try:
            yield server
        finally:
            server.end()


def serve_expert(servers: ExpertServers) -> int:
    """Serve until Ctrl-C or SIGTERM, or until no server is left; return the exit status.

    Raises:
        ChildProcessError, TimeoutError, ValueError: as `ExpertServers.run`.
    """
    from rich.console import Console

    console = Console()
    with _sigterm_as_interrupt(), ExitStack() as stack:
        try:
            with console.status(f"{servers.replicas} x {servers.model} is loading"):
                started = stack.enter_context(servers.run())
            console.print("ready; to consult it:")
            # Not for rich to wrap: it is to be pasted.
            print(servers.setting, flush=True)
            _watch(started)
        except KeyboardInterrupt:
            console.print("ending")
            return 0
    return 1


def _watch(servers: Sequence[ServerProcess]) -> None:
    """Return when no server is left; say so of each."""
    living = list(servers)
    while living:
        time.sleep(_POLL_S)
        for server in [server for server in living if not server.alive]:
            living.remove(server)
            print(f"the server on port {server.port} ended:\n{server.last_words}", flush=True)


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
