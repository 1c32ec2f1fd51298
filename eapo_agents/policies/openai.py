"""[edge] Models behind an OpenAI-compatible server, as policies of workflows and evaluations.

They give no token ids, so they can be evaluated and not trained. Requests take the same path as
those to experts (`eapo_env.endpoints`): one client per server and event loop, a limit on concurrent
calls, a timeout, retries, and a key from the environment only.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from eapo_agents.policies.chat_model import ChatTurn
from eapo_agents.policies.models import ModelSettings
from eapo_agents.policies.policy import Finish, PolicyError, Sampling, Truncation
from eapo_env.connections import CircuitOpen, Failure, Payload, open_connection
from eapo_env.endpoints import Endpoint
from eapo_env.prompts import encodable
from eapo_env.types import Message
from eapo_env.validation import UserError

_CONTEXT = re.compile(r"maximum context length is (\d+)")
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|in the messages|in (?:the|your) prompt)|messages resulted in (\d+)"
)
"""From the error messages of OpenAI and vLLM when conversation and reply exceed the context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIPolicy:
    """A model behind an OpenAI-compatible server as a chat model.

    Args:
        endpoint: where it is served; the first of its models is the policy.
        extra_body: further fields of the request, or other values for these; a field whose value
            is None is not sent, for models that refuse `temperature`, `top_p` or `seed`.
    """

    endpoint: Endpoint
    extra_body: Mapping[str, object] = field(default_factory=dict)

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> ChatTurn:
        """Return the model's next turn.

        If the server says that `max_tokens` does not fit beside the conversation, the request is
        repeated once with what fits. A conversation that has outgrown the context gives an empty
        turn; a first message that does not fit is an error.

        Raises:
            UserError: no key in the environment.
            PolicyError: no completion after all retries: a failure is not a wrong answer, and must
                not be counted as one.
        """
        where = f"{self._model} at {self.endpoint.base_url}"
        connection = await open_connection(self.endpoint)
        if connection is None:
            raise UserError(f"{where}: the variable {self.endpoint.api_key_env} holds no key")
        body = self._request(messages, sampling, seed)
        outcome = await connection.call(body)
        room = room_left(outcome.reason) if isinstance(outcome, Failure) else None
        if room is not None and room > 0:
            outcome = await connection.call(_with_limit(body, room))
        match outcome:
            case Payload(content):
                turn = read_turn(content, sampling.stop)
                if turn is None:
                    raise PolicyError(f"{where}: not a chat completion: {reprlib.repr(content)}")
                return turn
            case Failure() if len(messages) > 1 and room is not None and room <= 0:
                return ChatTurn(text="", num_tokens=0, finish="length")
            case Failure(reason):
                raise PolicyError(f"{where}: {reason}")
            case CircuitOpen():
                raise PolicyError(f"{where}: not called, after several failures in a row")

    @property
    def _model(self) -> str:
        return self.endpoint.models[0]

    def _request(
        self, messages: Sequence[Message], sampling: Sampling, seed: int
    ) -> dict[str, object]:
        body = {
            "model": self._model,
            "messages": [{"role": m.role, "content": encodable(m.content)} for m in messages],
            "temperature": sampling.temperature,
            **truncation_fields(sampling.truncation),
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "seed": seed % 2**31,
            **self.extra_body,
        }
        return {name: value for name, value in body.items() if value is not None}


def room_left(reason: str) -> int | None:
    """Return how many tokens of the context a refused conversation leaves; may be negative.

    None if the refusal does not state the lengths of context and conversation.
    """
    context, prompt = _CONTEXT.search(reason), _PROMPT.search(reason)
    if context is None or prompt is None:
        return None
    return int(context[1]) - int(prompt[1] or prompt[2])


def _with_limit(body: Mapping[str, object], room: int) -> dict[str, object]:
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return {**body, name: room}


def truncation_fields(truncation: Truncation) -> dict[str, float]:
    """Return a request's fields for a truncation; those unknown to OpenAI only if they are set.

    Otherwise the server's default applies: in vLLM, the model's generation_config.
    """
    fields: dict[str, float] = {"top_p": truncation.top_p}
    if truncation.top_k != -1:
        fields["top_k"] = truncation.top_k
    if truncation.min_p:
        fields["min_p"] = truncation.min_p
    return fields


def read_turn(content: object, stop: Sequence[str]) -> ChatTurn | None:
    """Return the turn in a decoded chat completion; None for an invalid one.

    Servers remove the stop text; one that closes a tag (`</name>`) is put back if the tag is open.
    Refused or filtered text is an empty turn. Without `usage`, words are counted as tokens.
    """
    match content:
        case {"choices": [{"message": {"content": str() | None as text}, **choice}, *_], **rest}:
            text = text or ""
        case _:
            return None
    finish: Finish = "length" if choice.get("finish_reason") == "length" else "stop"
    if finish == "stop":
        text += next((mark for mark in stop if _left_open(text, mark)), "")
    match rest.get("usage"):
        case {"completion_tokens": int(count)} if count >= 0:
            return ChatTurn(text=text, num_tokens=count, finish=finish)
        case _:
            return ChatTurn(text=text, num_tokens=len(text.split()), finish=finish)


def _left_open(text: str, mark: str) -> bool:
    opening = mark.replace("</", "<", 1)
    return opening != mark and text.rfind(opening) > text.rfind(mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIEngine:
    """An OpenAI-compatible server; the model there can be evaluated, not trained.

    Args:
        base_url: of an OpenAI-compatible server, up to and including `/v1`.
        api_key_env: the environment variable that holds the key; None for a server without one.
        max_live_calls: the most calls under way at a time.
        call_timeout_s: how long one call may take, retries included.
        max_retries: how often a call that was refused or lost is repeated.
        extra_body: further fields of a request, or other values; null leaves one out.
    """

    kind: Literal["openai"] = "openai"
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key_env: str | None = None
    max_live_calls: int = 64
    call_timeout_s: float = 1800.0
    max_retries: int = 4
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def build(self, model: ModelSettings) -> OpenAIPolicy:
        """Return the served model as a policy for workflows and evaluations.

        Raises:
            ValueError: the key is not in the environment.
        """
        endpoint = Endpoint(
            base_url=self.base_url,
            models=(model.path,),
            api_key_env=self.api_key_env,
            max_live_calls=self.max_live_calls,
            call_timeout_s=self.call_timeout_s,
            max_retries=self.max_retries,
        )
        endpoint.check_key()
        return OpenAIPolicy(endpoint=endpoint, extra_body=self.extra_body)
