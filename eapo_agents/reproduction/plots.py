"""The pictures of the reproduction: training curves, and the gain over the strength of the base."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from eapo_agents.evaluation import seeds_difference
from eapo_agents.files import writing
from eapo_agents.reproduction.results import Results, means_SP
from eapo_agents.reproduction.study import Study

_STYLE = {"font.size": 9, "axes.spines.top": False}
_PANELS = (
    ("call_rate", "call rate (Figure 5)"),
    ("acceptance_rate", "acceptance rate"),
    ("accuracy", "accuracy in training"),
    ("alone/mean_at_k", "mean@k alone, held-out"),
)


def draw_training(study: Study, results: Results, path: Path) -> None:
    """Write a PNG of EAPO and self-exploratory RL over training, a thin line per seed."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(10, 5), layout="constrained")
        for axis, (curve, title) in zip(figure.subplots(2, 2).flat, _PANELS, strict=True):
            for experiment, colour in (
                (study.main_claim.better, "C0"),
                (study.main_claim.worse, "C1"),
            ):
                for number, run in enumerate(results.get(experiment, ())):
                    points = run.curves.get(curve, ())
                    label = experiment if number == 0 else None
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


def draw_gain(study: Study, results: Results, path: Path) -> None:
    """Write a PNG of the gain of EAPO over self-exploratory RL against the base's own mean@k."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(6, 3.5), layout="constrained")
        axis = figure.subplots()
        axis.axhline(0, color="grey", lw=1)
        for point in study.gain_curve:
            base, other, eapo = (
                results.get(name, ()) for name in (point.base, point.self_exploratory, point.eapo)
            )
            if not (base and other and eapo):
                continue
            gain = seeds_difference(means_SP(eapo), means_SP(other))
            low, high = gain.interval
            bars = [[100 * (gain.mean - low)], [100 * (high - gain.mean)]]
            place = 100 * float(means_SP(base).mean())
            axis.errorbar([place], [100 * gain.mean], bars, fmt="o", color="C0", capsize=3)
            axis.annotate(
                f"slip {point.step_error_rate}",
                (place, 100 * gain.mean),
                xytext=(5, 5),
                textcoords="offset points",
            )
        axis.set(
            xlabel="mean@k of the base, alone (%)", ylabel="EAPO - self-exploratory RL (points)"
        )
        axis.grid(alpha=0.3)
        _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with writing(path):
        figure.savefig(path, dpi=110)
