"""[edge] Experts that are copies of a model of procedural problems: a homogeneous pool, in process.

A question about a part, `a:((47+38)*6)`, is put to the copy as a problem of its own, and what it
answers comes back in the calculator's words, `a=10`: the same as an expert's, if it is right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from eapo_agents.hf_policy import HFPolicy
from eapo_agents.models import load_model
from eapo_agents.policy import Sampling
from eapo_agents.rollout import derive_seed, gather
from eapo_agents.settings import ModelSettings
from eapo_agents.tokens import Chat
from eapo_env.answers import extract_answer
from eapo_env.synthetic import MODULUS
from eapo_env.types import ExpertReply, Message, Query, Reply, Unavailable

MAX_TOKENS = 128

_PART = re.compile(r"([a-z]):\S+")


@dataclass(frozen=True)
class CopyExperts:
    """A frozen copy of a model, loaded at its first use."""

    model: ModelSettings

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the copy's answers, in query order."""
        return await gather(self._reply(query) for query in queries)

    async def _reply(self, query: Query) -> ExpertReply:
        part = _PART.fullmatch(query.text.strip())
        statement = f"{query.text.strip()} {part[1]} mod {MODULUS}" if part else query.text
        ids = self._chat.opening([Message("user", statement)])
        room = min(MAX_TOKENS, self._policy.max_context_tokens - len(ids))
        if room < 1:
            return Unavailable("no room", "copy")
        seed = derive_seed(query.seed or 0, query.turn, query.slot)
        completion = await self._policy.complete(ids, Sampling(max_tokens=room), seed)
        answer = extract_answer(self._chat.text(completion.token_ids))
        if answer is None:
            return Unavailable("no answer", "copy")
        return Reply("copy", f"{part[1]}={answer}" if part else answer)

    @cached_property
    def _policy(self) -> HFPolicy:
        model, tokenizer = load_model(self.model)
        return HFPolicy(model, tokenizer, max_batch=self.model.max_batch)

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self._policy.tokenizer)

    def __reduce__(self) -> tuple[type[CopyExperts], tuple[ModelSettings]]:
        """Pickle as the settings alone."""
        return CopyExperts, (self.model,)
