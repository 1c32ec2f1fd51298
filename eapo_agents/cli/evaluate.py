"""`eapo evaluate`: a model without experts on held-out problems; the table of all metrics.

`eapo workflow` and `eapo leap` evaluate and print the same way, by other methods.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from eapo_agents import evaluation, methods, training
from eapo_agents.cli.console import hint_on_interrupt, new_console, progress_bars
from eapo_agents.cli.options import (
    MODEL_HELP,
    add_preset,
    add_problems,
    add_report_file,
    add_settings,
    model_config,
)
from eapo_agents.cli.transcripts import Transcripts, add_transcripts

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    evaluate = commands.add_parser("evaluate", help="evaluate a model alone on held-out problems")
    evaluate.add_argument("model", help=MODEL_HELP)
    add_preset(evaluate)
    add_report_file(evaluate)
    add_transcripts(evaluate)
    add_problems(evaluate)
    add_settings(evaluate)
    evaluate.set_defaults(command=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    config = model_config(options)
    sets = problem_sets(config, options.problems)
    with methods.player_of(config) as player:
        evaluator = partial(training.evaluate_alone, config, player)
        alone = EvaluationMethod(name="alone", evaluator=evaluator)
        files = EvaluationFiles(report=options.json, transcripts=options.transcripts)
        show_evaluation(new_console(), config, alone, sets, files)
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationFiles:
    """The files that an evaluation writes.

    Args:
        report: the reports of all sets; the journal stands beside it until they are there.
        transcripts: every episode.
    """

    report: Path | None = None
    transcripts: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationMethod:
    """How a model is evaluated.

    Args:
        name: of the method, as "alone".
        evaluator: makes the reports.
        subject: what they depend on beside the config and the problems; JSON-ready.
        wrong_replies: as in `Evaluation`.
    """

    name: str
    evaluator: evaluation.Evaluator
    subject: Mapping[str, object] = field(default_factory=dict)
    wrong_replies: Mapping[str, float] = field(default_factory=dict)


def problem_sets(config: training.TrainConfig, sources: Sequence[str]) -> list[training.ProblemSet]:
    """Return the sets of `--problems`, or the config's held-out problems without it.

    Raises:
        UserError: problems that cannot be read, or two sets of one name.
    """
    held_out = config.evaluation.problems
    sets = [training.ProblemSet.named(source, held_out) for source in sources or (held_out.source,)]
    training.check_distinct(sets)
    return sets


def show_evaluation(
    console: Console,
    config: training.TrainConfig,
    method: EvaluationMethod,
    sets: Sequence[training.ProblemSet],
    files: EvaluationFiles,
) -> evaluation.Evaluation:
    """Evaluate a model on some sets of problems, and print all metrics; see `evaluated`."""
    with hint_on_interrupt(console, files.report):
        found = asyncio.run(evaluated(console, config, method, sets, files))
    remove_journal(files.report)
    console.print(evaluation_table(found).rich())
    return found


async def evaluated(
    console: Console,
    config: training.TrainConfig,
    method: EvaluationMethod,
    sets: Sequence[training.ProblemSet],
    files: EvaluationFiles,
) -> evaluation.Evaluation:
    """Return the evaluation of a model on some sets of problems; show progress and two episodes.

    With a report file, a journal beside it keeps what is finished, and an interrupted evaluation
    resumes; `remove_journal` removes it.

    Raises:
        UserError: the journal beside the file belongs to another evaluation.
    """
    from eapo_agents.files import writing

    journal, json_file = None, files.report
    if json_file:
        subject = training.evaluation_subject(config, sets)
        subject["method"] = {"name": method.name, **method.subject}
        journal = evaluation.Journal.open(_journal_path(json_file), subject)
    if files.transcripts and not (journal and journal.results):
        with writing(files.transcripts):
            files.transcripts.unlink(missing_ok=True)
    episodes = Transcripts(file=files.transcripts, label={"method": method.name})
    with progress_bars(console, "{task.fields[mean]}") as progress:
        bars = {one.name: _Bar.of(progress, method.name, one, journal) for one in sets}
        found = await evaluation.evaluate_sets(
            method.evaluator,
            {one.name: one.problems for one in sets},
            name=f"{config.model.path}, {method.name}",
            wrong_replies=method.wrong_replies,
            journal=journal,
            on_result=lambda name, result: bars[name].advance(result),
            on_attempts=episodes.add,
        )
    episodes.show(console)
    if json_file:
        evaluation.write_evaluation(found, json_file)
        console.print(f"evaluation: {json_file}")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Bar:
    """The progress on one set of problems, with the mean so far."""

    progress: Progress
    task: TaskID
    means: list[float]

    @classmethod
    def of(
        cls,
        progress: Progress,
        method: str,
        problem_set: training.ProblemSet,
        journal: evaluation.Journal | None,
    ) -> _Bar:
        name, total = problem_set.name, len(problem_set.problems)
        done = journal.results.get(name, []) if journal else []
        task = progress.add_task(
            f"{name}, {method}", start=False, total=total, completed=len(done), mean=""
        )
        return cls(progress=progress, task=task, means=[fmean(result.correct) for result in done])

    def advance(self, result: evaluation.ProblemResult) -> None:
        self.means.append(fmean(result.correct))
        self.progress.start_task(self.task)
        self.progress.update(self.task, advance=1, mean=f"{fmean(self.means):.3f} right so far")


def remove_journal(json_file: Path | None) -> None:
    """Remove what was kept beside the file of a finished evaluation."""
    if json_file:
        _journal_path(json_file).unlink()


def _journal_path(json_file: Path) -> Path:
    return json_file.with_name(f"{json_file.name}.partial")


def evaluation_table(found: evaluation.Evaluation) -> evaluation.Table:
    """Return all metrics of an evaluation with their intervals, a column a set of problems."""
    reports = found.reports
    sizes = ", ".join(f"{report.num_problems} problems" for report in reports.values())
    header, columns = [*reports], [_column(report) for report in reports.values()]
    if len(reports) > 1:
        header.append("Avg.")
        columns.append(averages(found))
    titles = _titles(next(iter(reports.values())))
    return evaluation.Table(
        title=f"{found.name}: {sizes}",
        header=["metric, 95% interval", *header],
        rows=[
            [title, *(column.get(metric, "") for column in columns)]
            for metric, title in titles.items()
        ],
    )


def _titles(report: evaluation.Report) -> dict[str, str]:
    k = report.samples_per_problem
    return {
        "mean_at_k": f'mean@{k} (the paper\'s "Pass@{k}")',
        "variance": 'variance (the paper\'s "Var")',
        **{f"pass_at_{n}": f"pass@{n}" for n in report.pass_at},
        "majority_at_k": f"majority@{k}",
        "call_rate": "call rate",
        "response_tokens": "response tokens",
        "no_answer_rate": "no final answer",
        "malformed_rate": "malformed turns",
        "truncation_rate": "cut by a limit",
    }


def _column(report: evaluation.Report) -> dict[str, str]:
    numbers = report.metrics() | {f"pass_at_{n}": value for n, value in report.pass_at.items()}
    formats: Mapping[str, str] = {"variance": ".4f", "response_tokens": ".1f"}
    return {
        name: with_interval(numbers[name], interval, formats.get(name, ".3f"))
        for name, interval in report.intervals.items()
    }


def averages(found: evaluation.Evaluation) -> dict[str, str]:
    """Return the paper's "Avg." of its two metrics."""
    return {
        "mean_at_k": with_interval(*found.average(), ".3f"),
        "variance": f"{fmean(report.variance for report in found.reports.values()):.4f}",
    }


def with_interval(value: float, interval: tuple[float, float], number_format: str = ".3f") -> str:
    """Return a number with its interval, as "0.500 (0.250 to 0.750)"."""
    low, high = interval
    return f"{value:{number_format}} ({low:{number_format}} to {high:{number_format}})"
