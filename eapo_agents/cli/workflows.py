"""What a person sees of workflows (a column a condition), LeaP, and recordings as they grow."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from eapo_agents.cli.evaluate import (
    EvaluationMethod,
    evaluated,
    forget,
    going_on,
    problem_sets,
    show_evaluation,
)
from eapo_agents.cli.options import PRESET_HELP, add_problems, add_settings, preset_config
from eapo_agents.cli.train import CONSOLE
from eapo_agents.evaluation import Evaluation, Report, paired_difference
from eapo_agents.methods import (
    Collection,
    Condition,
    LeapSettings,
    Solution,
    Workflow,
    chat_model_of,
    error_rate,
    forget_unavailable,
    leap_of,
)
from eapo_agents.policies import ChatModel
from eapo_agents.rollouts import derive_seed
from eapo_agents.training import DistillationSettings, ProblemSet, TrainConfig
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands
    from eapo_agents.training import TrainConfig

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
        method = EvaluationMethod(name="LeaP", evaluator=evaluator, subject=asdict(settings))
        show_evaluation(CONSOLE, config, method, sets, file)


async def _evaluations(
    config: TrainConfig,
    methods: Sequence[EvaluationMethod],
    sets: Sequence[ProblemSet],
    folder: Path | None,
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


CONDITIONS = ("alone", "self", "experts", "recorded", "erroneous", "meaningless")


def add_workflows(commands: Commands) -> None:
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
    _add_leap(commands)


def _add_leap(commands: Commands) -> None:
    leap = commands.add_parser("leap", help="parallel paths that learn from each other")
    leap.add_argument("model", help="as of eapo evaluate")
    leap.add_argument("--preset", default="embedded", help=PRESET_HELP)
    leap.add_argument("--paths", type=int, default=16, help="side by side; default: 16")
    leap.add_argument(
        "--block", type=int, default=4096, help="tokens between exchanges; default: 4096"
    )
    leap.add_argument("--summary", type=int, default=256, help="the most tokens of a summary")
    leap.add_argument(
        "--peers", type=int, help="summaries that a path reads; default: 4, or all of fewer peers"
    )
    leap.add_argument("--router", choices=("dispersed", "clustered", "hybrid"), default="dispersed")
    leap.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
    add_problems(leap)
    add_settings(leap)
    leap.set_defaults(command=_leap)


def add_experts(parser: argparse.ArgumentParser) -> None:
    """Add what names experts: `--preset`, `--pool` and `--set`."""
    parser.add_argument("--preset", default="embedded", help=PRESET_HELP)
    parser.add_argument("--pool", help="which served experts: 7B+14B+32B, or 32B x3")
    add_settings(parser)


def _workflow(options: argparse.Namespace) -> int:
    from eapo_agents.methods import Workflow, read_solutions, usual_replies
    from eapo_agents.training import model_config, with_settings

    config = model_config(options.model, preset_config(options.preset, ()))
    config = pooled(with_settings(config, options.set), options.pool)
    usual = usual_replies(config, options.turns)
    workflow = Workflow(
        num_replies=usual if options.replies is None else options.replies,
        turn_budget=options.turns,
        solutions=read_solutions(_there(options.recording)) if options.recording else None,
    )
    conditions = list(dict.fromkeys(options.conditions))
    show_workflow(config, workflow, conditions, options.problems, options.out)
    return 0


def _there(recording: Path) -> Path:
    if not recording.is_file():
        raise UserError(f"there is no recording {recording}: make it with eapo record-experts")
    return recording


def _record(options: argparse.Namespace) -> int:

    config = pooled(preset_config(options.preset, options.set), options.pool)
    record_experts(config, options.problems, options.file, options.samples, options.timeout)
    return 0


def _leap(options: argparse.Namespace) -> int:
    from eapo_agents.methods import LeapSettings
    from eapo_agents.training import model_config, with_settings

    settings = LeapSettings(
        paths=options.paths,
        block_tokens=options.block,
        summary_tokens=options.summary,
        peers=max(1, min(4, options.paths - 1)) if options.peers is None else options.peers,
        router=options.router,
    )
    config = model_config(options.model, preset_config(options.preset, ()))
    show_leap(with_settings(config, options.set), settings, options.problems, options.json)
    return 0


def pooled(config: TrainConfig, pool: str | None) -> TrainConfig:
    """Return the config with the experts of `--pool`; unchanged without it."""
    from eapo_agents.methods import with_pool

    return config if pool is None else with_pool(config, pool)
