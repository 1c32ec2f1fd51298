"""Reports of recorded runs: the tables, the pages, and what is missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from markdown_it import MarkdownIt

from eapo_agents.evaluation.comparison import seeds_difference
from eapo_agents.evaluation.tables import Table
from eapo_agents.training.presets import embedded
from eapo_agents.training.report.report import CURVE_PICTURES, report_tables, write_report
from eapo_agents.training.report.runs import LatestEvaluation, MethodRuns, methods_of
from eapo_agents.training.run_folder import Run

Recorder = Callable[..., Run]

ALL, HALF = [True, True], [True, False]
PICTURES = {"accuracy.png", *(name for name, _, _ in CURVE_PICTURES)}


def values(table: Table) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in table.rows}


def tables(*runs: Run) -> dict[str, Table]:
    return {table.title: table for table in report_tables(*methods_and_evaluations(*runs))}


def methods_and_evaluations(
    *runs: Run,
) -> tuple[tuple[MethodRuns, ...], list[LatestEvaluation | None]]:
    methods = methods_of(runs)
    return methods, [method.latest_evaluation() for method in methods]


def test_the_table_shows_the_last_values(recorded: Recorder) -> None:
    run = recorded("first", [0.125, 0.25, 0.375], correct={4: [ALL, HALF]})
    run.record(4, {"alone/variance": 0.125})
    [table] = tables(run, recorded("second", [0.0625])).values()
    assert table.header == ["", "first-1", "second-1"]
    found = values(table)
    assert found["training steps"] == ["4", "1"]
    assert found["accuracy, last training step"] == ["0.375", "0.062"]
    assert found["evaluated after step"] == ["4", "-"]
    assert found["mean@k, alone"] == ["0.750", "-"]
    assert found["95% interval"] == ["0.500 to 1.000", "-"]
    assert found["variance, alone"] == ["0.125", "-"]


def test_several_seeds_are_one_column_and_one_row(recorded: Recorder) -> None:
    runs = [recorded("eapo", [0.25 * n] * n, seed=n, correct={1: [ALL, HALF]}) for n in (1, 2)]
    runs.append(recorded("eapo", [0.0], seed=3))
    found = tables(*runs)
    [metrics, each] = found.values()
    assert metrics.header == ["", "eapo (3 seeds)"]
    assert values(metrics)["training steps"] == ["1 to 2"]
    assert values(metrics)["accuracy, last training step"] == ["0.250"]
    [row] = each.rows
    assert row[:3] == ["eapo (3 seeds)", "1", "0.750"]
    assert row[4] == "1: 0.750, 2: 0.750"


def test_policies_are_compared_problem_by_problem(recorded: Recorder) -> None:
    better = recorded("first", [0.5], correct={3: [ALL] * 4 + [HALF] * 4})
    other = recorded("second", [0.5], correct={3: [HALF] * 8})
    [name, mean, interval, over, p_value] = tables(better, other)[
        "Differences, points of mean@k"
    ].rows[0]
    # 4 of 8 problems half a point better: 25 points; the sign-flip test over 4 nonzero
    # differences has p = 2 / 2^4.
    assert (name, mean, interval) == ("first-1 - second-1", "+25.0", "+6.2 to +43.8")
    assert over == "problems only"
    assert 0.11 < float(p_value) < 0.14
    assert tables(other, better)["Differences, points of mean@k"].rows[0][1] == "-25.0"


def test_methods_of_several_seeds_are_compared_over_seeds(recorded: Recorder) -> None:
    def trained(name: str, *seeds: Sequence[list[bool]]) -> list[Run]:
        return [recorded(name, [0.5], seed=n, correct={1: one}) for n, one in enumerate(seeds)]

    runs = trained("a", [ALL, HALF], [ALL, ALL], [HALF, ALL]) + trained(
        "b", [HALF, HALF], [HALF, ALL]
    )
    runs += trained("c")
    [row] = tables(*runs, recorded("d", [0.5]))["Differences, points of mean@k"].rows
    expected = seeds_difference([[1.0, 0.5], [1.0, 1.0], [0.5, 1.0]], [[0.5, 0.5], [0.5, 1.0]])
    assert row[:2] == ["a (3 seeds) - b (2 seeds)", f"{100 * expected.mean:+.1f}"]
    assert row[3:] == ["seeds and problems", f"{expected.p_value:.3f}"]


def test_one_run_against_several_has_a_difference_without_an_interval(recorded: Recorder) -> None:
    """Of the lone run's method no other seed is known: its variance is not 0."""
    several = [recorded("a", [0.5], seed=n, correct={1: [ALL, HALF]}) for n in range(3)]
    lone = recorded("b", [0.5], correct={1: [HALF, HALF]})
    for runs, name, mean in (
        ([*several, lone], "a (3 seeds) - b", "+25.0"),
        ([lone, *several], "b - a (3 seeds)", "-25.0"),
    ):
        [row] = tables(*runs)["Differences, points of mean@k"].rows
        assert row == [name, mean, "-", "-", "-"]


