"""What a person sees of an evaluation: progress, the table, where the file is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from eapo_agents.evaluation import (
    Evaluation,
    Evaluator,
    Interval,
    Journal,
    ProblemResult,
    Report,
    Sheet,
    difference_cells,
    paired,
    sets_difference,
    visible,
    write_evaluation,
)
from eapo_agents.training import (
    Bar,
    ProblemSet,
    TrainConfig,
    bars_figure,
    check_distinct,
    picture,
    save,
)


def problem_sets(config: TrainConfig, sources: Sequence[str]) -> list[ProblemSet]:
    """Return the sets that the sources name, or the config's held-out problems if there are none.

    Raises:
        ValueError: problems that cannot be read, or two sets of one name.
    """
    held_out = config.evaluation.problems
    sets = [ProblemSet.named(source, held_out) for source in sources or (held_out.source,)]
    check_distinct(sets)
    return sets


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationMethod:
    """How a model is evaluated.

    Args:
        name: of the method, as "alone".
        evaluator: makes the reports.
        subject: what they depend on beside model, sampling, seed and problems; JSON-ready.
        wrong_replies: as of an `Evaluation`.
    """

    name: str
    evaluator: Evaluator
    subject: Mapping[str, object] = field(default_factory=dict)
    wrong_replies: Mapping[str, float] = field(default_factory=dict)


def show_evaluation(
    console: Console,
    config: TrainConfig,
    method: EvaluationMethod,
    sets: Sequence[ProblemSet],
    json_file: Path | None,
) -> Evaluation:
    """Evaluate a model on some sets of problems, and print all metrics; see `evaluated`."""
    with going_on(console, json_file):
        evaluation = asyncio.run(evaluated(console, config, method, sets, json_file))
    forget(json_file)
    console.print(evaluation_table(evaluation))
    return evaluation


async def evaluated(
    console: Console,
    config: TrainConfig,
    method: EvaluationMethod,
    sets: Sequence[ProblemSet],
    json_file: Path | None,
) -> Evaluation:
    """Return the evaluation of a model on some sets of problems; show progress, write a file.

    With a file, what is finished is kept beside it, and an evaluation that was interrupted goes on;
    `forget` removes it.

    Raises:
        ValueError: what is kept beside the file belongs to another evaluation.
    """
    journal = None
    if json_file:
        journal = Journal.open(_partial(json_file), _subject(config, method, sets))
    with _bars(console) as bars:
        reports = {one.name: await _report(bars, method, one, journal) for one in sets}
    evaluation = Evaluation(
        name=f"{config.model.path}, {method.name}",
        reports=reports,
        wrong_replies=method.wrong_replies,
    )
    if json_file:
        write_evaluation(evaluation, json_file)
        console.print(f"evaluation: {json_file}")
    return evaluation


@contextmanager
def going_on(console: Console, kept: Path | None) -> Iterator[None]:
    """Say, when it is interrupted, whether the same command goes on: by what is kept."""
    try:
        yield
    except KeyboardInterrupt:
        kept_word = "the same command goes on" if kept else "nothing is kept without a file for it"
        console.print(f"interrupted; {kept_word}")
        raise


def forget(json_file: Path | None) -> None:
    """Remove what was kept beside the file of a finished evaluation."""
    if json_file:
        _partial(json_file).unlink()


def evaluation_table(evaluation: Evaluation) -> Table:
    """Return all metrics of an evaluation with their intervals, a column a set of problems."""
    reports = evaluation.reports
    sizes = ", ".join(f"{report.num_problems} problems" for report in reports.values())
    drawn = Table(title=f"{evaluation.name}: {sizes}")
    drawn.add_column("metric, 95% interval")
    for name in reports:
        drawn.add_column(name, justify="right")
    rows = [_column(report) for report in reports.values()]
    if len(reports) > 1:
        drawn.add_column("Avg.", justify="right")
        rows.append(averages(evaluation))
    for metric, title in _titles(next(iter(reports.values()))).items():
        drawn.add_row(title, *(row.get(metric, "") for row in rows))
    return drawn


def _titles(report: Report) -> dict[str, str]:
    k = report.samples_per_problem
    return {
        "mean_at_k": f'mean@{k} (the paper\'s "Pass@{k}")',
        "variance": 'variance (the paper\'s "Var")',
        **{f"pass_at_{n}": f"pass@{n}" for n in report.pass_at},
        "majority_at_k": f"majority@{k}",
        "call_rate": "call rate",
        "response_tokens": "response tokens",
        "truncation_rate": "truncation rate",
    }


def _column(report: Report) -> dict[str, str]:
    numbers = report.metrics() | {f"pass_at_{n}": value for n, value in report.pass_at.items()}
    shapes: Mapping[str, str] = {"variance": ".4f", "response_tokens": ".1f"}
    return {
        name: cell(numbers[name], interval, shapes.get(name, ".3f"))
        for name, interval in report.intervals.items()
    }


def averages(evaluation: Evaluation) -> dict[str, str]:
    """Return the paper's "Avg." of its two metrics."""
    variances = [report.variance for report in evaluation.reports.values()]
    return {
        "mean_at_k": cell(*evaluation.average(), ".3f"),
        "variance": f"{np.mean(variances):.4f}",
    }


