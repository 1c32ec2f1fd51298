"""[edge] Base models of a chosen strength, and experts that are copies of such a model.

A base model is the embedded one, fine-tuned on demonstrations whose steps are wrong at a given
rate. Its weights depend on that demonstrator alone (and on the machine's rounding).
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from eapo_agents.files import writing
from eapo_agents.learning import Learner
from eapo_agents.policies import (
    WRONG_BELIEF as SHIPPED,
    Chat,
    HFPolicy,
    ModelSettings,
    Sampling,
    load_model,
    model_folder,
)
from eapo_agents.reproduction.pretraining import (
    LEARNER_SETTINGS,
    demonstration_batches,
    interleave,
    learning_rate_factor,
)
from eapo_agents.rollouts import derive_seed, gather
from eapo_env.answers import extract_answer
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.synthetic import MODULUS
from eapo_env.types import NO_ANSWER, ExpertReply, Message, Query, Reply, Unavailable
from eapo_env.validation import UserError

_LEARNER_SETTINGS = replace(
    LEARNER_SETTINGS, device="cpu", precision="float32", max_batch_tokens=4096
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseModel:
    """A base model, fine-tuned by imitation of a demonstrator that makes errors.

    Args:
        step_error_rate: the share of the demonstrator's calculation steps that are wrong.
        error: how the demonstrations are wrong (`NoisyDemonstrator`).
        carry_rate: the share of their problems' steps that carry or borrow.
        operations: of each bracket of their problems.
        queries_per_turn: how many queries a turn of the demonstrations allows; the batches go
            through these numbers in turn.
        steps: optimiser steps of imitation.
        batch_size: demonstrations per step.
        learning_rate: at its peak, after a linear warm-up and before a cosine decay.

    Raises:
        UserError: a rate outside [0, 1]; an empty `queries_per_turn`, or a number below 1 in it.
    """

    step_error_rate: float
    error: Literal["random", "carry"] = "random"
    carry_rate: float | None = None
    operations: int = 2
    queries_per_turn: tuple[int, ...] = (3,)
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        if not self._demonstrators:
            raise UserError(f"queries_per_turn must not be empty, not {self.queries_per_turn}")

    @property
    def name(self) -> str:
        """The name of its folder: `slip-0.50`, `slip-0.50-asks-1-3`, or `mixes-up-0.60-carry-1`."""
        asks = "-".join(map(str, self.queries_per_turn))
        kind = {"random": "slip", "carry": "mixes-up"}[self.error]
        drawn = "" if self.carry_rate is None else f"-carry-{self.carry_rate:g}"
        steps = "" if self.operations == 2 else f"-steps-{self.operations}"
        asked = f"-asks-{asks}" if asks != "3" else ""
        return f"{kind}-{self.step_error_rate:.2f}{drawn}{steps}{asked}"

    def make(self, root: str | PathLike[str]) -> Path:
        """Return its folder in `root`, in Hugging Face format; copy or train it first if needed."""
        root = Path(root)
        folder = root / self.name
        if not folder.exists():
            unfinished = root / f".unfinished-{self.name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            if self == WRONG_BELIEF:
                with writing(unfinished):
                    shutil.copytree(model_folder(SHIPPED), unfinished)
            else:
                self._train(unfinished)
            unfinished.rename(folder)
        return folder

    @property
    def _demonstrators(self) -> list[NoisyDemonstrator]:
        return [
            NoisyDemonstrator(
                step_error_rate=self.step_error_rate,
                error=self.error,
                carry_rate=self.carry_rate,
                operations=self.operations,
                queries_per_turn=most,
            )
            for most in self.queries_per_turn
        ]

    def _train(self, folder: Path) -> None:
        model, tokenizer = load_model(ModelSettings())
        learner = Learner(model, settings=_LEARNER_SETTINGS)
        rng = np.random.default_rng([round(1000 * self.step_error_rate)])
        chat = Chat(tokenizer)
        batches = interleave(
            *(
                demonstration_batches(demonstrator, chat, rng, self.batch_size)
                for demonstrator in self._demonstrators
            )
        )
        for step, batch in enumerate(islice(batches, self.steps)):
            rate = self.learning_rate * learning_rate_factor(step, self.steps)
            learner.sft_update(batch, learning_rate=rate)
        with writing(folder):
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)


WRONG_BELIEF = BaseModel(
    step_error_rate=0.8,
    error="carry",
    carry_rate=1.0,
    operations=1,
    steps=600,
    learning_rate=1e-3,
)
"""A base whose most likely answer is wrong. It ships, so that all start from the same weights."""

MAX_TOKENS = 128
"""The longest reply of `ModelExperts`."""

_BRACKET = re.compile(r"([a-z]):\S+")


@dataclass(frozen=True)
class ModelExperts:
    """An expert pool that answers with a frozen copy of a model, which is loaded at first use."""

    model: ModelSettings
    cooperative: ClassVar[bool] = True

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        """Return the copy's answers, in query order."""
        return await gather(self._reply(query) for query in queries)

    async def _reply(self, query: Query) -> ExpertReply:
        bracket = _BRACKET.fullmatch(query.text.strip())
        statement = f"{query.text.strip()} {bracket[1]} mod {MODULUS}" if bracket else query.text
        ids = self._chat.opening([Message("user", statement)])
        max_tokens = min(MAX_TOKENS, self._policy.max_context_tokens - len(ids))
        if max_tokens < 1:
            return Unavailable("no room", "copy")
        seed = derive_seed(query.seed or 0, query.turn, query.slot)
        completion = await self._policy.complete(ids, Sampling(max_tokens=max_tokens), seed)
        answer = extract_answer(self._chat.turn(completion.token_ids))
        if answer is None:
            return Unavailable(NO_ANSWER, "copy")
        return Reply("copy", f"{bracket[1]}={answer}" if bracket else answer)

    @cached_property
    def _policy(self) -> HFPolicy:
        return HFPolicy(*load_model(self.model))

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self._policy.tokenizer)

    def __reduce__(self) -> tuple[type[ModelExperts], tuple[ModelSettings]]:
        """Pickle the settings, not the model."""
        return ModelExperts, (self.model,)
