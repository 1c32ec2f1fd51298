"""[edge] The policy's servers on this machine: vLLM's, set up to receive the learner's weights."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

from eapo_agents.serving.expert_servers import ExpertServers, serve
from eapo_agents.serving.process import HOST, ServerProcess
from eapo_agents.serving.weight_transfer import Backend

_WORKER_EXTENSION = "eapo_agents.serving.vllm_file_weights.FileWeights"
"""vLLM's workers import this class by name, which registers the backend "file"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyServers:
    """Servers of the policy on this machine, on consecutive ports of the loopback interface.

    Args:
        model: a folder or hub id with model and tokenizer; the learner must start from the same.
        replicas: the number of servers, which share the episodes; on GPUs each has its own.
        port: of the first server.
        transfer: how new weights are sent: "file", or "nccl" between GPUs.
        dtype: of the weights in the servers.
        tensor_parallel_size: the number of GPUs of one server.
        max_model_len: the most tokens of prompt and completion; by default, the model's.
        max_num_seqs: the most completions that one server decodes together.
        options: further command-line options of vLLM's server; they override ours.
        start_timeout_s: timeout until a server answers.

    Raises:
        ValueError: a value out of its range.
    """

    model: str
    replicas: int = 1
    port: int = 8100
    transfer: Backend = "file"
    dtype: str = "bfloat16"
    tensor_parallel_size: int = 1
    max_model_len: int | None = None
    max_num_seqs: int = 256
    options: Sequence[str] = ()
    start_timeout_s: float = 1800.0

    def __post_init__(self) -> None:
        assert self.servers.replicas == self.replicas  # `ExpertServers` checks the values

    @property
    def base_urls(self) -> tuple[str, ...]:
        """The servers' addresses, without a path."""
        return tuple(f"http://{HOST}:{self.port + replica}" for replica in range(self.replicas))

    @property
    def setting(self) -> str:
        """The options of `eapo train` that make it sample on these servers."""
        return (
            f"--set engine=vllm-server --set 'engine.base_urls={json.dumps(self.base_urls)}'"
            f" --set engine.transfer={self.transfer}"
        )

    @property
    def servers(self) -> ExpertServers:
        """The servers as `ExpertServers`, which start them and end them."""
        extension = ("--worker-extension-cls", _WORKER_EXTENSION) if self.transfer == "file" else ()
        return ExpertServers(
            model=self.model,
            replicas=self.replicas,
            port=self.port,
            tensor_parallel_size=self.tensor_parallel_size,
            max_model_len=self.max_model_len,
            max_num_seqs=self.max_num_seqs,
            start_timeout_s=self.start_timeout_s,
            environment={"VLLM_SERVER_DEV_MODE": "1"},  # the control plane
            options=(
                *("--dtype", self.dtype, "--logprobs-mode", "processed_logprobs"),
                *("--generation-config", "vllm"),
                *("--weight-transfer-config", f'{{"backend": "{self.transfer}"}}'),
                *extension,
                *self.options,
            ),
        )

    def run(self) -> AbstractContextManager[list[ServerProcess]]:
        """Yield the servers once all of them answer; end them afterwards.

        Raises:
            UserError: as `ExpertServers.run`.
        """
        return self.servers.run()


def serve_policy(policy: PolicyServers) -> int:
    """Serve until Ctrl-C or SIGTERM, or until no server is left; return the exit status.

    Raises:
        UserError: as `ExpertServers.run`.
    """
    return serve(policy.servers, "to sample on it", policy.setting)
