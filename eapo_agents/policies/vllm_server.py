"""[edge] The policy on vLLM servers: token ids over HTTP, weights by vLLM's transfer API.

`eapo serve-policy` starts the servers: learner and sampler have separate processes, and separate
GPUs where there are some. Several servers have the same weights and share the episodes.
"""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal

from eapo_agents.policies.models import (
    NO_VARIABLES,
    ModelSettings,
    end_ids,
    load_tokenizer,
    model_folder,
)
from eapo_agents.policies.policy import (
    Completion,
    PolicyError,
    Sampling,
    completion_limit,
    replica_of,
)
from eapo_agents.policies.vllm import check_temperature
from eapo_agents.policies.vllm_weights import CheckpointNames
from eapo_agents.serving import (
    Backend,
    Control,
    Controls,
    FileTransfer,
    NCCLTransfer,
    WeightTransfer,
)
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from torch import Tensor

    from eapo_agents.policies.policy import Policy

_Lifetime = AsyncGenerator["AsyncOpenAI", None]


@dataclass(frozen=True, slots=True, kw_only=True)
class VLLMServerEngine:
    """Separate vLLM servers (`eapo serve-policy`): their addresses, and how they get new weights.

    Args:
        base_urls: of `eapo serve-policy`, without a path: one or more, which share the episodes.
            Their control planes have no authentication: use loopback or a private network.
        transfer: "file" through shared memory on one machine, "nccl" between GPUs.
        trainer_address: address at which the servers reach this machine, for "nccl".
        call_timeout_s: timeout of one completion.

    Raises:
        UserError: no address, an invalid one or one twice, or a non-positive timeout.
    """

    kind: Literal["vllm-server"] = "vllm-server"
    base_urls: tuple[str, ...] = ("http://127.0.0.1:8100",)
    transfer: Backend = "file"
    trainer_address: str = "127.0.0.1"
    call_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if not isinstance(self.base_urls, tuple) or not self.base_urls:
            raise UserError(f"base_urls must be a tuple of addresses, not {self.base_urls!r}")
        for url in self.base_urls:
            if not url.startswith(("http://", "https://")):
                raise UserError(f"base_urls must begin with http:// or https://, not {url!r}")
            if self.roots.count(url.rstrip("/")) > 1:
                raise UserError(f"base_urls must differ, and two of them are {url!r}")
        if not self.call_timeout_s > 0:
            raise UserError(f"call_timeout_s must be positive, not {self.call_timeout_s}")

    def build(self, model: ModelSettings, loaded: object = None) -> Policy:
        """Return the policy; the servers have the weights that they were sent last.

        Raises:
            UserError: a server does not answer, or serves another model than the first.
        """
        return VLLMServerPolicy(model_folder(model.path), self, model.template)

    @property
    def roots(self) -> tuple[str, ...]:
        """The addresses without a slash at the end."""
        return tuple(url.rstrip("/") for url in self.base_urls)

    @property
    def control(self) -> Controls:
        """The control planes of the servers."""
        return Controls([Control(root) for root in self.roots])

    @property
    def weight_transfer(self) -> WeightTransfer:
        """How new weights are sent to the servers."""
        if self.transfer == "nccl":
            return NCCLTransfer(self.control, self.trainer_address)
        return FileTransfer(self.control)


class VLLMServerPolicy:
    """A policy that samples on vLLM servers and sends them the learner's weights.

    Args:
        model: the folder or hub id that the servers serve; its tokenizer and the names of its
            weights are read here.
        engine: see `VLLMServerEngine`.
        template: variables of the chat template (`ModelSettings`).

    Raises:
        ServerError: a server does not answer, not as one of `eapo serve-policy`, or serves another
            model than the first.
    """

    def __init__(
        self,
        model: str,
        engine: VLLMServerEngine | None = None,
        template: Mapping[str, str | bool | int | float] = NO_VARIABLES,
    ) -> None:
        engine = engine or VLLMServerEngine()
        self.tokenizer = load_tokenizer(model, template)
        self.end_ids = end_ids(None, self.tokenizer)
        self._names = CheckpointNames(model)
        name, self.max_context_tokens = engine.control.model()
        self._transfer = engine.weight_transfer
        self.replicas = tuple(
            _Server(
                root=root,
                call_timeout_s=engine.call_timeout_s,
                model=name,
                max_context_tokens=self.max_context_tokens,
                end_ids=self.end_ids,
            )
            for root in engine.roots
        )

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        The seed decides which server samples it, and what; the same on any of them. Cancelling
        closes the connection, and the server aborts the completion.

        Raises:
            UserError: an empty prompt, one that leaves no room in the context, or a temperature
                between 0 and 0.01.
            PolicyError: the server failed; it is named.
        """
        return await replica_of(self, seed).complete(prompt_ids, sampling, seed)

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Send weights to every server, in its dtype; it drops its prefix cache.

        Tied weights may be named once.

        Raises:
            UserError: an unknown or missing name, or completions in progress.
            PolicyError: a server did not accept them; it is named.
        """
        if under_way := sum(server.under_way for server in self.replicas):
            raise UserError(f"cannot load weights: {under_way} completions in progress")
        weights = self._names.of(state_dict)
        try:
            self._transfer.send(weights)
        except Exception as error:
            raise PolicyError(f"the new weights were not accepted: {error}") from error

    def close(self) -> None:
        """Close the transfer; the servers keep running."""
        self._transfer.close()


@dataclass(kw_only=True)
class _Server:
    """One of the servers of a policy: a `Sampler`."""

    root: str
    call_timeout_s: float
    model: str
    max_context_tokens: int
    end_ids: Sequence[int]
    under_way: int = 0
    _clients: dict[asyncio.AbstractEventLoop, tuple[AsyncOpenAI, _Lifetime]] = field(
        default_factory=dict
    )

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """See `VLLMServerPolicy.complete`."""
        from openai import APIConnectionError

        limit = completion_limit(prompt_ids, sampling, self.max_context_tokens)
        check_temperature(sampling.temperature)
        client = await self._client()
        self.under_way += 1
        try:
            answer = await client.post(
                "/completions",
                body=self._request(prompt_ids, sampling, limit, seed),
                cast_to=object,
            )
        except Exception as error:
            # The client calls a refused connection a timeout; the cause is the real error.
            cause = error.__cause__ if isinstance(error, APIConnectionError) else None
            raise PolicyError(f"the policy server {self.root} failed: {cause or error}") from error
        finally:
            self.under_way -= 1
        return _read(answer, self.root)

    def _request(
        self, prompt_ids: Sequence[int], sampling: Sampling, limit: int, seed: int
    ) -> dict[str, object]:
        return {
            "model": self.model,
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
            lifetime = _lifetime(self.root, self.call_timeout_s)
            for closed in [other for other in self._clients if other.is_closed()]:
                del self._clients[closed]
            # Nothing suspends up to the generator's yield, so no two callers can both get here.
            self._clients[loop] = await anext(lifetime), lifetime
        return self._clients[loop][0]


async def _lifetime(root: str, call_timeout_s: float) -> _Lifetime:
    # An asynchronous generator, because an event loop closes those when it shuts down.
    from openai import AsyncOpenAI, DefaultAioHttpClient

    client = AsyncOpenAI(
        base_url=f"{root}/v1",
        api_key="none",
        timeout=call_timeout_s,
        max_retries=2,
        http_client=DefaultAioHttpClient(timeout=call_timeout_s),
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
