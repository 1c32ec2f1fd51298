"""A platform for verl without an accelerator: FSDP on gloo, and `HFPolicy` as the sampler.

verl imports this module in each of its processes where `VERL_USE_EXTERNAL_MODULES=verl_cpu` and
`VERL_PLATFORM=cpu` are set. Ray counts one GPU for each process, and nothing uses it.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
import torch
from verl.plugin.platform import PlatformBase, PlatformRegistry

from eapo_agents.policies import HFPolicy, ModelSettings, Sampling, Truncation, load_model


class NoDevice:
    """Answers what verl asks `torch.cuda`: no memory is used, and there is nothing to wait for."""

    def mem_get_info(self) -> tuple[int, int]:
        return 0, 0

    def get_rng_state(self) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor) -> None:
        torch.set_rng_state(state)

    def current_device(self) -> str:
        return "cpu"

    def get_device_name(self) -> str:
        return "CPU"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_, **__: 0


@PlatformRegistry.register(platform="cpu")
class PlatformCPU(PlatformBase):  # type: ignore[misc]  # verl has no types
    """A CPU in the place of an accelerator."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = NoDevice()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


_init_process_group = torch.distributed.init_process_group


def _init_gloo(backend: str | None = None, **how: Any) -> None:
    """Join the process group: verl names a backend for the CPU and one for the device, here one."""
    _init_process_group(backend="gloo" if backend == "cpu:gloo,cpu:gloo" else backend, **how)


torch.distributed.init_process_group = _init_gloo  # type: ignore[assignment]

from verl.workers.engine import EngineRegistry  # noqa: E402  # which looks at the platform
from verl.workers.rollout import base  # noqa: E402
from verl.workers.rollout.replica import (  # noqa: E402
    RolloutReplica,
    RolloutReplicaRegistry,
    TokenOutput,
)

for _engines in EngineRegistry._engines.values():
    for _engine in (_engines.get(name, {}) for name in ("fsdp", "fsdp2")):
        if "cuda" in _engine:
            _engine["cpu"] = _engine["cuda"]


class PolicyServer:
    """A replica of the policy, in a Ray actor."""

    def __init__(self, path: str) -> None:
        torch.set_num_threads(1)
        self._policy = HFPolicy(*load_model(ModelSettings(path=path)))
        self._step: int | None = None

    async def generate(
        self,
        request_id: str,
        prompt_ids: Sequence[int],
        sampling_params: dict[str, Any],
        **_: Any,
    ) -> TokenOutput:
        sampling = Sampling(
            max_tokens=sampling_params["max_tokens"],
            temperature=sampling_params["temperature"],
            truncation=Truncation(top_p=sampling_params["top_p"], top_k=sampling_params["top_k"]),
            stop=tuple(sampling_params.get("stop", ())),
        )
        found = await self._policy.complete(prompt_ids, sampling, random.getrandbits(60))
        return TokenOutput(
            token_ids=list(found.token_ids),
            log_probs=list(found.logprobs),
            stop_reason="completed",
            extra_fields={"global_steps": self._step},
        )

    async def load_weights(self, weights: dict[str, torch.Tensor], step: int | None) -> None:
        self._policy.load_weights(weights)
        self._step = step

    async def wake_up(self) -> None:
        pass

    async def sleep(self) -> None:
        pass

    async def clear_kv_cache(self) -> None:
        pass


def _name(replica: int) -> str:
    return f"eapo_policy_{replica}"


class PolicyReplica(RolloutReplica):  # type: ignore[misc]
    """One policy server a rank."""

    async def launch_servers(self) -> None:
        actor = ray.remote(PolicyServer).options(
            name=_name(self.replica_rank), max_concurrency=1000, num_cpus=1
        )
        self._server_handle = actor.remote(str(self.model_config.path))
        self._server_address = _name(self.replica_rank)
        self.servers = [self._server_handle]


class WeightSender(base.BaseRollout):  # type: ignore[misc]
    """Hands a rank's weights to its policy server."""

    async def resume(self, tags: list[str]) -> None:
        pass

    async def release(self) -> None:
        pass

    async def update_weights(
        self,
        weights: Iterator[tuple[str, torch.Tensor]],
        global_steps: int | None = None,
        **_: Any,
    ) -> None:
        named = {name: tensor.detach().float().clone() for name, tensor in weights}
        server = ray.get_actor(_name(int(os.environ["RANK"])))
        await server.load_weights.remote(named, global_steps)


RolloutReplicaRegistry.register("hf", lambda: PolicyReplica)
base._ROLLOUT_REGISTRY["hf", "async"] = f"{__name__}.WeightSender"
