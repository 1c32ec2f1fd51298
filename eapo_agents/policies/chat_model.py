"""Chat models: a conversation in, the text of the next turn out.

For workflows and evaluations, which need no token ids. Holds the `ChatModel` protocol and the
adapter that makes one of any token `Policy`; models behind an OpenAI-compatible server are in
`openai.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from eapo_agents.policies.chat import Chat, plain_ids
from eapo_agents.policies.policy import Finish, Policy, Sampling
from eapo_env.types import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTurn:
    """One turn of a model, as text.

    Args:
        text: without special tokens; a stop text that ended it is kept.
        num_tokens: the number of tokens the model sampled for it, hidden reasoning included.
        finish: "length" if `max_tokens` or the context ended it, else "stop".
    """

    text: str
    num_tokens: int
    finish: Finish


class ChatModel(Protocol):
    """A model that continues a conversation; many coroutines may await turns at once."""

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> ChatTurn:
        """Return the next turn of a conversation, which begins and ends with a user's message.

        A conversation that leaves no room in the context gives an empty turn, finished by length.

        Raises:
            PolicyError: the model cannot be reached.
        """


@dataclass(frozen=True)
class PolicyChat:
    """A token policy as a chat model.

    The chat template opens the conversation, and each later message is appended to it. So the first
    prompt has the ids that a rollout sees; in later ones, the model's own turns are re-tokenised.
    """

    policy: Policy

    async def write(self, messages: Sequence[Message], sampling: Sampling, seed: int) -> ChatTurn:
        """Return the policy's completion of the conversation."""
        ids = self._ids(messages)
        room = self.policy.max_context_tokens - len(ids)
        if room < 1:
            return ChatTurn(text="", num_tokens=0, finish="length")
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        completion = await self.policy.complete(ids, within, seed)
        return ChatTurn(
            text=self._chat.turn(completion.token_ids),
            num_tokens=len(completion.token_ids),
            finish=completion.finish,
        )

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.policy.tokenizer)

    def _ids(self, messages: Sequence[Message]) -> list[int]:
        ids = self._chat.opening(messages[:1])
        for spoken, heard in zip(messages[1::2], messages[2::2], strict=True):
            ids += plain_ids(self._chat.sampled(spoken.content), self.policy.tokenizer)
            ids += self._chat.reply(heard, after=ids[-1])
        return ids
