"""[edge] Base models of a chosen strength: the embedded one, taught by a student that slips.

The demonstrations, and so the weights, are a function of the student alone (and of the machine's
rounding).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path

import numpy as np

from eapo_agents.learning import Learner
from eapo_agents.policies import Chat, HFPolicy, ModelSettings, Sampling, load_model
from eapo_agents.reproduction.pretraining import SETTINGS, by_turns, demonstration_batches, schedule
from eapo_agents.rollouts import derive_seed, gather
from eapo_env.answers import extract_answer
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.synthetic import MODULUS
from eapo_env.types import ExpertReply, Message, Query, Reply, Unavailable
from eapo_env.validation import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """A base model that imitates a student of some carelessness.

    Args:
        slip: the student's rate.
        queries_per_turn: what the episodes that it demonstrates allow, batch by batch in turn.
        steps: optimiser steps of imitation.
        batch_size: demonstrations a step.
        learning_rate: at its peak; it warms up and decays by a cosine.

    Raises:
        UserError: a slip outside [0, 1], no number of queries, or one below 1.
    """

    slip: float
    queries_per_turn: tuple[int, ...] = (3,)
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        if not self._students:
            raise UserError(f"queries_per_turn must not be empty, not {self.queries_per_turn}")

    @property
    def name(self) -> str:
        """What its folder is called: `slip-0.50`, or `slip-0.50-asks-1-3`."""
        asks = "-".join(map(str, self.queries_per_turn))
        return f"slip-{self.slip:.2f}" + (f"-asks-{asks}" if asks != "3" else "")

    def make(self, root: Path) -> Path:
        """Return its folder in `root`, in Hugging Face format; make it unless it is there."""
        folder = root / self.name
        if not folder.exists():
            unfinished = root / f".unfinished-{self.name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            self._teach(unfinished)
            unfinished.rename(folder)
        return folder

    @property
    def _students(self) -> list[NoisyDemonstrator]:
        return [
            NoisyDemonstrator(slip=self.slip, queries_per_turn=most)
            for most in self.queries_per_turn
        ]

    def _teach(self, folder: Path) -> None:
        model, tokenizer = load_model(ModelSettings())
        learner = Learner(model, settings=replace(SETTINGS, device="cpu"))
        rng = np.random.default_rng([round(1000 * self.slip)])
        chat = Chat(tokenizer)
        batches = by_turns(
            *(demonstration_batches(s, chat, rng, self.batch_size) for s in self._students)
        )
        for step, batch in enumerate(islice(batches, self.steps)):
            rate = self.learning_rate * schedule(step, self.steps)
            learner.settings = replace(learner.settings, learning_rate=rate)
            learner.sft_update(batch)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


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
