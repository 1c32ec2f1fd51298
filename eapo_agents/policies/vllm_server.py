"""[edge] The policy on a vLLM server: token ids over HTTP, weights by vLLM's transfer API.

`eapo serve-policy` starts the server: learner and sampler have separate processes, and separate
GPUs where there are some.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from eapo_agents.policies.models import (
    NO_VARIABLES,
    ModelSettings,
    end_ids,
    load_tokenizer,
    model_folder,
)
from eapo_agents.policies.policy import Completion, PolicyError, Sampling, completion_limit
from eapo_agents.policies.vllm import check_temperature
from eapo_agents.policies.vllm_weights import CheckpointNames
from eapo_agents.serving import Backend, Control, FileTransfer, NCCLTransfer, WeightTransfer
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from torch import Tensor

    from eapo_agents.policies.policy import Policy

_Lifetime = AsyncGenerator["AsyncOpenAI", None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMServerEngine:
    """A separate vLLM server (`eapo serve-policy`): its address, and how it gets new weights.

    Args:
        base_url: of `eapo serve-policy`, without a path. Its control plane has no
            authentication: use loopback or a private network.
        transfer: "file" through shared memory on one machine, "nccl" between GPUs.
        trainer_address: address at which the server reaches this machine, for "nccl".
        call_timeout_s: timeout of one completion.

    Raises:
        UserError: an invalid address or a non-positive timeout.
    """

    kind: Literal["vllm-server"] = "vllm-server"
    base_url: str = "http://127.0.0.1:8100"
    transfer: Backend = "file"
    trainer_address: str = "127.0.0.1"
    call_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        if not self.call_timeout_s > 0:
            raise UserError(f"call_timeout_s must be positive, not {self.call_timeout_s}")

    def build(self, model: ModelSettings, loaded: object = None) -> Policy:
        """Return the policy; the server has the weights it was sent last.

        Raises:
            UserError: the server does not answer, or serves another model.
        """
        return VLLMServerPolicy(model_folder(model.path), self, model.template)

    @property
    def weight_transfer(self) -> WeightTransfer:
        """How new weights are sent to the server."""
        control = Control(self.base_url.rstrip("/"))
        if self.transfer == "nccl":
            return NCCLTransfer(control, self.trainer_address)
        return FileTransfer(control)


class VLLMServerPolicy:
    """A policy that samples on a vLLM server and sends it the learner's weights.

    Args:
        model: the folder or hub id that the server serves; its tokenizer and the names of its
            weights are read here.
        server: see `VLLMServerEngine`.
        template: variables of the chat template (`ModelSettings`).

    Raises:
        ServerError: the server does not answer, or not as one of `eapo serve-policy`.
    """

    def __init__(
        self,
        model: str,
        server: VLLMServerEngine | None = None,
        template: Mapping[str, str | bool | int | float] = NO_VARIABLES,
    ) -> None:
        self._server = server or VLLMServerEngine()
        self.tokenizer = load_tokenizer(model, template)
        self.end_ids = end_ids(None, self.tokenizer)
        self._names = CheckpointNames(model)
        served = Control(self._server.base_url.rstrip("/")).model()
        self._model, self.max_context_tokens = served
        self._transfer = self._server.weight_transfer
        self._under_way = 0
        self._clients: dict[asyncio.AbstractEventLoop, tuple[AsyncOpenAI, _Lifetime]] = {}

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        Cancelling closes the connection, and the server aborts the completion.

        Raises:
            UserError: an empty prompt, one that leaves no room in the context, or a temperature
                between 0 and 0.01.
            PolicyError: the server failed.
        """
        from openai import APIConnectionError

        limit = completion_limit(prompt_ids, sampling, self.max_context_tokens)
        check_temperature(sampling.temperature)
        client = await self._client()
        self._under_way += 1
        try:
            answer = await client.post(
                "/completions",
                body=self._request(prompt_ids, sampling, limit, seed),
                cast_to=object,
            )
        except Exception as error:
            # The client calls a refused connection a timeout; the cause is the real error.
            cause = error.__cause__ if isinstance(error, APIConnectionError) else None
            raise PolicyError(
                f"the policy server {self._server.base_url} failed: {cause or error}"
            ) from error
        finally:
            self._under_way -= 1
        return _read(answer, self._server.base_url)

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Send weights to the server, in its dtype; it drops its prefix cache.

        Tied weights may be named once.

        Raises:
            UserError: an unknown or missing name, or completions in progress.
            PolicyError: the server did not accept them.
        """
        if self._under_way:
            raise UserError(f"cannot load weights: {self._under_way} completions in progress")
        weights = self._names.of(state_dict)
        try:
            self._transfer.send(weights)
        except Exception as error:
            raise PolicyError(
                f"the policy server {self._server.base_url} did not accept the weights: {error}"
            ) from error

    def close(self) -> None:
        """Close the transfer; the server keeps running."""
        self._transfer.close()

    def _request(
        self, prompt_ids: Sequence[int], sampling: Sampling, limit: int, seed: int
    ) -> dict[str, object]:
        return {
            "model": self._model,
            "prompt": [int(token_id) for token_id in prompt_ids],
            "max_tokens": limit,
            "temperature": sampling.temperature,
            "seed": seed % 2**63,
            "stop": list(sampling.stop) or None,
            "stop_token_ids": self.end_ids,
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,  # a stop text may be one
            **asdict(sampling.truncation),  # else the server's defaults, from the model's folder
            "repetition_penalty": 1.0,
        }

    async def _client(self) -> AsyncOpenAI:
        """Return the running loop's client; it is closed with the loop."""
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            lifetime = _lifetime(self._server)
            for closed in [other for other in self._clients if other.is_closed()]:
                del self._clients[closed]
            # Nothing suspends up to the generator's yield, so no two callers can both get here.
            self._clients[loop] = await anext(lifetime), lifetime
        return self._clients[loop][0]


async def _lifetime(server: VLLMServerEngine) -> _Lifetime:
    # An asynchronous generator, because an event loop closes those when it shuts down.
    from openai import AsyncOpenAI, DefaultAioHttpClient

    client = AsyncOpenAI(
        base_url=f"{server.base_url.rstrip('/')}/v1",
        api_key="none",
        timeout=server.call_timeout_s,
        max_retries=2,
        http_client=DefaultAioHttpClient(timeout=server.call_timeout_s),
    )
    try:
        yield client
    finally:
        await client.close()


def _read(answer: object, where: str) -> Completion:
    match answer:
        case {
            "choices": [
                {
                    "finish_reason": "stop" | "length" as finish,
                    "token_ids": [*token_ids],
                    "logprobs": {"token_logprobs": [*logprobs]},
                },
                *_,
            ]
        }:
            return Completion(token_ids=tuple(token_ids), logprobs=tuple(logprobs), finish=finish)
        case {"choices": [{"finish_reason": str(other)}, *_]}:
            raise PolicyError(f"the policy server {where} ended a completion with {other!r}")
        case _:
            raise PolicyError(
                f"the policy server {where} answered with no completion: {reprlib.repr(answer)}"
            )
