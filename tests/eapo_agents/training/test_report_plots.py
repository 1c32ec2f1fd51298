"""Pictures: the numbers that they show, read off the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from eapo_agents.evaluation.metrics import Interval
from eapo_agents.training.report.plots import (
    OVERVIEW_PANELS,
    Bar,
    bars_figure,
    curves_figure,
    figure_path,
    save_figure,
)
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.run_folder import Run

Recorder = Callable[..., Run]


def points(line: Line2D) -> Any:
    return np.asarray(line.get_xydata()).tolist()


def legend(axis: Axes) -> list[str]:
    shown = axis.get_legend()
    assert shown is not None
    return [text.get_text() for text in shown.get_texts()]


def test_a_line_is_the_mean_and_the_seeds_are_thin_lines_beside_it(recorded: Recorder) -> None:
    runs = [recorded("eapo", [0.25, 0.5, 0.5], seed=0), recorded("eapo", [0.75, 0.5], seed=1)]
    figure = curves_figure(methods_of([*runs, recorded("rl", [0.125] * 30)]), OVERVIEW_PANELS)
    axis = figure.axes[0]
    assert axis.get_title() == "accuracy in training"
    mean, first, second, other = axis.lines
    assert points(mean) == [[1, 0.5], [2, 0.5]]
    assert points(first) == [[1, 0.25], [2, 0.5], [3, 0.5]]
    assert points(second) == [[1, 0.75], [2, 0.5]]
    assert mean.get_color() == first.get_color() != other.get_color()
    assert (mean.get_marker(), other.get_marker()) == ("o", "None")
    assert len(axis.collections) == 1, "one band: a single run has no interval of its accuracy"
    [band] = axis.collections[0].get_paths()
    low, high = band.get_extents().intervaly
    assert low < 0.25 < 0.75 < high
    assert legend(axis) == ["eapo (2 seeds)", "rl"]
    assert [axis.get_title() for axis in figure.axes] == [title for _, title in OVERVIEW_PANELS]


def test_bars_stand_in_groups_with_their_intervals() -> None:
    bars = {
        "base": {"aime": Bar(value=0.25, interval=Interval(0.125, 0.5))},
        "eapo": {
            "aimo": Bar(value=0.5, interval=None),
            "aime": Bar(value=0.75, interval=Interval(0.5, 1.0)),
        },
    }
    axis = bars_figure(bars).axes[0]
    patches = [bar for bar in axis.patches if isinstance(bar, Rectangle)]
    drawn = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in patches]
    expected: list[Any] = [
        (pytest.approx(-0.2), 25.0),
        (pytest.approx(0.2), 75.0),
        (pytest.approx(1.2), 50.0),
    ]
    assert sorted(drawn) == expected
    lines = [np.asarray(line.get_ydata()).tolist() for line in axis.lines]
    assert lines == [[12.5, 50.0], [50.0, 100.0]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["aime", "aimo"]
    assert sorted(text.get_text() for text in axis.texts) == ["25.0", "50.0", "75.0"]


def test_an_interval_that_reaches_below_zero_is_not_cut_off(recorded: Recorder) -> None:
    low = bars_figure({"x": {"y": Bar(value=0.25, interval=Interval(-0.5, 1.0))}}).axes[0]
    assert low.get_ylim()[0] < -50.0
    runs = [recorded("eapo", [value], seed=n) for n, value in enumerate((0.0, 0.5))]
    axis = curves_figure(methods_of(runs), OVERVIEW_PANELS[:1]).axes[0]
    [band] = axis.collections[0].get_paths()
    assert axis.get_ylim()[0] < band.get_extents().y0 < 0.0
    for positive in (
        bars_figure({"x": {"y": Bar(value=0.5, interval=None)}}),
        curves_figure(methods_of(runs[1:]), OVERVIEW_PANELS[:2]),
    ):
        assert {axis.get_ylim()[0] for axis in positive.axes} == {0.0}


def test_a_picture_without_a_suffix_is_a_png(tmp_path: Path) -> None:
    assert figure_path(f"{tmp_path}/bars") == tmp_path / "bars.png"
    for name in ("bars.png", "bars.SVG", "bars.pdf"):
        assert figure_path(tmp_path / name) == tmp_path / name
    with pytest.raises(ValueError, match=r"bars.exe is no image format; known suffixes are .*png"):
        figure_path(tmp_path / "bars.exe")


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    bars = {
        name: {"_$x$": Bar(value=0.5, interval=None)} for name in ("_hidden", "$\\frac{", "\x1b")
    }
    figure = bars_figure(bars)
    save_figure(figure, f"{tmp_path}/deep/bars.png")
    assert matplotlib.image.imread(tmp_path / "deep" / "bars.png")[..., :3].std() > 0.05
    assert legend(figure.axes[0]) == [" _hidden", "\\$\\frac{", "\\x1b"]


def test_an_unknown_image_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exe"):
        save_figure(bars_figure({"x": {"y": Bar(value=0.5, interval=None)}}), tmp_path / "bars.exe")
