"""Runs as methods: who belongs together, means and intervals over seeds by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st

from eapo_agents.evaluation.comparison import seeds_interval
from eapo_agents.evaluation.metrics import bootstrap_interval
from eapo_agents.training.presets import embedded
from eapo_agents.training.report.runs import MethodRuns, RecordedRun, methods_of
from eapo_agents.training.run_folder import Run

Recorder = Callable[..., Run]

ALL, HALF, NONE = [True, True], [True, False], [False, False]


def test_runs_that_differ_in_the_seed_alone_are_one_method(recorded: Recorder) -> None:
    runs = [
        recorded("eapo", [0.5], seed=0),
        recorded("rl", [0.5], seed=0),
        recorded("eapo", [0.25], seed=1),
    ]
    first, second = methods_of(runs)
    assert (first.label, second.label) == ("eapo (2 seeds)", "rl")
    assert [one.run for one in first.runs] == [runs[0], runs[2]]


def test_a_second_run_of_one_seed_is_no_new_evidence(recorded: Recorder) -> None:
    once, again = recorded("eapo", [0.5]), recorded("eapo", [0.5])
    assert [method.label for method in methods_of([once, again])] == ["eapo-1", "eapo-2"]
    assert len(methods_of([once, once, Run(once.folder / ".")])) == 1


def test_settings_other_than_the_seed_make_another_method(
    recorded: Recorder, tmp_path: Path
) -> None:
    run = recorded("eapo", [0.5], seed=0)
    longer = Run.create(replace(embedded(), name="eapo", seed=1, steps=3), tmp_path)
    found = methods_of([run, longer])
    assert [method.label for method in found] == ["eapo-1", "eapo-2"]


def test_folders_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = []
    for place, steps in (("a", 2), ("b", 3)):
        run = Run.create(replace(embedded(), name="x", steps=steps), tmp_path / place)
        run.record(1, {"accuracy": 0.5})
        runs.append(run)
    labels = [method.label for method in methods_of(runs)]
    assert labels == [str(run.folder) for run in runs]


def test_a_curve_over_seeds_by_hand(recorded: Recorder) -> None:
    """Seeds 0.2, 0.4, 0.6: the mean 0.4, the error 0.2 / sqrt(3), Student's t of 2 is 4.30265."""
    runs = [recorded("eapo", [a, 0.5], seed=n) for n, a in enumerate((0.2, 0.4, 0.6))]
    [method] = methods_of(runs)
    curve = method.curve("accuracy")
    assert dict(curve.mean) == pytest.approx({1: 0.4, 2: 0.5})
    half = 4.30265 * 0.2 / 3**0.5
    assert curve.band[0] == pytest.approx((1, 0.4 - half, 0.4 + half), rel=1e-4)
    assert curve.band[1] == pytest.approx((2, 0.5, 0.5))
    assert curve.seeds[1] == ((1, 0.4), (2, 0.5))


def test_a_mean_ends_where_the_shortest_run_does(recorded: Recorder) -> None:
    long = recorded("eapo", [0.5, 0.5, 0.5, 0.75], seed=0)
    short = recorded("eapo", [0.25, 0.25], seed=1)
    fresh = recorded("eapo", [], seed=2)
    [method] = methods_of([long, short, fresh])
    curve = method.curve("accuracy")
    assert [step for step, _ in curve.mean] == [1, 2]
    assert [len(points) for points in curve.seeds] == [4, 2]
    assert method.last("accuracy") == (0.75 + 0.25) / 2
    assert method.curve("nothing") == type(curve)(seeds=(), mean=(), band=())
    assert method.last("nothing") is None


def test_a_single_run_has_the_interval_that_it_recorded(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5, 0.5])
    bounds = {"alone/interval_low": 0.25, "alone/interval_high": 0.75}
    run.record(3, {"accuracy": 0.5, "alone/mean_at_k": 0.5, **bounds})
    [method] = methods_of([run])
    assert method.curve("alone/mean_at_k").band == ((3, 0.25, 0.75),)
    assert method.curve("accuracy").band == ()


