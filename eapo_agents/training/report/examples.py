"""One example transcript of each paradigm, as readable Markdown, chosen by a fixed rule.

The rule: the first episode with a correct answer in the newest step that has one; without any, the
first episode of the newest step. Of several runs: the first one with a correct answer, else the
first one with any episode.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from eapo_agents.evaluation import escaped, fenced
from eapo_agents.rollouts import Paradigm
from eapo_agents.training.report.transcripts import Transcript, transcript, transcript_rows_in
from eapo_agents.training.run_folder import Run

_SPEAKERS = {
    "user": "**The environment**",
    "assistant": "**The policy**",
    "system": "**The environment, to the system**",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A recorded episode that is the example of a paradigm."""

    paradigm: Paradigm
    run: Run
    step: int
    transcript: Transcript

    @property
    def is_correct(self) -> bool:
        """Whether its answer is correct."""
        return self.transcript.status == "correct"

    def markdown(self) -> str:
        """Return the episode as Markdown: its run, step and numbers, then every message."""
        row = self.transcript
        queries = [query for consultation in row.consultations for query in consultation]
        accepted = sum(query.accepted for query in queries)
        facts = (
            f"Run {escaped(self.run.name)}, training step {self.step}, problem"
            f" {escaped(row.problem_id)}; turn budget {row.turn_budget}, acceptance rate"
            f" {row.acceptance_rate:.2f}; queries: {len(queries)}, accepted: {accepted};"
            f" gold answer {escaped(row.answer)}, verdict {escaped(row.status)},"
            f" reward {row.reward:.2f}."
        )
        messages = (f"{_speaker(one.role)}\n\n{fenced(one.content)}" for one in row.messages)
        return "\n".join([f"{facts}\n", *messages])


def _speaker(role: str) -> str:
    return _SPEAKERS.get(role) or f"**Unknown role** ({escaped(role)})"


def examples(runs: Sequence[Run]) -> dict[Paradigm, Example]:
    """Return an example of each paradigm that the runs recorded, by this file's rule.

    Raises:
        UserError: an invalid file of transcripts.
    """
    chosen: dict[Paradigm, Example] = {}
    for run in runs:
        for paradigm, example in _examples_of(run).items():
            before = chosen.get(paradigm)
            if before is None or (example.is_correct and not before.is_correct):
                chosen[paradigm] = example
    return {paradigm: chosen[paradigm] for paradigm in Paradigm if paradigm in chosen}


def _examples_of(run: Run) -> dict[Paradigm, Example]:
    """Return a run's examples; reads steps from the newest back until all are correct."""
    chosen: dict[Paradigm, Example] = {}
    for step, path in reversed(run.transcripts.items()):
        if len(chosen) == len(Paradigm) and all(one.is_correct for one in chosen.values()):
            break
        for row in transcript_rows_in(path):
            if row.get("paradigm") not in list(Paradigm):
                continue  # recorded before episodes were labelled
            paradigm = Paradigm(row["paradigm"])
            before = chosen.get(paradigm)
            if before is None or (row.get("status") == "correct" and not before.is_correct):
                chosen[paradigm] = Example(
                    paradigm=paradigm, run=run, step=step, transcript=transcript(row, path)
                )
    return chosen
