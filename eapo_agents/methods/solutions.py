"""[edge] Expert trajectories: experts' whole solutions of problems, verified, in a JSON-lines file.

A run folder keeps them in `solutions.jsonl`, one line a solution, right or wrong. Those in the file
are not asked for again, so that an interrupted collection resumes; failed calls are, after
`forget_unavailable`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path

from eapo_agents.files import validated, write_json_lines
from eapo_agents.rollouts import derive_seed, gather
from eapo_agents.training import DistillationSettings, Run
from eapo_env.experts import ExpertPool
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.json_lines import JsonLines
from eapo_env.openai_experts import OpenAIExperts
from eapo_env.prompts import CUT_MARK, Prompts
from eapo_env.types import ExpertReply, Problem, Query, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader, Status

SOLUTIONS_FILE = "solutions.jsonl"
"""Its name in a run folder."""

_REPLY = {"text", "statement", "turn", "slot"}
"""Columns of the other kind of recording (`eapo_env/recordings.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """An expert's solution of a problem, and the verifier's verdict on it.

    Args:
        problem: the problem's id.
        sample: index of the sample, from 0.
        expert: the expert's name; "" if none answered.
        text: the solution; "" if none answered, or a limit cut it.
        status: the verifier's status, or "unavailable".
        statement: the problem's statement, since ids of two sets can be the same; "" if it is not
            known.
    """

    problem: str
    sample: int
    expert: str
    text: str
    status: str
    statement: str = ""

    def check_is_of(self, problem: Problem) -> None:
        """Raise a `UserError` for another problem of the same id."""
        if self.statement not in ("", problem.statement):
            raise UserError(
                f"the solutions of problem {problem.id!r} are of another problem of this id:"
                f" {self.statement[:80]!r}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SolutionCollector:
    """Collects experts' solutions of problems in a file.

    Args:
        solvers: the experts; each batch has `settings.timeout_s`, unless each call has it.
        verifier: grades the solutions.
        prompts: an expert reads what the policy reads when it is alone.
        settings: number of samples per problem, and of problems at a time.
        seed: random seed of the queries.
        monitor: measures the experts, and warns when they fail.
    """

    solvers: ExpertPool
    verifier: Grader
    prompts: Prompts
    settings: DistillationSettings
    seed: int = 0
    monitor: ExpertMonitor = field(default_factory=ExpertMonitor)

    async def collect(
        self,
        problems: Sequence[Problem],
        path: str | PathLike[str],
        on_problem: Callable[[int, int], None],
    ) -> dict[str, list[Solution]]:
        """Return the solutions of each problem by its id; ask for those that the file lacks.

        Args:
            problems: with distinct ids.
            path: the file.
            on_problem: called with (problems done, problems) at the start and after each problem.

        Raises:
            UserError: a file that holds something else, or cannot be read or written; two problems
                with one id.
        """
        found = read_solutions(path)
        missing = [(n, p, self._missing(p, found.get(p.id, ()))) for n, p in enumerate(problems)]
        if len({problem.id for problem in problems}) < len(problems):
            raise UserError("two problems have one id: record their sets in separate files")
        done = [not samples for _, _, samples in missing]
        on_problem(sum(done), len(problems))
        room = asyncio.Semaphore(self.settings.problems_at_once)

        async def one(number: int, problem: Problem, samples: Sequence[int]) -> None:
            async with room:
                new = await self._solutions(number, problem, samples)
                JsonLines(Path(path)).append(*map(asdict, new))
            found.setdefault(problem.id, []).extend(new)
            done[number] = True
            on_problem(sum(done), len(problems))

        await gather(one(n, problem, samples) for n, problem, samples in missing if samples)
        return {problem.id: self._wanted(found[problem.id]) for problem in problems}

    def _wanted(self, there: Sequence[Solution]) -> list[Solution]:
        """Return the solutions that the settings ask for, of a file that may hold more."""
        wanted = (one for one in there if one.sample < self.settings.samples_per_problem)
        return sorted(wanted, key=lambda one: one.sample)

    def _missing(self, problem: Problem, there: Sequence[Solution]) -> list[int]:
        for solution in there:
            solution.check_is_of(problem)
        samples = {solution.sample for solution in there}
        return [n for n in range(self.settings.samples_per_problem) if n not in samples]

    @property
    def _guarded(self) -> GuardedExperts:
        own = isinstance(self.solvers, OpenAIExperts)  # and calls may have to wait for their turn
        return GuardedExperts(
            inner=self.solvers,
            timeout_s=math.inf if own else self.settings.timeout_s,
            monitor=self.monitor,
        )

    async def _solutions(
        self, number: int, problem: Problem, samples: Sequence[int]
    ) -> list[Solution]:
        seed = derive_seed(self.seed, 3, number)
        text = self.prompts.opening(problem, Rules.alone()).content
        replies = await self._guarded.ask(
            [
                Query(text=text, statement=problem.statement, seed=seed, slot=sample)
                for sample in samples
            ]
        )
        texts = [_whole(reply) for reply in replies]
        verdicts = await self.verifier.averify([(text or "", problem.answer) for text in texts])
        return [
            Solution(
                problem=problem.id,
                sample=sample,
                expert=reply.expert,
                text=text or "",
                status="unavailable" if text is None else str(verdict.status),
                statement=problem.statement,
            )
            for sample, reply, text, verdict in zip(samples, replies, texts, verdicts, strict=True)
        ]


def _whole(reply: ExpertReply) -> str | None:
    """Return the text of a reply; None if there is none, or one that a limit cut."""
    match reply:
        case Reply(text=text) if not text.endswith(CUT_MARK):
            return text
        case _:
            return None


def right_solutions(solutions: Sequence[Solution]) -> list[str]:
    """Return the texts of the right solutions, each text once, in the order of the samples."""
    ordered = sorted(solutions, key=lambda solution: solution.sample)
    return list(dict.fromkeys(s.text for s in ordered if s.status == Status.CORRECT))


def read_solutions(path: str | PathLike[str]) -> dict[str, list[Solution]]:
    """Return the solutions in a file by problem; empty without a file.

    A last line that a crash cut short is left out.

    Raises:
        UserError: an invalid line; the file and the line are named.
    """
    found: dict[str, list[Solution]] = {}
    for place, row in JsonLines(Path(path)).read_with_places():
        if isinstance(row, dict) and row.keys() >= _REPLY:
            raise UserError(
                f"{path} holds replies to queries, as RecordingExperts writes them, not solutions"
                " of whole problems: use it by experts.kind=replay and experts.recording"
            )
        solution: Solution = validated(row, Solution, place)
        found.setdefault(solution.problem, []).append(solution)
    return found


def check_recording(path: Path) -> None:
    """Raise a UserError if there is no such recording."""
    if not path.is_file():
        raise UserError(f"there is no recording {path}: make it with eapo record-experts")


def add_solutions(recording: Path, run: Run) -> None:
    """Give a run the recorded solutions that it lacks.

    Raises:
        UserError: there is no such file, or as `read_solutions`.
    """
    check_recording(recording)
    path = run.folder / SOLUTIONS_FILE
    there = {
        (one.problem, one.sample) for of_one in read_solutions(path).values() for one in of_one
    }
    new = [one for of_one in read_solutions(recording).values() for one in of_one]
    rows = [asdict(one) for one in new if (one.problem, one.sample) not in there]
    if rows:
        JsonLines(path).append(*rows)


def forget_unavailable(path: str | PathLike[str]) -> None:
    """Remove failed expert calls from a file of solutions, so that they are asked again.

    Raises:
        UserError: as `read_solutions`.
    """
    found = [solution for of_one in read_solutions(path).values() for solution in of_one]
    kept = [solution for solution in found if solution.status != "unavailable"]
    if kept != found:
        write_json_lines(Path(path), map(asdict, kept))
