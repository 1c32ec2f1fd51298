"""A rollout on one problem: its policy writes given texts, its experts echo the queries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat
from typing import Any

from torch import Tensor

from eapo_agents.policies.characters import char_tokenizer
from eapo_agents.policies.policy import Completion, Sampling
from eapo_agents.rollouts.rollout import Rollout
from eapo_agents.rollouts.trajectory import Trajectory
from eapo_agents.testing import ScriptedPolicy
from eapo_env.actions import Consult, render_consult
from eapo_env.experts import ScriptedExperts
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Query, Rules
from eapo_env.verifier import Verifier

TOKENIZER = char_tokenizer()
VERIFIER = Verifier()  # only whole numbers are checked here: it starts no process
PROBLEM = Problem(id="p", statement="3 + 4 = ?", answer="7")
CONSULT = render_consult(Consult(("first?", "second?", "third?")))


class Recording:
    """A policy that writes texts in order, then answers, and remembers every call."""

    def __init__(self, texts: Iterable[str], max_context_tokens: int = 1 << 20) -> None:
        endless = chain(texts, repeat("\\boxed{0}"))
        self._inner = ScriptedPolicy(
            TOKENIZER, lambda *_: next(endless), max_context_tokens=max_context_tokens
        )
        self.tokenizer = TOKENIZER
        self.max_context_tokens = max_context_tokens
        self.calls: list[tuple[tuple[int, ...], Completion]] = []

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        completion = await self._inner.complete(prompt_ids, sampling, seed)
        self.calls.append((tuple(prompt_ids), completion))
        return completion

    def load_weights(self, state_dict: Mapping[str, Tensor]) -> None:
        pass


def echo(query: Query) -> str:
    return f"{query.text} is 12"


def rollout(policy: Any, **changes: Any) -> Rollout:
    parts = {"experts": ScriptedExperts(echo), "verifier": VERIFIER, "prompts": Prompts.terse()}
    return Rollout(policy=policy, **{**parts, **changes})


def play(texts: Iterable[str], rules: Rules | None = None, **changes: Any) -> Trajectory:
    return asyncio.run(rollout(Recording(texts), **changes).play(PROBLEM, rules or Rules(), seed=1))
