"""Pictures and tables of recorded runs, one or several side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.table import Table

from eapo_agents.metrics import paired_difference
from eapo_agents.run import Run
from eapo_agents.settings import ProblemSettings

PANELS = (
    ("accuracy", "accuracy in training"),
    ("alone/mean_at_k", "accuracy alone, held-out"),
    ("call_rate", "call rate"),
    ("acceptance_rate", "acceptance rate"),
    ("turn_budget", "turn budget"),
    ("response_tokens", "response length (tokens)"),
)
"""The pictures: a metric and its title (the paper's Figures 4 and 5, and the schedules)."""

ROWS = (
    ("alone/mean_at_k", "mean@k, alone"),
    ("alone/interval_low", "95% interval, from"),
    ("alone/interval_high", "to"),
    ("alone/variance", "variance"),
    ("alone/pass_at_k", "pass@k"),
    ("alone/majority_at_k", "majority@k"),
    ("alone/response_tokens", "response tokens, alone"),
    ("alone/truncation_rate", "truncation rate, alone"),
    ("accuracy", "accuracy, last training step"),
    ("call_rate", "call rate, last training step"),
)


def draw(runs: Sequence[Run], path: Path) -> None:
    """Write a PNG with one panel a metric and one line a run.

    Raises:
        ValueError: a run without metrics.
    """
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(10, 5.5), layout="constrained")
        axes = figure.subplots(2, 3).flat
        for axis, (metric, title) in zip(axes, PANELS, strict=True):
            for run in runs:
                points = series(run, metric)
                style = "o-" if len(points) < 20 else "-"
                axis.plot(*zip(*points, strict=True) if points else ((), ()), style, label=run.name)
            axis.set_title(title)
            axis.set_xlabel("training step")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
        figure.axes[0].legend()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)


def table(runs: Sequence[Run]) -> Table:
    """Return the last recorded value of the main metrics, a column a run."""
    drawn = Table(title="Trained policies, evaluated alone on held-out problems")
    drawn.add_column("")
    for run in runs:
        drawn.add_column(run.name, justify="right")
    drawn.add_row("training steps", *(str(len(run.metrics)) for run in runs))
    for metric, title in ROWS:
        values = [[value for _, value in series(run, metric)[-1:]] for run in runs]
        drawn.add_row(title, *(f"{value[0]:.3f}" if value else "-" for value in values))
    return drawn


def difference(first: Run, second: Run) -> str | None:
    """Return how the first run's policy compares with the second's; None without evaluations.

    Policies evaluated on the same problems are compared pairwise: difference of mean@k, 95%
    interval by bootstrap over problems, p-value of a sign-flip test. On other problems: None.
    """
    reports = [run.last_evaluation for run in (first, second)]
    if None in reports or _problems(first) != _problems(second):
        return None
    a, b = (np.mean(report["correct_PK"], axis=1) for report in reports if report)
    found = paired_difference(a, b, np.random.default_rng(0))
    return (
        f"{first.name} - {second.name}: {100 * found.mean:+.1f} points of mean@k, 95% interval"
        f" {100 * found.interval.low:+.1f} to {100 * found.interval.high:+.1f},"
        f" p = {found.p_value:.3f} (over problems; one training seed each)"
    )


def _problems(run: Run) -> ProblemSettings:
    return run.config.evaluation.problems


def series(run: Run, metric: str) -> list[tuple[float, float]]:
    """Return (step, value) for every step that recorded the metric.

    Raises:
        ValueError: a run without metrics.
    """
    if not run.metrics:
        raise ValueError(f"{run.folder} has no metrics yet")
    return [(row["step"], row[metric]) for row in run.metrics if metric in row]