def cell(value: float, interval: tuple[float, float], shape: str) -> str:
    """Return a number with its interval."""
    low, high = interval
    return f"{value:{shape}} ({low:{shape}} to {high:{shape}})"


async def _report(
    bars: Progress, method: EvaluationMethod, problem_set: ProblemSet, journal: Journal | None
) -> Report:
    name, problems = problem_set.name, problem_set.problems
    done = journal.results.get(name, []) if journal else []
    shares = [float(np.mean(result.correct)) for result in done]
    bar = bars.add_task(f"{name}, {method.name}", total=len(problems), completed=len(done), mean="")

    def on_result(result: ProblemResult) -> None:
        shares.append(float(np.mean(result.correct)))
        bars.update(bar, advance=1, mean=f"{np.mean(shares):.3f} right so far")
        if journal:
            journal.append(name, result)

    return await method.evaluator(problems, done=done, on_result=on_result)


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[mean]}"),
        console=console,
    )


def _partial(json_file: Path) -> Path:
    return json_file.with_name(f"{json_file.name}.partial")


def _subject(
    config: TrainConfig, method: EvaluationMethod, sets: Sequence[ProblemSet]
) -> dict[str, object]:
    """Return what the results of an evaluation depend on."""
    return {
        "method": {"name": method.name, **method.subject},
        "model": asdict(config.model),
        "vllm": asdict(config.vllm),
        "policy_server": asdict(config.policy_server),
        "rollout": asdict(config.rollout),
        "truncation": asdict(config.evaluation.truncation),
        "samples_per_problem": config.evaluation.samples_per_problem,
        "seed": config.seed,
        "problems": {one.name: [asdict(problem) for problem in one.problems] for one in sets},
    }


def show_comparison(evaluations: Sequence[Evaluation], plot: Path | None = None) -> None:
    """Print what some policies can do, and how the first differs from each other one.

    Differences are over the problems that both were evaluated on. With a path, the scores are drawn
    there, as its ending says; without one as a PNG.

    Raises:
        ValueError: no problem in common with the first, or a path that names no kind of picture.
    """
    place = picture(plot) if plot else None
    first, *others = evaluations
    differences = [difference_sheet(first, other) for other in others]
    for sheet in (scores_sheet(evaluations), *differences):
        Console().print(sheet.rich())
    if place:
        save(bars_figure(score_bars(evaluations)), place)
        Console().print(f"plot: {visible(str(place))}", markup=False, soft_wrap=True)


def scores_sheet(evaluations: Sequence[Evaluation]) -> Sheet:
    """Return mean@k with its interval, and Var, of each policy on each set; a row a policy."""
    sets = _set_names(evaluations)
    header, rows = ["", *sets], []
    for one in evaluations:
        reports = [one.reports.get(name) for name in sets]
        rows.append([one.name, *(_score(report) if report else "-" for report in reports)])
    if _has_average(evaluations):
        header.append("Avg.")
        rows = [
            [*row, ", ".join(averages(one).values())]
            for row, one in zip(rows, evaluations, strict=True)
        ]
    return Sheet(title="mean@k (95% interval), Var", header=header, rows=rows)


def score_bars(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, Bar]]:
    """Return mean@k of each policy on each set, and on average where all have the same sets."""
    bars = {
        one.name: {
            name: Bar(value=report.mean_at_k, interval=Interval(*report.interval))
            for name, report in one.reports.items()
        }
        for one in evaluations
    }
    if _has_average(evaluations):
        for one in evaluations:
            mean, interval = one.average()
            bars[one.name]["Avg."] = Bar(value=mean, interval=interval)
    return bars


def difference_sheet(a: Evaluation, b: Evaluation) -> Sheet:
    """Return how two policies differ on the problems that both were evaluated on.

    Raises:
        ValueError: no problem in common.
    """
    pairs = paired(a, b)
    chosen = [(name, [pair]) for name, pair in pairs.items()]
    if len(pairs) > 1:
        chosen.append(("average of the sets", list(pairs.values())))
    rows = []
    for name, sets in chosen:
        found = sets_difference(sets, np.random.default_rng(0))
        count = str(sum(len(first) for first, _ in sets))
        rows.append([name, count, *difference_cells(found)])
    header = ["problems", "how many", "difference", "95% interval", "p-value"]
    return Sheet(title=f"{a.name} - {b.name}, points of mean@k", header=header, rows=rows)


def _set_names(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(name for one in evaluations for name in one.reports))


def _has_average(evaluations: Sequence[Evaluation]) -> bool:
    """Tell whether all policies have the same sets, and several of them."""
    sets = _set_names(evaluations)
    return len(sets) > 1 and all(len(one.reports) == len(sets) for one in evaluations)


def _score(report: Report) -> str:
    return f"{cell(report.mean_at_k, report.interval, '.3f')}, {report.variance:.4f}"
