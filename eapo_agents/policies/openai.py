"""[edge] Any OpenAI-compatible model as the policy of workflows and evaluations.

Such a model speaks messages and gives no token ids, so it can be evaluated and not trained. It
goes through the same lines as the experts do (`eapo_env.endpoints`): one client per server and
event loop, a limit on live calls, a deadline, retries, and a key from the environment only.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from eapo_agents.policies.chat_model import Turn
from eapo_agents.policies.policy import Finish, Sampling, Truncation
from eapo_env.endpoints import Endpoint, Failure, Payload, Refused, open_line
from eapo_env.prompts import encodable
from eapo_env.types import Message

_CONTEXT = re.compile(r"maximum context length is (\d+)")
_PROMPT = re.compile(
    r"(\d+) (?:input tokens|in the messages|in (?:the|your) prompt)|messages resulted in (\d+)"
)
"""What OpenAI's servers and vLLM's say of a conversation that, with its reply, is too long."""


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

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> Turn:
        """Return the model's next turn.

        Where the server says that `max_tokens` does not fit beside the conversation, it is asked
        once more for what does. A conversation that has outgrown the context gives an empty turn;
        an opening that does not fit is an error like any other.

        Raises:
            OSError: no key in the environment, or no completion after all retries: a failure is
                no wrong answer, and must not be counted as one.
        """
        where = f"{self._model} at {self.endpoint.base_url}"
        line = await open_line(self.endpoint)
        if line is None:
            raise OSError(f"{where}: the variable {self.endpoint.api_key_env} holds no key")
        body = self._request(messages, sampling, seed)
        outcome = await line.call(body)
        room = room_left(outcome.reason) if isinstance(outcome, Failure) else None
        if room is not None and room > 0:
            outcome = await line.call(_with_limit(body, room))
        match outcome:
            case Payload(content):
                turn = read_turn(content, sampling.stop)
                if turn is None:
                    raise OSError(f"{where}: not a chat completion: {reprlib.repr(content)}")
                return turn
            case Failure() if len(messages) > 1 and room is not None and room <= 0:
                return Turn(text="", num_tokens=0, finish="length")
            case Failure(reason):
                raise OSError(f"{where}: {reason}")
            case Refused():
                raise OSError(f"{where}: it did not answer lately, and is not asked for a while")

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
            **_truncation(sampling.truncation),
            "max_tokens": sampling.max_tokens,
            "stop": list(sampling.stop) or None,
            "seed": seed % 2**31,
            **self.extra_body,
        }
        return {name: value for name, value in body.items() if value is not None}


def room_left(reason: str) -> int | None:
    """Return the tokens that a refused conversation leaves in the context, 0 or less for none.

    None for a refusal that does not say the length of the context and that of the conversation.
    """
    context, prompt = _CONTEXT.search(reason), _PROMPT.search(reason)
    if context is None or prompt is None:
        return None
    return int(context[1]) - int(prompt[1] or prompt[2])


def _with_limit(body: Mapping[str, object], room: int) -> dict[str, object]:
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    return {**body, name: room}


def _truncation(truncation: Truncation) -> dict[str, object]:
    """Return the fields of a truncation; those that are not OpenAI's own only where they are set.

    Unset, a server's own default holds for these: vLLM takes the model folder's.
    """
    return {
        "top_p": truncation.top_p,
        "top_k": None if truncation.top_k == -1 else truncation.top_k,
        "min_p": truncation.min_p or None,
    }


def read_turn(content: object, stop: Sequence[str]) -> Turn | None:
    """Return the turn in a decoded chat completion; None for anything else.

    Servers cut a stop text off. One that closes a tag (`</name>`) is put back where that tag was
    left open. Text that was refused or filtered is an empty turn. Without `usage` a turn counts as
    many tokens as it has words.
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
            return Turn(text=text, num_tokens=count, finish=finish)
        case _:
            return Turn(text=text, num_tokens=len(text.split()), finish=finish)


def _left_open(text: str, mark: str) -> bool:
    opening = mark.replace("</", "<", 1)
    return opening != mark and text.rfind(opening) > text.rfind(mark)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiSettings:
    """Where a model is served that is evaluated and not trained.

    Args:
        base_url: of an OpenAI-compatible server, up to and including `/v1`; empty for none.
        api_key_env: the environment variable that holds the key; None for a server without one.
        max_live_calls: the most calls under way at a time.
        call_timeout_s: how long one call may take, retries included.
        max_retries: how often a call that was refused or lost is repeated.
        extra_body: further fields of a request, or other values; null leaves one out.
    """

    base_url: str = ""
    api_key_env: str | None = None
    max_live_calls: int = 64
    call_timeout_s: float = 1800.0
    max_retries: int = 4
    extra_body: Mapping[str, object] = field(default_factory=dict)

    def policy(self, model: str) -> OpenAIPolicy:
        """Return the served model as a policy for workflows and evaluations.

        Raises:
            ValueError: the key is not in the environment.
        """
        endpoint = Endpoint(
            base_url=self.base_url,
            models=(model,),
            api_key_env=self.api_key_env,
            max_live_calls=self.max_live_calls,
            call_timeout_s=self.call_timeout_s,
            max_retries=self.max_retries,
        )
        endpoint.check_key()
        return OpenAIPolicy(endpoint=endpoint, extra_body=self.extra_body)
