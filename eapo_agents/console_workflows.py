"""What a person sees of the workflows: a table with a row a condition, recordings as they grow."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from eapo_agents.chat_models import chat_model_of, leap_of
from eapo_agents.config import TrainConfig
from eapo_agents.console import CONSOLE
from eapo_agents.evaluate import Report
from eapo_agents.leap import LeapSettings
from eapo_agents.metrics import paired_difference
from eapo_agents.rollout import derive_seed
from eapo_agents.settings import DistillationSettings
from eapo_agents.solutions import Collection, Solution
from eapo_agents.workflows import Condition, Workflow, error_rate
from eapo_env.verifier import Status, Verifier


def show_workflow(
    config: TrainConfig, workflow: Workflow, conditions: Sequence[Condition], file: Path | None
) -> None:
    """Evaluate a model under some conditions; print a row for each; write them to a file."""
    problems = config.evaluation.problems.load()
    reports: dict[str, Report] = {}
    wrong: dict[str, float] = {}
    with chat_model_of(config) as model, asyncio.Runner() as runner:
        for condition in conditions:
            with CONSOLE.status(f"{condition}: {len(problems)} problems"):
                reports[condition] = runner.run(
                    workflow.evaluate(config, model, condition, problems)
                )
            if condition in ("recorded", "erroneous"):
                wrong[condition] = error_rate(
                    workflow.chosen(condition, problems, seed=config.seed)
                )
    show_reports(f"{config.model.path}, with and without experts", reports, wrong)
    if file:
        write_reports(file, config.model.path, reports, wrong)


def show_leap(config: TrainConfig, settings: LeapSettings, file: Path | None) -> None:
    """Evaluate a model whose paths learn from each other; print the report, write it to a file."""
    problems = config.evaluation.problems.load()
    with leap_of(config, settings) as leap, CONSOLE.status(f"LeaP: {len(problems)} problems"):
        report = asyncio.run(
            leap.evaluate(
                problems,
                samples_per_problem=config.evaluation.samples_per_problem,
                seed=derive_seed(config.seed, 2),
            )
        )
    show_reports(f"{config.model.path}, LeaP", {"leap": report}, {})
    if file:
        write_reports(file, config.model.path, {"leap": report}, {})


def show_reports(title: str, reports: Mapping[str, Report], wrong: Mapping[str, float]) -> None:
    """Print a row a report, and each one's difference from the first on the same problems."""
    first = next(iter(reports.values()))
    k = first.samples_per_problem
    drawn = Table(title=f"{title}: {first.num_problems} problems")
    drawn.add_column("")
    columns = [f"mean@{k}", "95% interval", "minus first, 95%", "variance", f"pass@{k}"]
    columns += [f"majority@{k}", "call rate", "tokens", "truncated", "wrong replies"]
    for column in columns:
        drawn.add_column(column, justify="right")
    for name, report in reports.items():
        low, high = report.interval
        drawn.add_row(
            name,
            f"{report.mean_at_k:.3f}",
            f"{low:.3f} to {high:.3f}",
            "-" if report is first else _difference(report, first),
            f"{report.variance:.4f}",
            f"{report.pass_at_k:.3f}",
            f"{report.majority_at_k:.3f}",
            f"{report.call_rate:.3f}",
            f"{report.response_tokens:.1f}",
            f"{report.truncation_rate:.3f}",
            f"{wrong[name]:.3f}" if name in wrong else "-",
        )
    CONSOLE.print(drawn)


def write_reports(
    file: Path, model: str, reports: Mapping[str, Report], wrong: Mapping[str, float]
) -> None:
    """Write the reports, whole, to a JSON file."""
    rows = {name: asdict(report) for name, report in reports.items()}
    for name, rate in wrong.items():
        rows[name]["wrong_replies"] = rate
    text = json.dumps({"model": model, "conditions": rows}, indent=1)
    file.write_text(text + "\n", encoding="utf-8")


def record_experts(config: TrainConfig, file: Path, num_samples: int, timeout_s: float) -> None:
    """Ask the experts for solutions of the held-out problems that a file lacks; verify, append."""
    problems = config.evaluation.problems.load()
    max_tokens = config.rollout.limits.max_response_tokens
    with closing(Verifier()) as verifier, CONSOLE.status("") as status:
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


def _difference(report: Report, first: Report) -> str:
    values, base = (np.mean(r.correct_PK, axis=1) for r in (report, first))
    found = paired_difference(values, base, np.random.default_rng(0))
    return f"{found.mean:+.3f} ({found.interval.low:+.3f} to {found.interval.high:+.3f})"
