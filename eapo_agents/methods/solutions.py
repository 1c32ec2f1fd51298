"""[edge] Expert trajectories: whole solutions of problems, asked for once, verified, written down.

A run folder keeps them in `solutions.jsonl`, one line a solution, right or wrong. What stands there
is not asked for again, so an interrupted collection goes on where it was; what never came is, after
`forget_unavailable`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eapo_agents.files import validated
from eapo_agents.rollouts import derive_seed, gather
from eapo_agents.training import DistillationSettings
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Query, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """What an expert wrote about a problem, and the verifier's verdict on it.

    Args:
        problem: the problem's id.
        sample: which of its samples.
        expert: the expert's name; empty if none answered.
        text: the solution; empty if none came.
        status: the verifier's status, or "unavailable".
        statement: the problem's statement, since ids of two sets can be the same; "" where nobody
            wrote it down.
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
class Collection:
    """How solutions are collected.

    Args:
        solvers: the experts.
        prompts: the wording; an expert reads what the policy reads when it is alone.
        settings: how many.
        seed: of the queries, and so of the experts' luck.
    """

    solvers: ExpertPool
    verifier: Verifier
    prompts: Prompts
    settings: DistillationSettings
    seed: int = 0

    async def collect(
        self, problems: Sequence[Problem], path: Path, on_problem: Callable[[int, int], None]
    ) -> dict[str, list[Solution]]:
        """Return the solutions of each problem by its id; ask for those that the file lacks.

        `on_problem` is told, after each problem, how many are done, and of how many.

        Raises:
            UserError: a file that holds something else, or two problems of one id.
            OSError: a file that cannot be read or written.
        """
        found = read_solutions(path)
        missing = [(n, p, self._missing(p, found.get(p.id, ()))) for n, p in enumerate(problems)]
        if len({problem.id for problem in problems}) < len(problems):
            raise UserError("two problems have one id: record their sets in files of their own")
        done = [not samples for _, _, samples in missing]
        on_problem(sum(done), len(problems))
        room = asyncio.Semaphore(self.settings.problems_at_once)

        async def one(number: int, problem: Problem, samples: Sequence[int]) -> None:
            async with room:
                new = await self._solutions(number, problem, samples)
                _append(path, new)
            found.setdefault(problem.id, []).extend(new)
            done[number] = True
            on_problem(sum(done), len(problems))

        await gather(one(n, problem, samples) for n, problem, samples in missing if samples)
        return {p.id: sorted(found[p.id], key=lambda one: one.sample) for p in problems}

    def _missing(self, problem: Problem, there: Sequence[Solution]) -> list[int]:
        for solution in there:
            solution.check_is_of(problem)
        samples = {solution.sample for solution in there}
        return [n for n in range(self.settings.samples_per_problem) if n not in samples]

    async def _solutions(
        self, number: int, problem: Problem, samples: Sequence[int]
    ) -> list[Solution]:
        seed = derive_seed(self.seed, 3, number)
        text = self.prompts.opening(problem, Rules.alone()).content
        replies = await self.solvers.ask(
            [
                Query(text=text, statement=problem.statement, seed=seed, slot=sample)
                for sample in samples
            ]
        )
        texts = [reply.text if isinstance(reply, Reply) else "" for reply in replies]
        verdicts = await self.verifier.averify([(text, problem.answer) for text in texts])
        return [
            Solution(
                problem=problem.id,
                sample=sample,
                expert=reply.expert,
                text=text,
                status=str(verdict.status) if isinstance(reply, Reply) else "unavailable",
                statement=problem.statement,
            )
            for sample, reply, text, verdict in zip(samples, replies, texts, verdicts, strict=True)
        ]


def right_solutions(solutions: Sequence[Solution]) -> list[str]:
    """Return the texts of the right solutions, each text once, in the order of the samples."""
    ordered = sorted(solutions, key=lambda solution: solution.sample)
    return list(dict.fromkeys(s.text for s in ordered if s.status == Status.CORRECT))


def read_solutions(path: Path) -> dict[str, list[Solution]]:
    """Return the solutions in a file by problem; empty without a file.

    A last line that a crash cut short is removed from the file.

    Raises:
        UserError: a line that holds no solution; the file and the line are named.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    found: dict[str, list[Solution]] = {}
    for number, line in enumerate(lines[:-1], start=1):
        try:
            solution: Solution = validated(json.loads(line), Solution, "it")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a solution ({error})") from None
        found.setdefault(solution.problem, []).append(solution)
    if lines[-1]:
        _rewrite(path, found)
    return found


def forget_unavailable(path: Path) -> None:
    """Remove from a file what experts did not answer, so that they are asked again.

    Raises:
        UserError: as `read_solutions`.
    """
    found = read_solutions(path)
    there = {id: [s for s in of if s.status != "unavailable"] for id, of in found.items()}
    if there != found:
        _rewrite(path, there)


def _append(path: Path, solutions: Sequence[Solution]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(solutions))


def _rewrite(path: Path, found: Mapping[str, Sequence[Solution]]) -> None:
    """Replace the file in one stroke: what experts worked out is never lost on the way."""
    beside = path.with_name(f".unfinished-{path.name}")
    beside.write_text("".join(map(_lines, found.values())), encoding="utf-8")
    beside.replace(path)


def _lines(solutions: Sequence[Solution]) -> str:
    return "".join(json.dumps(asdict(solution)) + "\n" for solution in solutions)
