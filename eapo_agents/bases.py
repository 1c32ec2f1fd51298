"""[edge] Base models of a chosen strength: the embedded one, taught by a student that slips.

The demonstrations, and so the weights, are a function of the student alone (and of the machine's
rounding).
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from eapo_agents.cold_start import Student
from eapo_agents.learner import Learner
from eapo_agents.models import load_model
from eapo_agents.pretrain import SETTINGS, by_turns, schedule, shown
from eapo_agents.settings import ModelSettings
from eapo_agents.tokens import Chat


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
        ValueError: a slip outside [0, 1], no number of queries, or one below 1.
    """

    slip: float
    queries_per_turn: tuple[int, ...] = (3,)
    steps: int = 200
    batch_size: int = 64
    learning_rate: float = 5e-4

    def __post_init__(self) -> None:
        if not self._students:
            raise ValueError(f"queries_per_turn must not be empty, not {self.queries_per_turn}")

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
    def _students(self) -> list[Student]:
        return [Student(slip=self.slip, queries_per_turn=most) for most in self.queries_per_turn]

    def _teach(self, folder: Path) -> None:
        model, tokenizer = load_model(ModelSettings())
        learner = Learner(model, settings=replace(SETTINGS, device="cpu"))
        rng = np.random.default_rng([round(1000 * self.slip)])
        chat = Chat(tokenizer)
        batches = by_turns(*(shown(s, chat, rng, self.batch_size) for s in self._students))
        for step, batch in enumerate(islice(batches, self.steps)):
            rate = self.learning_rate * schedule(step, self.steps)
            learner.settings = replace(learner.settings, learning_rate=rate)
            learner.sft_update(batch)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
