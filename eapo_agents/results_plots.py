"""The pictures of the miniature reproduction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from eapo_agents.cell_results import Result
from eapo_agents.cells import EAPO, SELF_EXPLORATORY, SLIPS, gain_cells
from eapo_agents.comparison import seeds_difference

Results = Mapping[str, Sequence[Result]]

_PANELS = (
    ("call_rate", "call rate (Figure 5)"),
    ("acceptance_rate", "acceptance rate"),
    ("accuracy", "accuracy in training"),
    ("alone/mean_at_k", "mean@k alone, held-out"),
)


def draw_training(results: Results, path: Path) -> None:
    """Write a PNG of EAPO and self-exploratory RL over training, a thin line a seed."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(10, 5), layout="constrained")
        for axis, (curve, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            for cell, colour in ((EAPO, "C0"), (SELF_EXPLORATORY, "C1")):
                for number, run in enumerate(results.get(cell.name, ())):
                    points = run.curves.get(curve, ())
                    label = cell.name if number == 0 else None
                    style = {"color": colour, "alpha": 0.6, "lw": 1, "label": label}
                    marker = "o" if len(points) < 10 else ""
                    axis.plot(
                        [s for s, _ in points], [v for _, v in points], marker=marker, **style
                    )
            axis.set(title=title, xlabel="training step", ylim=(0, None))
            axis.grid(alpha=0.3)
        if figure.axes[0].lines:
            figure.axes[0].legend()
        _save(figure, path)


def draw_gain(results: Results, path: Path) -> None:
    """Write a PNG of the gain of EAPO over self-exploratory RL against the base's own mean@k."""
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False}):
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axis = figure.subplots()
        axis.axhline(0, color="grey", lw=1)
        for slip in SLIPS:
            base, other, eapo = (results.get(cell.name, ()) for cell in gain_cells(slip))
            if not (base and other and eapo):
                continue
            gain = seeds_difference(means(eapo), means(other))
            low, high = gain.interval
            bars = [[100 * (gain.mean - low)], [100 * (high - gain.mean)]]
            place = 100 * float(means(base).mean())
            axis.errorbar([place], [100 * gain.mean], bars, fmt="o", color="C0", capsize=3)
            axis.annotate(
                f"slip {slip}", (place, 100 * gain.mean), xytext=(5, 5), textcoords="offset points"
            )
        axis.set(
            xlabel="mean@k of the base, alone (%)", ylabel="EAPO - self-exploratory RL (points)"
        )
        axis.grid(alpha=0.3)
        _save(figure, path)


def means(runs: Sequence[Result]) -> np.ndarray:
    """Return the means of the samples as [seeds, problems]."""
    return np.stack([run.means_P for run in runs])


def _save(figure: Figure, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
