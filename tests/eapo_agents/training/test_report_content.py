"""What the page shows: curves as they were computed, episodes as they were recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from written_episodes import ASKED, REFUSED, alone, consulting

from eapo_agents.training.report.content import (
    MAX_POINTS,
    episodes,
    evaluated,
    recorded_bytes,
    rounded,
    summary,
    thinned,
)
from eapo_agents.training.report.runs import methods_of
from eapo_agents.training.report.transcripts import transcripts_of
from eapo_agents.training.run_folder import Run
from eapo_env.validation import UserError

Recorder = Callable[..., Run]


def test_the_curves_are_those_of_the_methods(recorded: Recorder) -> None:
    runs = [recorded("eapo", [0.25, 0.5, 0.75], seed=0), recorded("eapo", [0.5, 0.5], seed=1)]
    runs.append(recorded("rl", [0.125]))
    found = summary(runs)
    assert found["methods"] == ["eapo (2 seeds)", "rl"]
    assert [(run["name"], run["method"], run["steps"]) for run in found["runs"]] == [
        ("eapo-1", 0, 3),
        ("eapo-2", 0, 2),
        ("rl-1", 1, 1),
    ]
    eapo, rl = found["curves"]["accuracy"]
    expected = methods_of(runs)[0].curve("accuracy")
    assert eapo["mean"] == [[1, 2], [0.375, 0.5]]
    assert eapo["band"][1] == [float(f"{low:.6g}") for _, low, _ in expected.band]
    assert eapo["seeds"] == [[[1, 2, 3], [0.25, 0.5, 0.75]], [[1, 2], [0.5, 0.5]]]
    assert rl == {"mean": [[1], [0.125]], "band": [], "seeds": []}
    json.dumps(found, allow_nan=False)


def test_runs_of_the_same_name_are_told_apart_by_their_folders(
    recorded: Recorder, tmp_path: Path
) -> None:
    run = recorded("eapo", [0.25])
    copies = [tmp_path / method / "seed-0" for method in ("one", "other")]
    for copy in copies:
        copytree(run.folder, copy)
    found = summary([Run.open(copy) for copy in copies])
    assert sorted(one["name"] for one in found["runs"]) == ["one/seed-0", "other/seed-0"]


def test_the_tag_differs_whenever_anything_does(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    first = summary([run])
    assert summary([run]) == first
    tags = {first["tag"]}
    for change in (
        lambda: run.record(2, {"accuracy": 0.5}),
        lambda: run.record_event("finished", 2),
        lambda: run.record_transcripts(2, [alone()]),
        lambda: run.record_evaluated(2, [alone()]),
    ):
        change()
        tags.add(summary([run])["tag"])
    assert len(tags) == 5


def test_a_number_that_json_lacks_is_a_gap(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record(2, {"loss": float("nan"), "grad_norm": float("inf")})
    found = summary([run])["curves"]
    assert found["loss"][0]["mean"] == [[2], [None]]
    assert found["grad_norm"][0]["mean"] == [[2], [None]]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_have_six_digits(value: float) -> None:
    assert rounded(value) == pytest.approx(value, rel=1e-5, abs=1e-320)


@given(st.lists(st.tuples(st.integers(), st.integers()), max_size=50), st.integers(1, 20))
def test_a_long_curve_keeps_its_ends(points: list[tuple[int, int]], most: int) -> None:
    found = thinned(points, most)
    assert len(found) <= most + 1
    assert found[:1] + found[-1:] == points[:1] + points[-1:]
    assert len(points) > most or found == points


def test_curves_are_drawn_at_no_more_points_than_a_screen_has(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5] * (2 * MAX_POINTS + 2))
    steps, values = summary([run])["curves"]["accuracy"][0]["mean"]
    assert len(steps) == len(values) <= MAX_POINTS + 1
    assert (steps[0], steps[-1]) == (1, 2 * MAX_POINTS + 2)


def test_settings_and_events_are_text_by_name(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_event("failed", 1, error="<b>x</b>")
    [found] = summary([run])["runs"]
    assert found["settings"]["name"] == "eapo"
    assert found["settings"]["rollout.group_size"] == str(run.config.rollout.group_size)
    assert found["events"][-1]["error"] == "<b>x</b>"
    assert all(isinstance(value, str) for value in found["settings"].values())


def test_episodes_come_by_groups(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    rows = [alone(problem_id=str(n // 2), member=n % 2) for n in range(10)]
    run.record_transcripts(1, rows)
    run.record_transcripts(10, rows)

    def problems(step: int, every: int) -> list[str]:
        return [row["problem_id"] for row in episodes(run, step, every)]

    assert problems(1, 1) == problems(10, 1) == [str(n // 2) for n in range(10)]
    assert problems(1, 2) == ["0", "0", "2", "2", "4", "4"]
    assert problems(10, 2) == ["1", "1", "3", "3"]
    assert problems(1, 4) == ["0", "0", "4", "4"]
    assert problems(10, 9) == [], "a step without any"
    assert [row["group"] for row in episodes(run, 1, 2)] == [0, 0, 2, 2, 4, 4]
    assert recorded_bytes([run, run]) == 4 * run.transcripts[1].stat().st_size
    json.dumps(episodes(run, 1), allow_nan=False)


def test_the_episodes_of_an_evaluation_are_thinned_out_alike(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    for step in (4, 8):
        run.record_evaluated(step, [alone(problem_id=str(n), use="evaluated") for n in range(4)])
    found = [[row["problem_id"] for row in evaluated(run, step, 2)] for step in (4, 8)]
    assert found == [["0", "2"], ["1", "3"]]
    [shown] = summary([run])["runs"]
    assert (shown["episodes"], shown["evaluated"]) == ([], [4, 8])
    assert recorded_bytes([run]) == 2 * run.evaluated[4].stat().st_size


def test_an_episode_has_the_latencies_that_stand_beside_it(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(), consulting(ASKED, REFUSED)])
    run.record_latencies(1, [{"latencies_s": []}, {"latencies_s": [[0.25, None]]}])
    _, found = transcripts_of(run, 1)
    assert [one.latency_s for one in found.consultations[0]] == [0.25, None]
    assert [one.expert for one in found.consultations[0]] == ["ada", ""]


@pytest.mark.parametrize(
    "rows",
    [
        [{"latencies_s": [[0.25, None]]}],
        [{"latencies_s": []}, {"latencies_s": [[0.25]]}],
        [{"latencies_s": []}, {"latencies_s": []}],
        [],
    ],
)
def test_latencies_that_do_not_fit_are_unknown(
    rows: list[dict[str, Any]], recorded: Recorder
) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone(), consulting(ASKED, REFUSED)])
    run.record_latencies(1, rows)
    _, found = transcripts_of(run, 1)
    assert [one.latency_s for one in found.consultations[0]] == [None, None]


def test_damaged_latencies_are_an_error(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    run.record_transcripts(1, [alone()])
    run.record_latencies(1, [{"latencies_s": "soon"}])
    with pytest.raises(UserError, match=r"step-000001.jsonl, line 1 holds no Latencies: .*'soon'"):
        episodes(run, 1)


def test_the_episodes_of_earlier_versions_are_shown_as_far_as_they_go(recorded: Recorder) -> None:
    run = recorded("eapo", [0.5])
    new = {"given", "queries_per_turn", "environment_tokens", "use", "advantage"}
    old = {name: value for name, value in consulting().items() if name not in new}
    old["messages"] = [{"role": m["role"], "content": m["content"]} for m in old["messages"]]
    run.record_transcripts(1, [old])
    [found] = episodes(run, 1)
    assert {name: found[name] for name in new} == dict.fromkeys(new)
    assert found["messages"][1]["action"] is None
    assert found["consultations"][0][0]["latency_s"] is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text())
def test_texts_come_through_unchanged(recorded: Recorder, text: str) -> None:
    run = recorded("eapo", [])
    message = {"role": "assistant", "content": text, "action": "answer"}
    run.record_transcripts(1, [alone(messages=[message], given=text, problem_id=text)])
    [found] = episodes(run, 1)
    as_written = text.encode("utf-8", "replace").decode()
    assert found["messages"][0]["content"] == found["given"] == found["problem_id"] == as_written
