"""placeholder: public interface of the verifier (being completed)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from eapo_env.answers import extract_answer


class Status(StrEnum):
    """How a check ended."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"
    TOO_COMPLEX = "too_complex"
    TIMEOUT = "timeout"
    MEMORY = "memory"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of one check."""

    status: Status

    @property
    def correct(self) -> bool:
        """Whether the answer was found to be right."""
        return self.status is Status.CORRECT


def check_gold(answer: str) -> None:
    """Raise ValueError when `answer` cannot serve as a gold answer."""
    if not answer.strip():
        raise ValueError(f"not a verifiable gold answer: {answer!r}")


@dataclass(frozen=True, kw_only=True)
class Verifier:
    """Checks answers."""

    time_limit_s: float = 2.0
    memory_limit_bytes: int = 2**30
    num_workers: int = 2

    def verify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Return one verdict per (response, gold) pair."""
        verdicts = []
        for response, gold in pairs:
            answer = extract_answer(response)
            if answer is None:
                verdicts.append(Verdict(Status.NO_ANSWER))
            elif answer.lstrip("0") == gold.strip().lstrip("0"):
                verdicts.append(Verdict(Status.CORRECT))
            else:
                verdicts.append(Verdict(Status.WRONG))
        return verdicts

    async def averify(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """Return one verdict per (response, gold) pair, without blocking the event loop."""
        return await asyncio.to_thread(self.verify, pairs)

    def close(self) -> None:
        """Stop the workers."""

    def __enter__(self) -> Verifier:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
