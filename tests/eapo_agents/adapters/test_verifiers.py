"""`vf-eval`, in an environment of its own, against a server of the embedded model.

`make test-verifiers` makes that environment and says where it is.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from command import as_options, succeed
from programs import start_program

VF_EVAL = os.environ.get("EAPO_VF_EVAL", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not VF_EVAL, reason="EAPO_VF_EVAL names no vf-eval"),
]

SETTINGS = ["evaluation.problems.num_problems=24", "rollout.temperature=0"]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with start_program("served_embedded.py") as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().strip()
        finally:
            server.kill()


def evaluated(
    address: str, folder: Path, *options: str, settings: Sequence[str] = SETTINGS
) -> list[dict[str, Any]]:
    """Run vf-eval, offline; return its traces."""
    command = [VF_EVAL, "eapo-math", "--no-push", "--no-rich", "--output-dir", str(folder)]
    command += ["--model", "embedded", "--client.base-url", address, "--run.name", "one"]
    command += ["--env.agent.runtime.type", "subprocess"]
    command += ["--env.taskset.settings", json.dumps(list(settings)), *options]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [written] = folder.rglob("traces.jsonl")
    rows = [json.loads(line) for line in written.read_text(encoding="utf-8").splitlines()]
    return [trace for row in rows for trace in row.get("traces", [row])]


def mean(traces: Sequence[dict[str, Any]], name: str) -> float:
    return float(sum(trace["metrics"][name] for trace in traces)) / len(traces)


def test_it_agrees_with_our_own_evaluation(address: str, tmp_path: Path) -> None:
    """Greedy, alone, the same problems: equal, not only within the interval."""
    traces = evaluated(address, tmp_path)
    assert not [trace["errors"] for trace in traces if trace["errors"]]
    assert len(traces) == 24
    assert mean(traces, "queries") == 0
    report = tmp_path / "report.json"
    settings = as_options([*SETTINGS, "evaluation.samples_per_problem=1"])
    succeed("evaluate", "embedded", *settings, "--json", str(report))
    ours = json.loads(report.read_text(encoding="utf-8"))
    [[*correct_P1]] = [one["correct_PK"] for one in ours["sets"].values()]
    by_place = sorted(traces, key=lambda trace: int(trace["task"]["data"]["idx"]))
    assert [[bool(trace["metrics"]["correct"])] for trace in by_place] == correct_P1
    assert 0.5 < mean(traces, "correct") < 1


def test_truncated_sampling_reaches_the_policy(address: str, tmp_path: Path) -> None:
    """The likeliest token alone, at temperature 1, is greedy decoding."""
    right = []
    for number, how in enumerate(
        (["rollout.temperature=0"], ["rollout.temperature=1", "evaluation.truncation.top_k=1"])
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        settings = ["evaluation.problems.num_problems=8", *how]
        traces = evaluated(address, folder, settings=settings)
        by_place = sorted(traces, key=lambda trace: int(trace["task"]["data"]["idx"]))
        right.append([trace["metrics"]["correct"] for trace in by_place])
    assert right[0] == right[1]


def test_experts_are_consulted_and_withdrawn(address: str, tmp_path: Path) -> None:
    by_rate = {}
    for rate in (1.0, 0.0):
        folder = tmp_path / str(rate)
        folder.mkdir()
        options = ["--env.taskset.turn-budget", "2", "--env.taskset.acceptance-rate", str(rate)]
        few = [*SETTINGS, "evaluation.problems.num_problems=8"]
        by_rate[rate] = evaluated(address, folder, *options, settings=few)
    for traces in by_rate.values():
        assert mean(traces, "queries") > 1
        assert all(trace["rewards"]["eapo"] is not None for trace in traces)
    assert mean(by_rate[1.0], "accepted") == mean(by_rate[1.0], "queries")
    assert mean(by_rate[0.0], "accepted") == 0


def test_a_bad_setting_ends_the_evaluation(address: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="unknown setting 'nothing'"):
        evaluated(address, tmp_path, settings=["nothing=1"])


def test_a_policy_that_is_gone_makes_an_error_and_no_wrong_answer(tmp_path: Path) -> None:
    one = ["evaluation.problems.num_problems=1"]
    [trace] = evaluated("http://127.0.0.1:9/v1", tmp_path, settings=one)
    assert trace["errors"]
    assert (trace["rewards"], trace["metrics"]) == ({}, {})
