"""What a person sees of workflows (a column a condition), LeaP, and recordings as they grow."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from eapo_agents.chat_model import ChatModel
from eapo_agents.chat_models import chat_model_of, leap_of
from eapo_agents.config import TrainConfig
from eapo_agents.console import CONSOLE
from eapo_agents.console_evaluation import (
    Method,
    evaluated,
    forget,
    going_on,
    problem_sets,
    show_evaluation,
)
from eapo_agents.evaluate import Report
from eapo_agents.evaluations import Evaluation, ProblemSet
from eapo_agents.leap import LeapSettings
from eapo_agents.metrics import paired_difference
from eapo_agents.rollout import derive_seed
from eapo_agents.settings import DistillationSettings
from eapo_agents.solutions import Collection, Solution, forget_unavailable
from eapo_agents.workflows import Condition, Workflow, error_rate
from eapo_env.verifier import Status, Verifier

_TOLERATED = 0.1
"""The share of queries without an answer from which on it is said aloud."""


def show_workflow(
    config: TrainConfig,
    workflow: Workflow,
    conditions: Sequence[Condition],
    sources: Sequence[str],
    folder: Path | None,
) -> None:
    """Evaluate a model under some conditions; print a column for each.

    With a folder, each condition is an evaluation in a file of its own there, `CONDITION.json`;
    what is finished is kept beside it until the last condition ends.
    """
    sets = problem_sets(config, sources)
    with going_on(CONSOLE, folder), chat_model_of(config) as model:
        methods = [_method(config, workflow, model, condition, sets) for condition in conditions]
        evaluations = asyncio.run(_evaluations(config, methods, sets, folder))
    for name in (one.name for one in sets):
        CONSOLE.print(_table(f"{config.model.path}, with and without experts", name, evaluations))
        for told in _silences(name, evaluations):
            CONSOLE.print(told, style="bold", markup=False)


def show_leap(
    config: TrainConfig, settings: LeapSettings, sources: Sequence[str], file: Path | None
) -> None:
    """Evaluate a model whose paths learn from each other; print the report, write it to a file."""
    sets = problem_sets(config, sources)
    with leap_of(config, settings) as leap:
        evaluator = partial(
            leap.evaluate,
            samples_per_problem=config.evaluation.samples_per_problem,
            seed=derive_seed(config.seed, 2),
        )
        method = Method(name="LeaP", evaluator=evaluator, subject=asdict(settings))
        show_evaluation(CONSOLE, config, method, sets, file)


async def _evaluations(
    config: TrainConfig, methods: Sequence[Method], sets: Sequence[ProblemSet], folder: Path | None
) -> dict[str, Evaluation]:
    files = {one.name: folder / f"{one.name}.json" if folder else None for one in methods}
    evaluations = {
        one.name: await evaluated(CONSOLE, config, one, sets, files[one.name]) for one in methods
    }
    for file in files.values():
        forget(file)
    return evaluations


def _method(
    config: TrainConfig,
    workflow: Workflow,
    model: ChatModel,
    condition: Condition,
    sets: Sequence[ProblemSet],
) -> Method:
    drawn = {
        one.name: workflow.chosen(condition, one.problems, seed=config.seed)
        for one in sets
        if condition in ("recorded", "erroneous")
    }
    return Method(
        name=condition,
        evaluator=partial(workflow.evaluate, config, model, condition),
        subject={
            "num_replies": workflow.num_replies,
            "turn_budget": workflow.turn_budget,
            "experts": asdict(config.experts),
            "drawn": [_drawn(s) for rows in drawn.values() for row in rows for s in row],
        },
        wrong_replies={name: error_rate(rows) for name, rows in drawn.items()},
    )


def _drawn(solution: Solution) -> list[object]:
    digest = hashlib.sha256(solution.text.encode("utf-8", "surrogatepass")).hexdigest()
    return [solution.expert, solution.sample, digest]


def _table(title: str, set_name: str, evaluations: Mapping[str, Evaluation]) -> Table:
    """Return a column an evaluation, with its difference from the first on the same problems."""
    first = next(iter(evaluations.values())).reports[set_name]
    drawn = Table(title=f"{title}: {set_name}, {first.num_problems} problems")
    drawn.add_column("")
    for name in evaluations:
        drawn.add_column(name, justify="right")
    columns = [_column(one, set_name, first) for one in evaluations.values()]
    for row in columns[0]:
        drawn.add_row(row, *(column[row] for column in columns))
    return drawn


def _column(evaluation: Evaluation, set_name: str, first: Report) -> dict[str, str]:
    report, k = evaluation.reports[set_name], first.samples_per_problem
    low, high = report.interval
    wrong = evaluation.wrong_replies.get(set_name)
    return {
        f"mean@{k}": f"{report.mean_at_k:.3f}",
        "95% interval": f"{low:.3f} to {high:.3f}",
        **_difference(report, first),
        "variance": f"{report.variance:.4f}",
        f"pass@{k}": f"{report.pass_at_k:.3f}",
        f"majority@{k}": f"{report.majority_at_k:.3f}",
        "call rate": f"{report.call_rate:.3f}",
        "response tokens": f"{report.response_tokens:.1f}",
        "truncation rate": f"{report.truncation_rate:.3f}",
        "unanswered queries": f"{report.unanswered_rate:.3f}",
        "wrong replies": "-" if wrong is None else f"{wrong:.3f}",
    }


def _silences(set_name: str, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return a sentence for each condition whose experts were silent too often to be experts."""
    rates = {name: one.reports[set_name].unanswered_rate for name, one in evaluations.items()}
    return [
        f"{name}, {set_name}: {100 * rate:.0f}% of the queries had no answer; these numbers are"
        " not those of a policy with its experts"
        for name, rate in rates.items()
        if rate > _TOLERATED
    ]


