"""A model of the harness Inspect that reads experts' replies before it answers (paper, Table 7).

The harness's last message is the problem: the experts are sent all of it, and the policy reads
their replies in the format of training. Everything else is the harness's.
"""

from __future__ import annotations

import numpy as np
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageUser,
    GenerateConfig,
    Model,
    ModelAPI,
    ModelOutput,
    modelapi,
)
from inspect_ai.tool import ToolChoice, ToolInfo

from eapo_agents.rollouts import consult_about_whole
from eapo_env.episode import begin
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts
from eapo_env.types import Message, Problem, Rules

PROMPTS = Prompts(
    training="{statement}",
    alone="{statement}",
    last_turn="Replies can be wrong. Now answer, in the form that you were asked for.",
)
"""Bare prompts: the harness's own already say in which form to answer."""


@modelapi(name="with-experts")
class Consulting(ModelAPI):  # type: ignore[misc]  # the harness is Any to mypy
    """A model that consults experts once, then answers."""

    def __init__(self, policy: Model, experts: ExpertPool, rules: Rules) -> None:
        """Put experts before a model; `rules.queries_per_turn` of them are asked in parallel."""
        super().__init__(policy.name)
        self._policy, self._experts, self._rules = policy, experts, rules

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Return what the model answers, with the experts' replies before it."""
        *before, asked = input
        problem = Problem(id="benchmark", statement=asked.text or "?", answer="?")
        episode = await consult_about_whole(
            begin(problem, self._rules, PROMPTS),
            self._experts,
            self._rules.queries_per_turn,
            np.random.default_rng(0),
        )
        messages = [*before, *map(_chat_message, episode.messages)]
        return await self._policy.generate(messages, tools, tool_choice, config)

    def connection_key(self) -> str:
        """Return the key of this model's limit on calls; the inner model has a limit beside it."""
        return "with-experts"


def _chat_message(message: Message) -> ChatMessage:
    kind = ChatMessageAssistant if message.role == "assistant" else ChatMessageUser
    return kind(content=message.content)