def test_the_latest_evaluation_counts_seeds_and_problems(recorded: Recorder) -> None:
    runs = [
        recorded("eapo", [0.5], seed=0, correct={2: [NONE, NONE], 4: [ALL, HALF]}),
        recorded("eapo", [0.5], seed=1, correct={2: [NONE, NONE], 4: [HALF, NONE], 6: [ALL, ALL]}),
        recorded("eapo", [0.5], seed=2),
    ]
    latest = methods_of(runs)[0].latest_evaluation()
    assert latest is not None
    assert (latest.step, len(latest.runs), latest.mean) == (4, 2, 0.5)
    assert latest.values_SP.tolist() == [[1.0, 0.5], [0.5, 0.0]]
    assert latest.interval == seeds_interval([[1.0, 0.5], [0.5, 0.0]])
    one = methods_of(runs[:1])[0].latest_evaluation()
    assert one is not None
    assert one.interval == bootstrap_interval([1.0, 0.5], np.random.default_rng(0))
    assert methods_of(runs[2:])[0].latest_evaluation() is None


def test_a_single_value_has_no_interval(recorded: Recorder) -> None:
    latest = methods_of([recorded("eapo", [0.5], correct={1: [HALF]})])[0].latest_evaluation()
    assert latest is not None
    assert (latest.mean, latest.interval) == (0.5, None)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=5), min_size=1, max_size=4))
def test_the_mean_lies_within_its_band_and_its_seeds(values: list[list[float]]) -> None:
    runs = tuple(
        RecordedRun(
            run=Run(Path("x")),
            config=embedded(),
            metrics=tuple({"step": n, "a": value} for n, value in enumerate(one)),
            evaluations={},
        )
        for one in values
    )
    curve = MethodRuns(label="", runs=runs).curve("a")
    assert len(curve.mean) == min(map(len, values))
    for step, mean in curve.mean:
        here = [one[step] for one in values]
        assert min(here) - 1e-9 <= mean <= max(here) + 1e-9
    for (step, mean), (at, low, high) in zip(curve.mean, curve.band, strict=len(values) > 1):
        assert step == at
        assert low <= mean <= high


def test_runs_without_metrics_are_an_error_only_if_all_are(recorded: Recorder) -> None:
    fresh = recorded("fresh", [])
    with pytest.raises(ValueError, match=f"{fresh.folder} has no metrics yet"):
        methods_of([fresh])
    assert len(methods_of([recorded("eapo", [0.5]), fresh])) == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{", ""),
        ("[]", r"\[\]"),
        ("{}", "correct_PK: Field required"),
        ('{"correct_PK": []}', r"problems of \[\] samples"),
        ('{"correct_PK": [[]]}', r"problems of \[0\] samples"),
        ('{"correct_PK": ["x"]}', "'x'"),
        ('{"correct_PK": [[true, 7]]}', "correct_PK.0.1: .*: 7"),
        ('{"correct_PK": [[null]]}', "correct_PK.0.0: .*: None"),
        ('{"correct_PK": [[true], [true, false]]}', r"problems of \[1, 2\] samples"),
    ],
)
def test_a_damaged_evaluation_is_an_error(text: str, value: str, recorded: Recorder) -> None:
    run = recorded("eapo", [0.5], correct={1: [ALL]})
    run.evaluations[1].write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=f"step-000001.json holds no Evaluation: .*{value}"):
        methods_of([run])[0].latest_evaluation()


def test_seeds_evaluated_on_other_numbers_of_problems_are_an_error(recorded: Recorder) -> None:
    runs = [
        recorded("eapo", [0.5], seed=n, correct={1: [ALL] * count}) for n, count in ((0, 2), (1, 3))
    ]
    paths = [run.evaluations[1] for run in runs]
    with pytest.raises(ValueError, match=f"{paths[1]} has 3 problems, {paths[0]} has 2"):
        methods_of(runs)[0].latest_evaluation()


def test_what_a_run_recorded_stays_as_it_was_read(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    [method] = methods_of([run])
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 2, "accuracy": 1.0}) + "\n")
    assert method.last("accuracy") == 0.5
