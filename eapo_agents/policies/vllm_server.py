"""[edge] The policy on a vLLM server: token ids over HTTP, weights by vLLM's transfer API.

The server is one of `eapo serve-policy`. Learner and sampler then have separate processes, and on a
GPU machine separate GPUs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from eapo_agents.policies.policy import Completion, Finish, PolicyError, Sampling, completion_limit
from eapo_agents.policies.vllm import check_temperature, weight_names, with_tied
from eapo_agents.serving import Backend, Control, FileTransfer, NCCLTransfer, WeightTransfer
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from torch import Tensor

_Lifetime = AsyncGenerator["AsyncOpenAI", None]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyServer:
    """Where the policy's server is, and how it takes new weights.

    Args:
        base_url: of `eapo serve-policy`, without a path. Its control plane has no key: loopback,
            or a network of one's own.
        transfer: "file" by shared memory on one machine, "nccl" between GPUs.
        trainer_address: of this machine as the server reaches it, for "nccl".
        call_timeout_s: how long one completion may take.

    Raises:
        UserError: an address that is none, or a time that is not positive.
    """

    base_url: str = "http://127.0.0.1:8100"
    transfer: Backend = "file"
    trainer_address: str = "127.0.0.1"
    call_timeout_s: float = 3600.0

    def __post_init__(self) -> None:
        if not self.base_url.startswith(("http://", "https://")):
            raise UserError(f"base_url must begin with http:// or https://, not {self.base_url!r}")
        if not self.call_timeout_s > 0:
            raise UserError(f"call_timeout_s must be positive, not {self.call_timeout_s}")

    @property
    def weight_transfer(self) -> WeightTransfer:
        """The way for new weights."""
        control = Control(self.base_url.rstrip("/"))
        if self.transfer == "nccl":
            return NCCLTransfer(control, self.trainer_address)
        return FileTransfer(control)


class VLLMServerPolicy:
    """A policy that samples on a vLLM server, and puts the learner's weights into it.

    Args:
        model: the folder or hub id that the server serves; its tokenizer and the names of its
            weights are read here.
        server: see `PolicyServer`.

    Raises:
        ConnectionError: the server does not answer.
    """

    def __init__(self, model: str, server: PolicyServer | None = None) -> None:
        from transformers import AutoConfig, AutoTokenizer

        self._server = server or PolicyServer()
        self.tokenizer = AutoTokenizer.from_pretrained(model)
        self._names = weight_names(AutoConfig.from_pretrained(model))
        served = Control(self._server.base_url.rstrip("/")).models()[0]
        self._model: str = served["id"]
        self.max_context_tokens: int = served["max_model_len"]
        self._transfer = self._server.weight_transfer
        self._under_way = 0
        self._clients: dict[asyncio.AbstractEventLoop, tuple[AsyncOpenAI, _Lifetime]] = {}

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        """Return one completion of the prompt; see `Policy.complete`.

        Cancelling closes the connection, upon which the server drops the completion.

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
            # The client calls a refused connection a time-out; its cause says what it was.
            told = error.__cause__ if isinstance(error, APIConnectionError) else None
            raise PolicyError(
                f"the policy server {self._server.base_url} failed: {told or error}"
            ) from error
        finally:
            self._under_way -= 1
        return _read(answer, self._server.base_url)

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put weights into the server, in its own precision; its cached prefixes are dropped.

        Tied weights may be named once.

        Raises:
            UserError: a name that is unknown or missing, or completions under way.
            PolicyError: the server did not take them.
        """
        if self._under_way:
            raise UserError(f"{self._under_way} completions under way would mix two policies")
        weights = with_tied(state_dict, self._names)
        try:
            self._transfer.send(weights)
        except Exception as error:
            raise PolicyError(
                f"the policy server {self._server.base_url} did not take the weights: {error}"
            ) from error

    def close(self) -> None:
        """Give up the transfer; the server goes on."""
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
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,  # a stop text may be one
            **asdict(sampling.truncation),  # a server takes other defaults from the model's folder
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


async def _lifetime(server: PolicyServer) -> _Lifetime:
    # As an asynchronous generator, because a loop that shuts down closes those itself.
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


def _read(answer: Any, where: str) -> Completion:
    choice = answer["choices"][0]
    if choice["finish_reason"] not in ("stop", "length"):
        raise PolicyError(
            f"the policy server {where} ended a completion with {choice['finish_reason']!r}"
        )
    finish: Finish = "stop" if choice["finish_reason"] == "stop" else "length"
    return Completion(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        finish=finish,
    )