def test_all_numbers_of_an_evaluation_are_of_one_step(recorded: Recorder) -> None:
    """One seed has gone on to step 4; step 2 is the newest that both were evaluated after."""
    runs = []
    for seed, steps in enumerate(({2: 0.25, 4: 0.75}, {2: 0.125})):
        correct = {step: [ALL, HALF] for step in steps}
        runs.append(recorded("eapo", [0.5], seed=seed, correct=correct))
        for step, value in steps.items():
            runs[-1].record(step, {"alone/variance": value, "alone/pass_at_k": value})
    runs[1].record(3, {"alone/majority_at_k": 0.5})
    found = values(tables(*runs)["Trained policies, evaluated alone on held-out problems, and their"
                                 " training"])  # fmt: skip
    assert found["variance, alone"] == found["pass@k, alone"] == ["0.188"]
    assert found["majority@k, alone"] == ["-"]


def test_policies_evaluated_on_other_problems_are_not_compared(
    recorded: Recorder, tmp_path: Path
) -> None:
    evaluation = embedded().evaluation
    others = replace(evaluation, problems=replace(evaluation.problems, seed=99))
    other = Run.create(replace(embedded(), name="other", evaluation=others), tmp_path)
    other.record_evaluation(1, {"correct_PK": [HALF] * 8})
    run = recorded("run", [0.5], correct={1: [HALF] * 8})
    fewer = recorded("fewer", [0.5], correct={1: [HALF] * 7})
    assert "Differences, points of mean@k" not in tables(run, other, fewer)
    text = write_report(*methods_and_evaluations(run, other), tmp_path / "report").read_text(
        encoding="utf-8"
    )
    assert "accuracy.png" in text
    assert "Problems: synthetic, synthetic (2)." in text


@pytest.fixture
def several(recorded: Recorder) -> list[Run]:
    """Two methods: one of two seeds that have come to different steps, one never evaluated."""
    return [
        recorded("eapo", [0.5] * 30, seed=0, correct={20: [ALL, HALF]}),
        recorded("eapo", [0.25] * 10, seed=1),
        recorded("rl", [0.125] * 5),
        recorded("fresh", []),
    ]


def test_a_report_is_a_page_with_its_pictures(several: list[Run], tmp_path: Path) -> None:
    row: dict[str, Any] = {
        "paradigm": "self_resolution",
        "status": "correct",
        "problem_id": "p",
        "answer": "7",
    }
    row |= {"reward": 1.0, "turn_budget": 2, "acceptance_rate": 0.5, "consultations": []}
    said = "```\n# A heading\n\x1b[2J<script>"
    several[2].record_transcripts(3, [{**row, "messages": [{"role": "user", "content": said}]}])
    path = write_report(*methods_and_evaluations(*several), f"{tmp_path}/deep/down")
    assert {one.name for one in path.parent.iterdir()} == {"report.md", *PICTURES}
    for name in PICTURES:
        assert path.with_name(name).read_bytes().startswith(b"\x89PNG\r\n")
        assert matplotlib.image.imread(path.with_name(name))[..., :3].std() > 0.05
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([^)]+)\)", text)) == PICTURES
    assert "Not evaluated yet: rl, fresh." in text
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    headings = [tokens[n + 1].content for n, one in enumerate(tokens) if one.type == "heading_open"]
    assert headings[-2:] == ["An example of each paradigm (Appendix L)", "Self resolution"]
    assert not any(one.type == "html_block" for one in tokens)
    [shown] = [one.content for one in tokens if one.type == "fence"]
    assert shown == "```\n# A heading\n\\x1b[2J<script>\n"


def test_a_run_that_recorded_little_has_a_report_that_says_so(
    recorded: Recorder, tmp_path: Path
) -> None:
    run = recorded("distilled", [])
    run.record(1, {"loss": 2.5})
    path = write_report(*methods_and_evaluations(run), tmp_path / "report")
    assert [one.name for one in path.parent.iterdir()] == ["report.md"]
    text = path.read_text(encoding="utf-8")
    assert text.count("Not recorded by these runs.") == len(CURVE_PICTURES)
    assert "Not evaluated yet: distilled-1." in text
    assert "No transcripts with paradigms are recorded." in text


def test_a_report_is_written_while_training_goes_on(recorded: Recorder, tmp_path: Path) -> None:
    run = recorded("eapo", [0.5, 0.5])
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 3, "accuracy": float(np.float32(1 / 3))})[:20])
    assert "| training steps | 2 |" in write_report(
        *methods_and_evaluations(run), tmp_path / "r"
    ).read_text("utf-8")
