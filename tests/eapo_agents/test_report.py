"""Reports of recorded runs: real PNGs, the table, the comparison, and what is missing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import pytest
from rich.console import Console

from eapo_agents.presets import embedded
from eapo_agents.report import PANELS, ROWS, difference, draw, series, table
from eapo_agents.run import Run

EVALUATED = {name: 0.5 for name, _ in (*PANELS, *ROWS) if name.startswith("alone/")}


def recorded(root: Path, name: str, accuracies: Sequence[float]) -> Run:
    run = Run.create(replace(embedded(), name=name), root)
    for step, accuracy in enumerate(accuracies, start=1):
        schedules = {"call_rate": 0.25, "acceptance_rate": 1 / step, "turn_budget": 2.0}
        last = EVALUATED if step == len(accuracies) else {}
        run.record(step, {"accuracy": accuracy, "response_tokens": 12.5, **schedules, **last})
    run.close()
    return run


def text_of(drawn: object) -> str:
    console = Console(file=io.StringIO(), width=120)
    console.print(drawn)
    return console.file.getvalue()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded(tmp_path, "first", [0.125, 0.25, 0.375])


def test_the_plot_is_a_png_with_something_in_it(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "plot.png"
    other = recorded(tmp_path, "second", [0.5] * 30)
    draw([run, other], path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n")
    pixels = matplotlib.image.imread(path)
    assert pixels.shape == (660, 1200, 4)
    assert pixels[..., :3].std() > 0.05
    draw([run], tmp_path / "one.png")
    assert (matplotlib.image.imread(tmp_path / "one.png") != pixels).any()


def test_the_table_shows_the_last_values(run: Run, tmp_path: Path) -> None:
    unfinished = Run.create(replace(embedded(), name="second"), tmp_path)
    unfinished.record(1, {"accuracy": 0.0625})
    unfinished.close()
    lines = text_of(table([run, unfinished])).splitlines()
    cells = {line.split("│")[1].strip(): line.split("│")[2:4] for line in lines if "│" in line}
    values = {title: [cell.strip() for cell in row] for title, row in cells.items()}
    assert values["training steps"] == ["3", "1"]
    assert values["accuracy, last training step"] == ["0.375", "0.062"]
    assert values["call rate, last training step"] == ["0.250", "-"]
    assert values["mean@k, alone"] == ["0.500", "-"]
    assert "first-1" in "".join(lines)


def test_series_skip_the_steps_that_did_not_record_a_metric(run: Run) -> None:
    assert series(run, "accuracy") == [(1, 0.125), (2, 0.25), (3, 0.375)]
    assert series(run, "alone/mean_at_k") == [(3, 0.5)]
    assert series(run, "nothing") == []


def evaluated(run: Run, correct_PK: list[list[bool]]) -> Run:
    run.record_evaluation(3, {"correct_PK": correct_PK})
    return run


def test_policies_are_compared_problem_by_problem(run: Run, tmp_path: Path) -> None:
    other = recorded(tmp_path, "second", [0.5])
    assert difference(run, other) is None
    half = [[True, False]] * 8
    evaluated(run, [[True, True]] * 4 + half[:4])
    assert difference(run, other) is None
    evaluated(other, half)
    line = difference(run, other)
    # 4 of 8 problems half a point better: 25 points; the sign-flip test over 4 nonzero
    # differences has p = 2 / 2^4.
    assert line is not None
    assert line.startswith("first-1 - second-1: +25.0 points of mean@k, 95% interval +6.2 to +43.8")
    assert 0.11 < float(line.split("p = ")[1].split()[0]) < 0.14
    assert str(difference(other, run)).startswith("second-1 - first-1: -25.0 points")


def test_policies_evaluated_on_other_problems_are_not_compared(run: Run, tmp_path: Path) -> None:
    evaluation = embedded().evaluation
    others = replace(evaluation, problems=replace(evaluation.problems, seed=99))
    other = Run.create(replace(embedded(), name="other", evaluation=others), tmp_path)
    half = [[True, False]] * 8
    assert difference(evaluated(run, half), evaluated(other, half)) is None


def test_a_run_without_metrics_is_an_error(tmp_path: Path) -> None:
    run = Run.create(embedded(), tmp_path)
    for report in (lambda: draw([run], tmp_path / "plot.png"), lambda: table([run])):
        with pytest.raises(ValueError, match=f"{run.folder} has no metrics yet"):
            report()
    assert not (tmp_path / "plot.png").exists()
