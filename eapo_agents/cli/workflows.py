"""`eapo workflow`, a model with experts and without training; `eapo record-experts` for it."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import evaluation, methods, training
from eapo_agents.cli.console import hint_on_interrupt, new_console
from eapo_agents.cli.evaluate import (
    EvaluationFiles,
    EvaluationMethod,
    evaluated,
    problem_sets,
    remove_journal,
)
from eapo_agents.cli.options import (
    add_experts,
    add_problems,
    model_config,
    preset_config,
    with_pool,
)

if TYPE_CHECKING:
    from rich.console import Console

    from eapo_agents.cli.options import Commands
    from eapo_agents.evaluation import Evaluation, Report
    from eapo_agents.policies import ChatModel

CONDITIONS = ("alone", "self", "experts", "recorded", "erroneous", "meaningless")

_TOLERATED = 0.1
"""The highest share of queries without an answer that is not pointed out."""


def add(commands: Commands) -> None:
    """Add the commands."""
    workflow = commands.add_parser("workflow", help="a model with experts, without training")
    workflow.add_argument("model", help="as of eapo evaluate")
    workflow.add_argument(
        "conditions",
        nargs="+",
        choices=CONDITIONS,
        metavar="CONDITION",
        help=f"one or several of {', '.join(CONDITIONS)}",
    )
    workflow.add_argument(
        "--replies",
        type=int,
        help="experts asked about the whole problem, in parallel; default: 3, or the 1 that"
        " the embedded model knows",
    )
    workflow.add_argument("--turns", type=int, help="let the model consult as it likes, so long")
    workflow.add_argument("--recording", type=Path, help="what eapo record-experts wrote")
    workflow.add_argument("--out", type=Path, metavar="FOLDER", help="an evaluation a condition")
    workflow.add_argument(
        "--transcripts",
        type=Path,
        metavar="FOLDER",
        help="every episode, a file a condition",
    )
    add_problems(workflow)
    add_experts(workflow)
    workflow.set_defaults(command=_workflow)

    record = commands.add_parser("record-experts", help="record experts' solutions, verified")
    record.add_argument(
        "file", type=Path, help="JSONL; answers that stand there are not asked again"
    )
    record.add_argument("--samples", type=int, default=32, help="solutions a problem")
    record.add_argument("--timeout", type=float, default=1800.0, help="seconds for one solution")
    add_problems(record)
    add_experts(record)
    record.set_defaults(command=_record)


def _workflow(options: argparse.Namespace) -> int:
    """Evaluate a model under some conditions; print a column for each.

    With a folder, each condition is an evaluation in a file there, `CONDITION.json`; journals are
    kept beside them until the last condition ends.
    """
    config = with_pool(model_config(options), options.pool)
    usual = methods.usual_replies(config, options.turns)
    workflow = methods.Workflow(
        num_replies=usual if options.replies is None else options.replies,
        turn_budget=options.turns,
        solutions=_solutions(options.recording) if options.recording else None,
    )
    conditions = list(dict.fromkeys(options.conditions))
    sets, console = problem_sets(config, options.problems), new_console()
    with hint_on_interrupt(console, options.out), methods.chat_model_of(config) as model:
        chosen = [_method(config, workflow, model, condition, sets) for condition in conditions]
        files = {
            one.name: EvaluationFiles(
                report=options.out and options.out / f"{one.name}.json",
                transcripts=options.transcripts and options.transcripts / f"{one.name}.jsonl",
            )
            for one in chosen
        }
        evaluations = asyncio.run(_evaluations(console, config, chosen, sets, files))
    for name in (one.name for one in sets):
        title = f"{config.model.path}, with and without experts"
        console.print(_table(title, name, evaluations).rich())
        for message in _silences(name, evaluations):
            console.print(message, style="bold", markup=False)
    return 0


def _solutions(recording: Path) -> Mapping[str, Sequence[methods.Solution]]:
    methods.check_recording(recording)
    return methods.read_solutions(recording)


async def _evaluations(
    console: Console,
    config: training.TrainConfig,
    chosen: Sequence[EvaluationMethod],
    sets: Sequence[training.ProblemSet],
    files: Mapping[str, EvaluationFiles],
) -> dict[str, Evaluation]:
    evaluations = {
        one.name: await evaluated(console, config, one, sets, files[one.name]) for one in chosen
    }
    for file in files.values():
        remove_journal(file.report)
    return evaluations


def _method(
    config: training.TrainConfig,
    workflow: methods.Workflow,
    model: ChatModel,
    condition: methods.Condition,
    sets: Sequence[training.ProblemSet],
) -> EvaluationMethod:
    drawn = {
        one.name: workflow.chosen(condition, one.problems, seed=config.seed)
        for one in sets
        if condition in ("recorded", "erroneous")
    }
    return EvaluationMethod(
        name=condition,
        evaluator=partial(workflow.evaluate, config, model, condition),
        subject={
            "num_replies": workflow.num_replies,
            "turn_budget": workflow.turn_budget,
            "drawn": [_digest(s) for rows in drawn.values() for row in rows for s in row],
        },
        wrong_replies={name: methods.error_rate(rows) for name, rows in drawn.items()},
    )


def _digest(solution: methods.Solution) -> list[object]:
    digest = hashlib.sha256(solution.text.encode("utf-8", "surrogatepass")).hexdigest()
    return [solution.expert, solution.sample, digest]


def _table(title: str, set_name: str, evaluations: Mapping[str, Evaluation]) -> evaluation.Table:
    """Return a column an evaluation, with its difference from the first on the same problems."""
    first = next(iter(evaluations.values())).reports[set_name]
    columns = [_column(one, set_name, first) for one in evaluations.values()]
    return evaluation.Table(
        title=f"{title}: {set_name}, {first.num_problems} problems",
        header=["", *evaluations],
        rows=[[row, *(column[row] for column in columns)] for row in columns[0]],
    )


def _column(found: Evaluation, set_name: str, first: Report) -> dict[str, str]:
    report, k = found.reports[set_name], first.samples_per_problem
    low, high = report.interval
    wrong = found.wrong_replies.get(set_name)
    return {
        f"mean@{k}": f"{report.mean_at_k:.3f}",
        "95% interval": f"{low:.3f} to {high:.3f}",
        **_difference(report, first),
        "variance": f"{report.variance:.4f}",
        f"pass@{k}": f"{report.pass_at_k:.3f}",
        f"majority@{k}": f"{report.majority_at_k:.3f}",
        "call rate": f"{report.call_rate:.3f}",
        "response tokens": f"{report.response_tokens:.1f}",
        "no final answer": f"{report.no_answer_rate:.3f}",
        "malformed turns": f"{report.malformed_rate:.3f}",
        "cut by a limit": f"{report.truncation_rate:.3f}",
        "unanswered queries": f"{report.unanswered_rate:.3f}",
        "wrong replies": "-" if wrong is None else f"{wrong:.3f}",
    }


def _difference(report: Report, first: Report) -> dict[str, str]:
    import numpy as np

    if report is first:
        return {"minus first": "-", "its 95% interval": "-"}
    values, base = (np.mean(r.correct_PK, axis=1) for r in (report, first))
    found = evaluation.paired_difference(values, base, np.random.default_rng(0))
    low, high = found.interval
    return {"minus first": f"{found.mean:+.3f}", "its 95% interval": f"{low:+.3f} to {high:+.3f}"}


def _silences(set_name: str, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return a sentence for each condition whose experts left too many queries unanswered."""
    rates = {name: one.reports[set_name].unanswered_rate for name, one in evaluations.items()}
    return [
        f"{name}, {set_name}: {100 * rate:.0f}% of the queries had no answer; these numbers are"
        " not those of a policy with its experts"
        for name, rate in rates.items()
        if rate > _TOLERATED
    ]


