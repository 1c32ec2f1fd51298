"""One policy on several sets of problems; with a journal, an interrupted evaluation resumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from eapo_agents.evaluation.evaluator import Evaluator, Graded, ProblemResult
from eapo_agents.evaluation.journal import Evaluation, Journal
from eapo_env.types import Problem


async def evaluate_sets(
    evaluator: Evaluator,
    sets: Mapping[str, Sequence[Problem]],
    *,
    name: str,
    wrong_replies: Mapping[str, float] | None = None,
    journal: Journal | None = None,
    on_result: Callable[[str, ProblemResult], None] = lambda set_name, result: None,
    on_attempts: Callable[[str, Sequence[Graded]], None] = lambda set_name, attempts: None,
) -> Evaluation:
    """Return the reports of one policy on several sets of problems.

        journal = Journal.open(Path("alone.partial"), {"model": "my-model", "seed": 0})
        alone = partial(evaluate, rollout, samples_per_problem=32)
        evaluation = await evaluate_sets(alone, {"aime": problems}, name="alone", journal=journal)

    Args:
        evaluator: makes the report on one set.
        sets: the problems, by the names of the sets.
        name: of the evaluation.
        wrong_replies: as in `Evaluation`.
        journal: where each finished problem is recorded; those already in it are not evaluated
            again.
        on_result: called with the name of the set and each new result.
        on_attempts: called before that with the name and the episodes of the problem.

    Raises:
        UserError: a set without problems, or another error of the evaluator.
    """
    reports = {}
    for set_name, problems in sets.items():

        def record(result: ProblemResult, set_name: str = set_name) -> None:
            if journal:
                journal.append(set_name, result)
            on_result(set_name, result)

        done = journal.results.get(set_name, ()) if journal else ()
        reports[set_name] = await evaluator(
            problems, done=done, on_result=record, on_attempts=partial(on_attempts, set_name)
        )
    return Evaluation(name=name, reports=reports, wrong_replies=wrong_replies or {})
