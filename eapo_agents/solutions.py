"""[edge] Expert trajectories: whole solutions of problems, asked for once, verified, written down.

A run folder keeps them in `solutions.jsonl`, one line a solution, right or wrong. What stands there
is not asked for again, so an interrupted collection goes on where it was.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from eapo_agents.rollout import derive_seed, gather
from eapo_agents.settings import DistillationSettings
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Query, Reply, Rules
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
    """

    problem: str
    sample: int
    expert: str
    text: str
    status: str


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
            ValueError: a file that holds something else.
            OSError: a file that cannot be read or written.
        """
        found = read_solutions(path)
        missing = [(n, p) for n, p in enumerate(problems) if p.id not in found]
        on_problem(len(found), len(problems))
        room = asyncio.Semaphore(self.settings.problems_at_once)

        async def one(number: int, problem: Problem) -> None:
            async with room:
                found[problem.id] = await self._solutions(number, problem)
                _append(path, found[problem.id])
            on_problem(len(found), len(problems))

        await gather(one(number, problem) for number, problem in missing)
        return {problem.id: found[problem.id] for problem in problems}

    async def _solutions(self, number: int, problem: Problem) -> list[Solution]:
        seed = derive_seed(self.seed, 3, number)
        text = self.prompts.opening(problem, Rules.alone()).content
        replies = await self.solvers.ask(
            [
                Query(text=text, statement=problem.statement, seed=seed, slot=sample)
                for sample in range(self.settings.samples_per_problem)
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
            )
            for sample, (reply, text, verdict) in enumerate(
                zip(replies, texts, verdicts, strict=True)
            )
        ]


def right_solutions(solutions: Sequence[Solution]) -> list[str]:
    """Return the texts of the right solutions, each text once, in the order of the samples."""
    ordered = sorted(solutions, key=lambda solution: solution.sample)
    return list(dict.fromkeys(s.text for s in ordered if s.status == Status.CORRECT))


def read_solutions(path: Path) -> dict[str, list[Solution]]:
    """Return the solutions in a file by problem; empty without a file.

    A last line that a crash cut short is removed from the file, with its problem's other lines.

    Raises:
        ValueError: a line that holds no solution; the file and the line are named.
    """
    lines = path.read_bytes().split(b"\n") if path.exists() else [b""]
    found: dict[str, list[Solution]] = {}
    for number, line in enumerate(lines[:-1], start=1):
        try:
            solution = Solution(**json.loads(line))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: not a solution ({error})") from None
        found.setdefault(solution.problem, []).append(solution)
    if lines[-1]:
        found.pop(next(reversed(found), ""), None)
        path.write_text("".join(map(_lines, found.values())), encoding="utf-8")
    return found


def _append(path: Path, solutions: Sequence[Solution]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(_lines(solutions))


def _lines(solutions: Sequence[Solution]) -> str:
    return "".join(json.dumps(asdict(solution)) + "\n" for solution in solutions)
