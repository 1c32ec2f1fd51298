"""`eapo compare`: two or more evaluations on the same problems, as tables and as a plot."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import evaluation, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.evaluate import averages, with_interval

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands
    from eapo_agents.evaluation import Evaluation, Table


def add(commands: Commands) -> None:
    """Add the command."""
    compare = commands.add_parser("compare", help="two or more evaluations on the same problems")
    compare.add_argument(
        "evaluations",
        nargs="+",
        type=Path,
        metavar="EVALUATION",
        help="files of eapo evaluate, or run folders; the first is what others are compared with",
    )
    compare.add_argument("--plot", type=Path, metavar="PNG", help="draw mean@k with intervals here")
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    evaluations = _read(options.evaluations)
    place = training.figure_path(options.plot) if options.plot else None
    first, *others = evaluations
    differences = [difference_table(first, other) for other in others]
    console = new_console()
    for table in (scores_table(evaluations), *differences):
        console.print(table.rich())
    if place:
        training.save_figure(training.bars_figure(score_bars(evaluations)), place)
        shown = evaluation.visible(str(place))
        console.print(f"plot: {shown}", markup=False, soft_wrap=True)
    return 0


def _read(paths: Sequence[Path]) -> list[Evaluation]:
    """Return the evaluations, under distinct names where possible."""
    from eapo_env.validation import UserError

    found = [training.read_evaluation(path) for path in paths]
    if len(found) < 2:
        raise UserError(f"eapo compare takes two evaluations or more, not {paths[0]} alone")
    stems, whole = [path.stem for path in paths], [str(path) for path in paths]
    names = evaluation.first_distinct([one.name for one in found], stems, whole)
    return [replace(one, name=name) for one, name in zip(found, names, strict=True)]


def scores_table(evaluations: Sequence[Evaluation]) -> Table:
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
    return evaluation.Table(title="mean@k (95% interval), Var", header=header, rows=rows)


def score_bars(evaluations: Sequence[Evaluation]) -> dict[str, dict[str, training.Bar]]:
    """Return mean@k of each policy on each set, and on average where all have the same sets."""
    bars = {
        one.name: {
            name: training.Bar(
                value=report.mean_at_k, interval=evaluation.Interval(*report.interval)
            )
            for name, report in one.reports.items()
        }
        for one in evaluations
    }
    if _has_average(evaluations):
        for one in evaluations:
            mean, interval = one.average()
            bars[one.name]["Avg."] = training.Bar(value=mean, interval=interval)
    return bars


def difference_table(a: Evaluation, b: Evaluation) -> Table:
    """Return how two policies differ on the problems that both were evaluated on.

    Raises:
        UserError: no problem in common.
    """
    import numpy as np

    pairs = evaluation.paired(a, b)
    chosen = [(name, [pair]) for name, pair in pairs.items()]
    if len(pairs) > 1:
        chosen.append(("average of the sets", list(pairs.values())))
    rows = []
    for name, sets in chosen:
        found = evaluation.sets_difference(sets, np.random.default_rng(0))
        count = str(sum(len(first) for first, _ in sets))
        rows.append([name, count, *evaluation.difference_cells(found)])
    header = ["problems", "how many", "difference", "95% interval over problems", "p-value"]
    title = f"{a.name} - {b.name}, points of mean@k"
    return evaluation.Table(title=title, header=header, rows=rows)


def _set_names(evaluations: Sequence[Evaluation]) -> list[str]:
    return list(dict.fromkeys(name for one in evaluations for name in one.reports))


def _has_average(evaluations: Sequence[Evaluation]) -> bool:
    """Return whether all policies have the same sets, and several of them."""
    sets = _set_names(evaluations)
    return len(sets) > 1 and all(len(one.reports) == len(sets) for one in evaluations)


def _score(report: evaluation.Report) -> str:
    return f"{with_interval(report.mean_at_k, report.interval)}, {report.variance:.4f}"
