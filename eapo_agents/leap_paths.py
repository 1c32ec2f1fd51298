"""A path of reasoning that can be interrupted, in tokens or in messages; values that only grow.

A token policy reads what is inserted within its own turn, as LeaP does; a model behind a server
reads it as a user's message, since no chat interface lets anybody speak inside a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

from eapo_agents.chat_model import ChatModel, Turn
from eapo_agents.policy import Policy, Sampling
from eapo_agents.tokens import Chat, plain_ids
from eapo_env.types import Message

GO_ON = Message("user", "Go on.")


class Path(Protocol):
    """A conversation in which the model is in the middle of its turn."""

    async def write(self, sampling: Sampling, seed: int) -> tuple[Self, Turn]:
        """Return the path after what the model writes next, and that; empty without room.

        Raises:
            OSError: the model cannot be reached.
        """

    def insert(self, text: str) -> Self:
        """Return the path after a text of somebody else's."""

    def said(self, text: str) -> Self:
        """Return the path after a text as if the model had written it."""


@dataclass(frozen=True)
class TokenPath:
    """A path of a token policy: the ids so far."""

    policy: Policy
    token_ids: tuple[int, ...]

    @classmethod
    def open(cls, policy: Policy, messages: Sequence[Message]) -> TokenPath:
        """Return the path at the start of the policy's first turn."""
        return cls(policy, tuple(Chat(policy.tokenizer).opening(messages)))

    async def write(self, sampling: Sampling, seed: int) -> tuple[TokenPath, Turn]:
        """Return the path with the sampled ids, exactly, and their text."""
        room = self.policy.max_context_tokens - len(self.token_ids)
        if room < 1:
            return self, Turn(text="", num_tokens=0, finish="length")
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        completion = await self.policy.complete(self.token_ids, within, seed)
        text = self.policy.tokenizer.decode(
            list(completion.token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        turn = Turn(text=str(text), num_tokens=len(completion.token_ids), finish=completion.finish)
        return replace(self, token_ids=self.token_ids + completion.token_ids), turn

    def insert(self, text: str) -> TokenPath:
        """Return the path with the text's ids; nothing in it is a special token."""
        ids = plain_ids(text, self.policy.tokenizer)
        return replace(self, token_ids=self.token_ids + tuple(ids))

    def said(self, text: str) -> TokenPath:
        """Return the path with the text's ids."""
        return self.insert(text)


@dataclass(frozen=True)
class MessagePath:
    """A path of a chat model: the messages so far."""

    model: ChatModel
    messages: tuple[Message, ...]

    @classmethod
    def open(cls, model: ChatModel, messages: Sequence[Message]) -> MessagePath:
        """Return the path at the start of the model's first turn."""
        return cls(model, tuple(messages))

    async def write(self, sampling: Sampling, seed: int) -> tuple[MessagePath, Turn]:
        """Return the path after the model's next message; it is told to go on if it spoke last."""
        path = self if self.messages[-1].role == "user" else self._with(GO_ON)
        turn = await self.model.write(path.messages, sampling, seed)
        return path.said(turn.text), turn

    def insert(self, text: str) -> MessagePath:
        """Return the path after a user's message."""
        return self._with(Message("user", text))

    def said(self, text: str) -> MessagePath:
        """Return the path after a message of the model's."""
        return self._with(Message("assistant", text))

    def _with(self, message: Message) -> MessagePath:
        return replace(self, messages=(*self.messages, message))
