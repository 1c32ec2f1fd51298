"""Named sets of problems, and what is left to train on of one beside those that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eapo_agents.training.settings import ProblemSettings
from eapo_env.problems import SOURCES, load_problems
from eapo_env.types import Problem
from eapo_env.validation import UserError


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemSet:
    """A named set of problems."""

    name: str
    problems: tuple[Problem, ...]

    @classmethod
    def named(cls, text: str, settings: ProblemSettings) -> ProblemSet:
        """Return the set that `SOURCE` or `NAME=FILE` describes.

        A NAME that `load_problems` knows gives the file's format: `aimo-2025=reference.csv`; any
        other is a label. All but the source is as in `settings`.

        Raises:
            UserError: the problems cannot be read.
        """
        name, equals, path = text.partition("=")
        if not equals:
            settings = replace(settings, source=text)
            return cls(name=settings.label, problems=settings.load())
        if name in SOURCES:
            problems = load_problems(
                name,
                path=path,
                limit=settings.limit,
                answers=settings.answers,
                skip_bad=settings.skip_bad,
            )
            return cls(name=name, problems=problems)
        return cls(name=name, problems=replace(settings, source=path).load())


def check_distinct(sets: Sequence[ProblemSet]) -> None:
    """Raise a `UserError` if two sets have the same name."""
    names = [one.name for one in sets]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"two problem sets are named {twice[0]!r}; use NAME=FILE")


def without(held_out: Sequence[Problem], problems: Sequence[Problem]) -> Sequence[Problem]:
    """Return the problems whose statements are not held out for evaluation.

    Raises:
        UserError: no problem is left.
    """
    statements = {problem.statement for problem in held_out}
    rest = [problem for problem in problems if problem.statement not in statements]
    if not rest:
        raise UserError(
            f"all {len(problems)} problems are held out, none is left to train on: problems and"
            " evaluation.problems hold the same ones; change evaluation.problems.seed if they are"
            " synthetic, otherwise one of the sources"
        )
    return rest
