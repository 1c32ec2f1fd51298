"""Workflows and LeaP on real vLLM, in process and behind its server, beside transformers.

The embedded model always takes its likeliest token here, so all three must come to the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from command import as_options

from eapo_agents.cli import main
from eapo_agents.evaluation.evaluator import Report
from eapo_agents.methods.solutions import read_solutions
from eapo_agents.policies.models import model_folder
from eapo_agents.serving.expert_servers import ExpertServers
from eapo_agents.serving.process import free_port
from eapo_agents.training.run_folder import read_evaluation

NAME = "the-embedded-model"
SETTINGS = [
    "rollout.temperature=0",
    "rollout.limits.max_response_tokens=128",
    "evaluation.samples_per_problem=2",
    "evaluation.problems.num_problems=6",
    "evaluation.problems.brackets=1",
]
ENGINE = ["engine=vllm", "engine.max_batch=32", f"engine.cache_bytes={32 << 20}"]
CONDITIONS = ["alone", "self", "experts", "meaningless"]


def with_options(*settings: str) -> list[str]:
    return as_options([*SETTINGS, *settings])


def workflow(model: str, out: Path, *arguments: str) -> dict[str, Report]:
    """The reports of a workflow by condition."""
    command = ["workflow", model, *CONDITIONS, "--replies", "1", "--out", str(out)]
    assert main([*command, *arguments]) == 0
    return {
        condition: read_evaluation(out / f"{condition}.json").reports["synthetic"]
        for condition in CONDITIONS
    }


def leap(model: str, file: Path, *arguments: str) -> Report:
    command = ["leap", model, "--paths", "2", "--peers", "1", "--block", "10"]
    assert main([*command, "--json", str(file), *arguments]) == 0
    return read_evaluation(file).reports["synthetic"]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Report]:
    """What transformers come to."""
    folder = tmp_path_factory.mktemp("transformers")
    reports = workflow("embedded", folder, *with_options())
    return {**reports, "leap": leap("embedded", folder / "leap.json", *with_options())}


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Where vLLM's own server serves the embedded model."""
    port = free_port()
    server = ExpertServers(
        model=model_folder("embedded"), name=NAME, port=port, max_model_len=384, max_num_seqs=16
    )
    with server.run():
        yield f"http://127.0.0.1:{port}/v1"


def test_in_process_they_are_what_they_are_on_transformers(
    theirs: dict[str, Report], tmp_path: Path
) -> None:
    ours = workflow("embedded", tmp_path, *with_options(*ENGINE))
    assert ours == {condition: theirs[condition] for condition in CONDITIONS}
    assert ours["experts"].mean_at_k > ours["meaningless"].mean_at_k
    assert leap("embedded", tmp_path / "leap.json", *with_options(*ENGINE)) == theirs["leap"]


def test_behind_a_server_they_are_what_they_are_on_transformers(
    theirs: dict[str, Report], url: str, tmp_path: Path
) -> None:
    place = ("engine=openai", f"engine.base_url={url}", "rollout.wording=terse")
    served = ["--preset", "embedded", *with_options(*place)]
    ours = workflow(NAME, tmp_path, *served)
    assert {name: report.correct_PK for name, report in ours.items()} == {
        name: theirs[name].correct_PK for name in CONDITIONS
    }
    found = leap(NAME, tmp_path / "leap.json", *served)
    assert (found.num_problems, found.samples_per_problem) == (6, 2)
    assert found.response_tokens > 10


def test_served_experts_are_recorded_and_replayed(
    theirs: dict[str, Report], url: str, tmp_path: Path
) -> None:
    """The expert is the model itself: its recorded solutions are right where it is, alone."""
    recording, out = tmp_path / "recording.jsonl", tmp_path / "out"
    experts = f'experts.endpoints=[{{"base_url": "{url}", "models": ["{NAME}"]}}]'
    settings = with_options("experts.kind=openai", experts)
    assert main(["record-experts", str(recording), "--samples", "1", *settings]) == 0
    alone = theirs["alone"]
    statuses = {p: one.status for p, (one,) in read_solutions(recording).items()}
    assert len(statuses) == 6
    command = ["workflow", "embedded", "recorded", "--replies", "1", *with_options(*ENGINE)]
    assert main([*command, "--recording", str(recording), "--out", str(out)]) == 0
    found = read_evaluation(out / "recorded.json")
    wrong = sum(status != "correct" for status in statuses.values())
    assert found.wrong_replies == {"synthetic": wrong / 6}
    assert found.reports["synthetic"].call_rate == 1.0
    assert alone.num_problems == 6
