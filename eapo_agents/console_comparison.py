"""What a person sees of several evaluations: scores side by side, differences, a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from eapo_agents.comparison import sets_difference
from eapo_agents.console_evaluation import averages, cell
from eapo_agents.evaluate import Report
from eapo_agents.evaluations import Evaluation, paired
from eapo_agents.metrics import Interval
from eapo_agents.report_plots import Bar, bars_figure, picture, save
from eapo_agents.sheets import Sheet, difference_cells, visible


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
