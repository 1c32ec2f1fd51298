"""The pictures of reports: metrics over training, and bars of mean@k with their intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eapo_agents.evaluation import Interval, visible
from eapo_agents.files import writing
from eapo_agents.rollouts import Paradigm
from eapo_agents.training.report.runs import MethodRuns
from eapo_env.validation import UserError

_STYLE = {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}

Panel = tuple[str, str]
"""A metric and its title."""

OVERVIEW_PANELS: Sequence[Panel] = (
    ("accuracy", "accuracy in training"),
    ("alone/mean_at_k", "mean@k alone, held-out"),
    ("call_rate", "call rate"),
    ("acceptance_rate", "acceptance rate"),
    ("turn_budget", "turn budget"),
    ("response_tokens", "response length (tokens)"),
)
RESPONSE_LENGTH_PANELS: Sequence[Panel] = (
    ("response_tokens", "response length in training (tokens)"),
)
"""The paper's Figure 4."""
CALL_RATE_PANELS: Sequence[Panel] = (
    ("call_rate", "call rate"),
    ("accuracy", "accuracy in training"),
)
"""The paper's Figure 5 (Appendix B): calls fall, accuracy stays."""
PARADIGM_PANELS: Sequence[Panel] = tuple(
    (f"paradigm/{one}", one.replace("_", " ") + " (share)") for one in Paradigm
)
"""The paper's section 2.3."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A value and its 95% interval; None if unknown."""

    value: float
    interval: Interval | None


def curves_figure(methods: Sequence[MethodRuns], panels: Sequence[Panel]) -> Figure:
    """Return a figure with a panel per metric and a line per method.

    A method with several seeds is drawn as the mean over them, at the steps that all of them have
    reached, with its 95% interval and a thin line per seed.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(max(3.4 * columns, 6.0), 2.8 * rows), layout="constrained")
        axes = np.atleast_1d(figure.subplots(rows, columns)).flat
        for axis, (metric, title) in zip(axes, panels, strict=True):
            for number, method in enumerate(methods):
                _draw_curve(axis, method, metric, f"C{number % 10}")
            axis.set_title(title)
            axis.set_xlabel("training step")
            _start_at_zero(axis)
            axis.grid(alpha=0.3)
        figure.axes[0].legend(fontsize=8)
    return figure


def bars_figure(bars: Mapping[str, Mapping[str, Bar]]) -> Figure:
    """Return a bar chart of mean@k: a group per set of problems, a bar per method in it.

    Args:
        bars: by method, then by set of problems.
    """
    sets = list(dict.fromkeys(name for one in bars.values() for name in one))
    width = 0.8 / len(bars)
    size = (max(5.0, 1.5 + 0.55 * len(bars) * len(sets)), 3.4)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        axis = figure.subplots()
        for number, (label, values) in enumerate(bars.items()):
            shift = (number - (len(bars) - 1) / 2) * width
            places = [sets.index(name) + shift for name in values]
            heights = [100 * bar.value for bar in values.values()]
            axis.bar(places, heights, width, color=f"C{number % 10}", label=_plain(label))
            for place, bar in zip(places, values.values(), strict=True):
                _draw_interval(axis, place, bar)
        axis.set_xticks(range(len(sets)), [_plain(name) for name in sets])
        axis.set_ylabel("mean@k, alone (%)")
        _start_at_zero(axis)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize=8)
    return figure


def figure_path(path: str | PathLike[str]) -> Path:
    """Return a path for `save_figure`: as it is, or with ".png" if it has no suffix.

    Raises:
        UserError: a suffix that is no image format.
    """
    path = Path(path)
    path = path if path.suffix else path.with_name(f"{path.name}.png")
    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in kinds:
        raise UserError(f"{path} is no image format; known suffixes are {', '.join(sorted(kinds))}")
    return path


def save_figure(figure: Figure, path: str | PathLike[str]) -> None:
    """Write a figure in the format of the path's suffix: PNG, SVG, PDF.

    Raises:
        UserError: the file cannot be written.
        ValueError: a suffix that is no image format; see `figure_path`.
    """
    with writing(Path(path)):
        figure.savefig(path, dpi=120)


def _start_at_zero(axis: Axes) -> None:
    """Let the axis begin at 0, or lower if an interval reaches below it."""
    axis.set_ylim(bottom=min(0.0, 1.05 * axis.dataLim.y0))


def _draw_curve(axis: Axes, method: MethodRuns, metric: str, colour: str) -> None:
    curve = method.curve(metric)
    style = "o-" if len(curve.mean) < 20 else "-"
    xs, ys = zip(*curve.mean, strict=True) if curve.mean else ((), ())
    axis.plot(xs, ys, style, color=colour, markersize=4, label=_plain(method.label))
    if curve.band:
        steps, lows, highs = zip(*curve.band, strict=True)
        axis.fill_between(steps, lows, highs, color=colour, alpha=0.2, linewidth=0)
    if len(curve.seeds) > 1:
        for points in curve.seeds:
            axis.plot(*zip(*points, strict=True), color=colour, linewidth=0.5, alpha=0.4)


def _draw_interval(axis: Axes, place: float, bar: Bar) -> None:
    top = 100 * (bar.interval.high if bar.interval else bar.value)
    if bar.interval:
        ends = [100 * bound for bound in bar.interval]
        axis.plot([place, place], ends, color="black", linewidth=1, marker="_", markersize=5)
    axis.annotate(
        f"{100 * bar.value:.1f}",
        (place, top),
        xytext=(0, 3),
        textcoords="offset points",
        ha="center",
        fontsize=7,
    )


def _plain(label: str) -> str:
    """Return a label that matplotlib shows literally: no "$" formula, no label hidden by "_"."""
    shown = visible(label).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown
