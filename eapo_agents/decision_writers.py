"""Who finds the words for a decision: what to ask, and the text of an answer.

Owns the `Writer` protocol, the language model as a writer, and the careless student of the
procedural problems, who needs no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from eapo_agents.chat_model import ChatModel
from eapo_agents.cold_start import WHOLE, Student, known_values
from eapo_agents.policy import Sampling
from eapo_env.episode import Episode
from eapo_env.synthetic import BracketSum, read_sum
from eapo_env.types import Problem, Rules


class Writer(Protocol):
    """Writes the texts of many episodes at once; what it writes is made legal by the caller."""

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return up to `count` questions; with none, the whole problem is asked instead."""
        ...

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the text that answers the problem, in the words of the grammar."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """A language model answers; its questions are the whole problem, once to each expert.

    Whatever the turn, it answers under the prompt of evaluation, which mentions no experts,
    followed by what was asked and what came back.

    Args:
        model: who writes; `eapo_agents.chat_model.PolicyChat` makes one of any token policy.
        sampling: how.
    """

    model: ChatModel
    sampling: Sampling = Sampling(max_tokens=4096)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the problem's statement, `count` times."""
        return [episode.problem.statement] * count

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the model's turn.

        Raises:
            OSError: the model cannot be reached.
        """
        opening = episode.prompts.opening(episode.problem, Rules.alone())
        messages = (opening, *episode.messages[1:])
        return (await self.model.write(messages, self.sampling, seed)).text


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentWriter:
    """The careless student works procedural problems out, and asks about the parts it misses.

    Args:
        student: how careless it is: `Student.slip`.
    """

    student: Student = Student(slip=0.1)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the first `count` parts whose value no expert has told."""
        known = known_values(episode)
        if WHOLE in known:
            return ()
        parts = _sum_of(episode.problem).parts.items()
        return [f"{name}:{part}" for name, part in parts if name not in known][:count]

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the student's solution, with the values that experts told.

        Raises:
            ValueError: the problem is not a procedural one.
        """
        known, rng = known_values(episode), np.random.default_rng(seed)
        return self.student.solve(_sum_of(episode.problem), rng, known)


def _sum_of(problem: Problem) -> BracketSum:
    total = read_sum(problem.statement)
    if total is None:
        raise ValueError(f"the student solves procedural problems only: {problem.statement!r:.200}")
    return total