def _record(options: argparse.Namespace) -> int:
    """Ask the experts for the solutions of some problems that a file lacks; verify, append.

    What they did not answer before is asked again.
    """
    config = with_pool(preset_config(options.preset or "embedded", options.set), options.pool)
    config.experts.check()
    sets = problem_sets(config, options.problems)
    problems = [problem for one in sets for problem in one.problems]
    file: Path = options.file
    methods.forget_unavailable(file)
    console, max_tokens = new_console(), config.rollout.limits.max_response_tokens
    settings = training.DistillationSettings(
        samples_per_problem=options.samples, timeout_s=options.timeout
    )
    with (
        hint_on_interrupt(console, file),
        closing(config.verifier.build()) as verifier,
        console.status("") as status,
    ):
        collection = methods.SolutionCollector(
            solvers=config.experts.solvers(max_tokens=max_tokens, timeout_s=options.timeout),
            verifier=verifier,
            prompts=training.prompts_of(config),
            settings=settings,
            seed=config.seed,
        )
        found = asyncio.run(
            collection.collect(
                problems, file, lambda done, total: status.update(f"{done} of {total} problems")
            )
        )
    _show_recording(console, file, found)
    return 0


def _show_recording(
    console: Console, file: Path, found: Mapping[str, Sequence[methods.Solution]]
) -> None:
    from eapo_env.verifier import Status

    statuses = [solution.status for solutions in found.values() for solution in solutions]
    right, missing = (statuses.count(which) for which in (Status.CORRECT, "unavailable"))
    console.print(
        f"{file}: {len(statuses)} solutions of {len(found)} problems,"
        f" {right} right, {len(statuses) - right - missing} wrong, {missing} unavailable"
    )
    if missing:
        console.print("the same command asks for the unavailable ones again", markup=False)
