"""Pictures: the numbers that they show, read off the figures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib.image
import pytest

from eapo_agents.evaluation.metrics import Interval
from eapo_agents.training.report.plots import (
    OVERVIEW,
    Bar,
    bars_figure,
    curves_figure,
    picture,
    save,
)
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.run import Run

Recorder = Callable[..., Run]


def test_a_line_is_the_mean_and_the_seeds_are_thin_lines_beside_it(recorded: Recorder) -> None:
    runs = [recorded("eapo", [0.25, 0.5, 0.5], seed=0), recorded("eapo", [0.75, 0.5], seed=1)]
    figure = curves_figure(methods_of([*runs, recorded("rl", [0.125] * 30)]), OVERVIEW)
    axis = figure.axes[0]
    assert axis.get_title() == "accuracy in training"
    mean, first, second, other = axis.lines
    assert mean.get_xydata().tolist() == [[1, 0.5], [2, 0.5]]
    assert first.get_xydata().tolist() == [[1, 0.25], [2, 0.5], [3, 0.5]]
    assert second.get_xydata().tolist() == [[1, 0.75], [2, 0.5]]
    assert mean.get_color() == first.get_color() != other.get_color()
    assert (mean.get_marker(), other.get_marker()) == ("o", "None")
    assert len(axis.collections) == 1, "one band: a single run has no interval of its accuracy"
    [band] = axis.collections[0].get_paths()
    low, high = band.get_extents().intervaly
    assert low < 0.25 < 0.75 < high
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["eapo (2 seeds)", "rl"]
    assert [axis.get_title() for axis in figure.axes] == [title for _, title in OVERVIEW]


def test_bars_stand_in_groups_with_their_intervals() -> None:
    bars = {
        "base": {"aime": Bar(value=0.25, interval=Interval(0.125, 0.5))},
        "eapo": {
            "aimo": Bar(value=0.5, interval=None),
            "aime": Bar(value=0.75, interval=Interval(0.5, 1.0)),
        },
    }
    axis = bars_figure(bars).axes[0]
    drawn = [(bar.get_x() + bar.get_width() / 2, bar.get_height()) for bar in axis.patches]
    assert sorted(drawn) == [
        (pytest.approx(-0.2), 25.0),
        (pytest.approx(0.2), 75.0),
        (pytest.approx(1.2), 50.0),
    ]
    assert [list(line.get_ydata()) for line in axis.lines] == [[12.5, 50.0], [50.0, 100.0]]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["aime", "aimo"]
    assert sorted(text.get_text() for text in axis.texts) == ["25.0", "50.0", "75.0"]


def test_an_interval_that_reaches_below_zero_is_not_cut_off(recorded: Recorder) -> None:
    low = bars_figure({"x": {"y": Bar(value=0.25, interval=Interval(-0.5, 1.0))}}).axes[0]
    assert low.get_ylim()[0] < -50.0
    runs = [recorded("eapo", [value], seed=n) for n, value in enumerate((0.0, 0.5))]
    axis = curves_figure(methods_of(runs), OVERVIEW[:1]).axes[0]
    [band] = axis.collections[0].get_paths()
    assert axis.get_ylim()[0] < band.get_extents().y0 < 0.0
    for positive in (
        bars_figure({"x": {"y": Bar(value=0.5, interval=None)}}),
        curves_figure(methods_of(runs[1:]), OVERVIEW[:2]),
    ):
        assert {axis.get_ylim()[0] for axis in positive.axes} == {0.0}


def test_a_picture_without_an_ending_is_a_png(tmp_path: Path) -> None:
    assert picture(tmp_path / "bars") == tmp_path / "bars.png"
    for name in ("bars.png", "bars.SVG", "bars.pdf"):
        assert picture(tmp_path / name) == tmp_path / name
    with pytest.raises(ValueError, match=r"bars.exe names no kind of picture; endings are .*png"):
        picture(tmp_path / "bars.exe")


def test_labels_are_shown_as_they_are(tmp_path: Path) -> None:
    bars = {
        name: {"_$x$": Bar(value=0.5, interval=None)} for name in ("_hidden", "$\\frac{", "\x1b")
    }
    figure = bars_figure(bars)
    save(figure, tmp_path / "deep" / "bars.png")
    assert matplotlib.image.imread(tmp_path / "deep" / "bars.png")[..., :3].std() > 0.05
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert texts == [" _hidden", "\\$\\frac{", "\\x1b"]


def test_an_unknown_kind_of_picture_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="exe"):
        save(bars_figure({"x": {"y": Bar(value=0.5, interval=None)}}), tmp_path / "bars.exe")