def record_experts(
    config: TrainConfig, sources: Sequence[str], file: Path, num_samples: int, timeout_s: float
) -> None:
    """Ask the experts for the solutions of some problems that a file lacks; verify, append.

    What they did not answer before is asked again.
    """
    problems = [problem for one in problem_sets(config, sources) for problem in one.problems]
    forget_unavailable(file)
    max_tokens = config.rollout.limits.max_response_tokens
    with going_on(CONSOLE, file), closing(Verifier()) as verifier, CONSOLE.status("") as status:
        collection = Collection(
            solvers=config.experts.solvers(max_tokens=max_tokens, timeout_s=timeout_s),
            verifier=verifier,
            prompts=config.rollout.prompts,
            settings=DistillationSettings(samples_per_problem=num_samples, timeout_s=timeout_s),
            seed=config.seed,
        )
        found = asyncio.run(
            collection.collect(
                problems, file, lambda done, total: status.update(f"{done} of {total} problems")
            )
        )
    _show_recording(file, found)


def _show_recording(file: Path, found: Mapping[str, Sequence[Solution]]) -> None:
    statuses = [solution.status for solutions in found.values() for solution in solutions]
    right, missing = (statuses.count(which) for which in (Status.CORRECT, "unavailable"))
    CONSOLE.print(
        f"{file}: {len(statuses)} solutions of {len(found)} problems,"
        f" {right} right, {len(statuses) - right - missing} wrong, {missing} unavailable"
    )
    if missing:
        CONSOLE.print("the same command asks for the unavailable ones again", markup=False)


def _difference(report: Report, first: Report) -> dict[str, str]:
    values, base = (np.mean(r.correct_PK, axis=1) for r in (report, first))
    found = paired_difference(values, base, np.random.default_rng(0))
    low, high = found.interval
    shown = (f"{found.mean:+.3f}", f"{low:+.3f} to {high:+.3f}")
    return dict(
        zip(
            ("minus first", "its 95% interval"),
            ("-", "-") if report is first else shown,
            strict=True,
        )
    )
