r"""Grading: whether a response's final answer equals the gold answer.

A check goes through: extraction of the final answer, identical text, exact numbers and structure
(`equivalence.py`, `structure.py`; microseconds, no sympy), static limits (`limits.py`), and only
then sympy in a helper process (`worker_pool.py`), under limits of time and memory.

Conventions: answers inside `<think>` do not count; for an integer gold an unevaluated closed form
(`2^{10}`, `\sum_{k=1}^{100} k^2`) is wrong, since it may only restate the problem; a hedge
(`42 \text{ or } 43`) is a list and so equals no single number.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache, partial
from typing import Protocol, runtime_checkable

from eapo_env.answers import closing_claim, extract_answer
from eapo_env.canonical import canonical
from eapo_env.limits import MAX_ANSWER_CHARS, is_too_complex
from eapo_env.structure import equivalent, exact_scalar
from eapo_env.validation import UserError
from eapo_env.worker_pool import WorkerPool


class Status(StrEnum):
    """How a check ended."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    """The response commits to no answer."""
    TOO_COMPLEX = "too_complex"
    """The answer exceeds a static limit and was not read."""
    TIMEOUT = "timeout"
    """Reading the answer took more time than a check may."""
    MEMORY = "memory"
    """Reading the answer took more memory than a check may."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check.

    Args:
        status: what was found.
        partial: how right a wrong answer is, in [0, 1); 0 unless the grader has degrees.
    """

    status: Status
    partial: float = 0.0

    @property
    def score(self) -> float:
        """How right the answer is, in [0, 1]: 1 if it is correct."""
        return 1.0 if self.correct else self.partial

    @property
    def correct(self) -> bool:
        """Whether the answer was found to be right; every other outcome is False."""
        return self.status is Status.CORRECT


_IS_PROSE = re.compile(r"[A-Za-z]{2,20},? (?!is )[A-Za-z]{1,20},? [A-Za-z]{2,20},? [A-Za-z ,.]{2}")
"""Four words in a row at the start, which is no number, no option and no name of a value."""
_VERDICTS = {status: Verdict(status) for status in Status}
_CORRECT, _WRONG = _VERDICTS[Status.CORRECT], _VERDICTS[Status.WRONG]
_NO_ANSWER, _TOO_COMPLEX = _VERDICTS[Status.NO_ANSWER], _VERDICTS[Status.TOO_COMPLEX]

Pairs = Sequence[tuple[str, str]]
"""(response, gold answer) pairs."""


@runtime_checkable
class Grader(Protocol):
    """What grades responses; `eapo_env.testing.check_grader` tests an implementation."""

    def verify(self, pairs: Pairs) -> Sequence[Verdict]:
        """Return one verdict per (response, gold answer) pair, in order; no text raises."""
        ...

    async def averify(self, pairs: Pairs) -> Sequence[Verdict]:
        """Return what `verify` returns, without blocking the event loop; any number at a time."""
        ...

    def close(self) -> None:
        """Free what the grader holds; may be called twice."""
        ...


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """The grader of mathematical answers: exact numbers at once, the rest by computer algebra.

    A cheap value: it compares by its settings, and copies or pickles without its workers, which
    start on the first check that needs one. Any thread, event loop or forked process may use it.

    Args:
        time_limit_s: CPU time of one check; twice that in wall time is the hard limit.
        memory_limit_bytes: address space of one check.
        num_workers: helper processes, each running one check at a time.

    Raises:
        UserError: a setting that is not positive.
    """

    time_limit_s: float = 1.0
    memory_limit_bytes: int = 2**30
    num_workers: int = 2
    _pool: WorkerPool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("time_limit_s", "memory_limit_bytes", "num_workers"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} must be positive, not {getattr(self, name)!r}")
        pool = WorkerPool(
            cpu_s=self.time_limit_s,
            memory_bytes=self.memory_limit_bytes,
            num_workers=self.num_workers,
        )
        object.__setattr__(self, "_pool", pool)

    def verify(self, pairs: Pairs) -> list[Verdict]:
        """Return one verdict per (response, gold) pair, in order.

        No text raises. A RuntimeError says that the helper process cannot be started at all.
        """
        answers = _answers(pairs)
        return self._completed(answers, _quick_verdicts(answers))

    async def averify(self, pairs: Pairs) -> list[Verdict]:
        """Return what `verify` returns, without blocking the event loop."""
        answers = _answers(pairs)
        verdicts = _quick_verdicts(answers)
        if None not in verdicts:
            return [verdict for verdict in verdicts if verdict]
        return await asyncio.to_thread(self._completed, answers, verdicts)

    def equivalent(self, pairs: Pairs) -> list[Verdict]:
        r"""Return one verdict per (answer, gold) pair of bare answers, as if each were boxed."""
        return self._completed(pairs, _quick_verdicts(pairs))

    def _completed(self, answers: _Answers, verdicts: Sequence[Verdict | None]) -> list[Verdict]:
        """Return the verdicts, those that are None filled in by a worker."""
        slow = [
            (answer or "", gold)
            for (answer, gold), verdict in zip(answers, verdicts, strict=True)
            if verdict is None
        ]
        outcomes = iter(self._pool.check(slow) if slow else ())
        return [verdict or _VERDICTS[Status(next(outcomes))] for verdict in verdicts]

    def close(self) -> None:
        """Stop the workers; a later check starts new ones."""
        self._pool.close()

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, tuple[()]]:
        settings = partial(
            Verifier,
            time_limit_s=self.time_limit_s,
            memory_limit_bytes=self.memory_limit_bytes,
            num_workers=self.num_workers,
        )
        return settings, ()


def final_answer(response: str) -> str | None:
    """Return the answer that is checked: what the response commits to, else its closing claim."""
    answer = extract_answer(response)
    return closing_claim(response) if answer is None else answer


def check_gold(answer: str) -> None:
    """Accept a gold answer that responses can be checked against; instant for numbers.

    Raises:
        UserError: an empty answer, one beyond the static limits, or unbalanced brackets.
    """
    text = canonical(answer) if len(answer) <= MAX_ANSWER_CHARS else ""
    if not any(character.isalnum() for character in text):
        raise UserError(f"no answer can be read in {answer[:200]!r}")
    if exact_scalar(text, text) is None and is_too_complex(text):
        raise UserError(f"too complex to check answers against: {answer[:200]!r}")
    braces = answer.replace("\\{", "").replace("\\}", "")
    if braces.count("{") != braces.count("}"):
        raise UserError(f"unbalanced braces in the answer {answer[:200]!r}")


_Answers = Sequence[tuple[str | None, str]]
"""(final answer, gold answer) pairs; None for a response without an answer."""


def _answers(pairs: Pairs) -> _Answers:
    return [(final_answer(response), gold) for response, gold in pairs]


def _quick_verdicts(answers: _Answers) -> list[Verdict | None]:
    """Return the verdicts that this process can give; None where it takes sympy."""
    return [
        _NO_ANSWER if answer is None else _quick_verdict(answer, gold) for answer, gold in answers
    ]


def _quick_verdict(answer: str, gold: str) -> Verdict | None:
    if gold.isdigit() and gold.isascii() and answer.isdigit() and answer.isascii():
        return _CORRECT if answer.lstrip("0") == gold.lstrip("0") else _WRONG
    if gold.isdigit() and _IS_PROSE.match(answer):
        return _WRONG
    if len(answer) > MAX_ANSWER_CHARS:
        return _CORRECT if answer.strip() == gold.strip() else _TOO_COMPLEX
    return _settled(answer, gold)


@lru_cache(maxsize=1024)
def _settled(answer: str, gold: str) -> Verdict | None:
    a, g = canonical(answer), canonical(gold)
    outcome = equivalent(a, g, exact_scalar)
    if outcome is not None:
        return _CORRECT if outcome else _WRONG
    return _TOO_COMPLEX if any(map(is_too_complex, (answer, a, g))) else None
