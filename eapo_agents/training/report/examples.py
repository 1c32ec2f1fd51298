"""One recorded transcript of each paradigm, chosen by a rule, as a person can read it.

The rule: the right answer of that paradigm in the newest step that recorded one, the first of the
step in the file; where no answer of it was right, the newest wrong one. Of several runs, the first
that has a right one, else the first that has any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from eapo_agents.evaluation import escaped, fenced
from eapo_agents.rollouts import Paradigm
from eapo_agents.training.run import Run
from eapo_env.validation import UserError

_SPEAKERS = {
    "user": "**The environment**",
    "assistant": "**The policy**",
    "system": "**The environment, to the system**",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Spoken:
    """A message of a transcript."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """What is shown of a recorded episode; `summary.transcript_row` writes it, and more."""

    problem_id: str
    answer: str
    status: str
    reward: float
    turn_budget: int
    acceptance_rate: float
    messages: list[Spoken]
    consultations: list[list[dict[str, Any]]]


_TRANSCRIPT = TypeAdapter(Transcript)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A recorded episode that shows a paradigm."""

    paradigm: Paradigm
    run: Run
    step: int
    transcript: Transcript

    @property
    def is_right(self) -> bool:
        """Whether its answer was right."""
        return self.transcript.status == "correct"

    def markdown(self) -> str:
        """Return the episode as Markdown: where it stands, and all that was said."""
        row = self.transcript
        queries = [query for consultation in row.consultations for query in consultation]
        accepted = sum(bool(query.get("accepted")) for query in queries)
        facts = (
            f"Run {escaped(self.run.name)}, training step {self.step}, problem"
            f" {escaped(row.problem_id)}; turn budget {row.turn_budget}, acceptance rate"
            f" {row.acceptance_rate:.2f}; queries: {len(queries)}, accepted: {accepted};"
            f" gold answer {escaped(row.answer)}, verdict {escaped(row.status)},"
            f" reward {row.reward:.2f}."
        )
        said = (f"{_speaker(one.role)}\n\n{fenced(one.content)}" for one in row.messages)
        return "\n".join([f"{facts}\n", *said])


def _speaker(role: str) -> str:
    return _SPEAKERS.get(role) or f"**Somebody else** ({escaped(role)})"


def examples(runs: Sequence[Run]) -> dict[Paradigm, Example]:
    """Return one example of each paradigm that the runs recorded, by this file's rule.

    Raises:
        UserError: a file of transcripts that holds something else.
    """
    chosen: dict[Paradigm, Example] = {}
    for run in runs:
        for paradigm, example in _examples_of(run).items():
            before = chosen.get(paradigm)
            if before is None or (example.is_right and not before.is_right):
                chosen[paradigm] = example
    return {paradigm: chosen[paradigm] for paradigm in Paradigm if paradigm in chosen}


def _examples_of(run: Run) -> dict[Paradigm, Example]:
    """Return a run's examples; steps are read from the newest back, until all are right."""
    chosen: dict[Paradigm, Example] = {}
    for step, path in reversed(run.transcripts.items()):
        if len(chosen) == len(Paradigm) and all(one.is_right for one in chosen.values()):
            break
        for row in _rows(path):
            if row.get("paradigm") not in list(Paradigm):
                continue  # recorded before episodes were labelled
            paradigm = Paradigm(row["paradigm"])
            before = chosen.get(paradigm)
            if before is None or (row.get("status") == "correct" and not before.is_right):
                transcript = _transcript(row, path)
                chosen[paradigm] = Example(
                    paradigm=paradigm, run=run, step=step, transcript=transcript
                )
    return chosen


def _rows(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                row = json.loads(line)
            except ValueError:
                raise UserError(f"{path}, line {number} is not JSON: {line[:80]!r}") from None
            if not isinstance(row, dict):
                raise UserError(f"{path}, line {number} is no episode: {line[:80]!r}")
            yield row


def _transcript(row: Mapping[str, Any], path: Path) -> Transcript:
    try:
        return _TRANSCRIPT.validate_python(row)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} holds no transcript: {where}: {first['msg']}") from None
