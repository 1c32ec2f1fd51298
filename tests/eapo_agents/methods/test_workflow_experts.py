"""Experts of workflows and recordings behind servers that fail, are slow, or want other fields."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import as_options
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.methods.solutions import read_solutions
from eapo_agents.training.run_folder import read_evaluation
from eapo_agents.training.settings import ExpertSettings
from eapo_env.endpoints import Endpoint
from eapo_env.types import Query, Reply


@pytest.fixture
def server() -> Iterator[Any]:
    with StubServer() as server:
        yield server


def experts(server: Any, *models: str, **fields: object) -> list[str]:
    """The settings of experts behind a server, which is not asked for anything else."""
    endpoint = {"base_url": server.url, "models": models, "max_retries": 0, **fields}
    served = ["experts.kind=openai", f"experts.endpoints={json.dumps([endpoint])}"]
    return [*served, "experts.preflight=skipped"]


def command(name: str, *arguments: str, settings: list[str]) -> list[str]:
    return [name, *arguments, *as_options(settings)]


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was printed, without its line ends."""
    return " ".join(capsys.readouterr().out.split())


def model_of(settings: list[str]) -> str:
    return next(s for s in settings if s.startswith("model.path=")).partition("=")[2]


@pytest.mark.slow
def test_experts_that_do_not_answer_are_no_experts(
    server: Any,
    tiny_settings: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As a model that refuses a field of the request does: the numbers are not those of experts."""
    settings = [*tiny_settings, *experts(server, "solve:3", "status:400")]
    given = [model_of(settings), "alone", "experts", "--replies", "2", "--out", str(tmp_path)]
    assert main(command("workflow", *given, settings=settings)) == 0
    told = said(capsys)
    assert "unanswered queries │ 0.000 │ 0.500" in told
    assert "experts, held_out: 50% of the queries had no answer" in told
    assert "alone, held_out" not in told
    found = read_evaluation(tmp_path / "experts.json").reports["held_out"]
    assert found.unanswered_rate == 0.5
    assert found.intervals["unanswered_rate"] == (0.5, 0.5)

    server.kill()
    given[-1] = str(tmp_path / "dead")
    checked = [*settings, "experts.preflight=required"]
    assert main(command("workflow", *given, settings=checked)) == 2
    assert "experts that cannot be asked" in capsys.readouterr().err
    assert main(command("workflow", *given, settings=settings)) == 0
    assert "experts, held_out: 100% of the queries" in said(capsys)
    assert any("expert replies did not come" in message for message in caplog.messages)


def test_a_setting_changes_what_experts_are_sent(
    server: Any, tiny_settings: list[str], tmp_path: Path
) -> None:
    extra = {"max_tokens": None, "max_completion_tokens": 99, "temperature": None}
    settings = [*tiny_settings, *experts(server, "solve:3")]
    settings.append(f"experts.extra_body={json.dumps(extra)}")
    given = [model_of(settings), "experts", "--replies", "1"]
    assert main(command("workflow", *given, settings=settings)) == 0
    recorded = command("record-experts", str(tmp_path / "r.jsonl"), settings=settings)
    assert main([*recorded, "--samples", "1"]) == 0
    bodies = [call["body"] for call in server.records("solve:3")]
    assert len(bodies) == 4 * 2 + 4
    assert all(body["max_completion_tokens"] == 99 for body in bodies)
    assert not any({"max_tokens", "temperature"} & set(body) for body in bodies)


@pytest.mark.slow
def test_an_evaluation_waits_for_a_free_call_and_training_does_not(server: Any) -> None:
    """Six calls of 0.3 s, one at a time; the deadline of a consultation is one second."""
    endpoint = Endpoint(base_url=server.url, models=("delay:0.3",), max_live_calls=1)
    settings = ExpertSettings(kind="openai", endpoints=(endpoint,), batch_timeout_s=1.0)
    queries = [Query(text=f"question {n}") for n in range(6)]
    for pool in (settings.without_batch_deadline(), settings.solvers(max_tokens=9, timeout_s=60.0)):
        replies = asyncio.run(pool.ask(queries))
        assert replies == [Reply("delay:0.3", f"echo: question {n}") for n in range(6)]
    late = asyncio.run(settings.build().ask(queries))
    assert not isinstance(late[-1], Reply)


def test_what_experts_did_not_answer_is_asked_again(
    server: Any, tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of two experts fails at first; more samples are wanted later."""
    path = tmp_path / "r.jsonl"
    failing = [*tiny_settings, *experts(server, "solve:3", "status:500")]
    assert main(command("record-experts", str(path), "--samples", "2", settings=failing)) == 0
    told = said(capsys)
    assert "8 solutions of 4 problems, 4 right, 0 wrong, 4 unavailable" in told
    assert "asks for the unavailable ones again" in told
    working = [*tiny_settings, *experts(server, "solve:4", "solve:3")]
    assert main(command("record-experts", str(path), "--samples", "3", settings=working)) == 0
    assert "12 solutions of 4 problems, 8 right, 4 wrong, 0 unavailable" in said(capsys)
    found = read_solutions(path)
    assert [sorted(one.sample for one in of) for of in found.values()] == [[0, 1, 2]] * 4
    assert len(server.records("solve:3")) == 4 + 4, "what was answered is not asked again"


def test_solutions_are_graded_as_the_settings_say(
    server: Any, tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In words, `3` is `the 3`."""
    problems = tmp_path / "words.jsonl"
    problems.write_text('{"id": "a", "problem": "Which?", "answer": "the 3"}\n', encoding="utf-8")
    words = ["verifier.kind=f1", "evaluation.problems.answers=words"]
    settings = [*tiny_settings, *experts(server, "solve:3"), *words]
    record = command("record-experts", str(tmp_path / "r.jsonl"), settings=settings)
    assert main([*record, "--samples", "1", "--problems", str(problems)]) == 0
    assert "1 solutions of 1 problems, 1 right, 0 wrong" in said(capsys)


def test_solutions_of_another_problem_of_the_same_id_are_refused(
    server: Any, tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, other = tmp_path / "r.jsonl", tmp_path / "other.jsonl"
    settings = [*tiny_settings, *experts(server, "solve:3")]
    assert main(command("record-experts", str(path), "--samples", "1", settings=settings)) == 0
    other.write_text('{"id": "q0", "problem": "another one", "answer": "3"}\n', encoding="utf-8")
    problems = ["--problems", str(other)]
    record = command("record-experts", str(path), settings=settings)
    drawn = [model_of(settings), "recorded", "--replies", "1", "--recording", str(path)]
    for given in (record, command("workflow", *drawn, settings=settings)):
        assert main([*given, *problems]) == 2
        assert "'q0' are of another problem of this id" in capsys.readouterr().err
    assert main([*record, *problems, "--samples", "1"]) == 2
    both = [*problems, f"again={other}"]
    new = command("record-experts", str(tmp_path / "new.jsonl"), settings=settings)
    assert main([*new, *both]) == 2
    assert "two problems have one id" in capsys.readouterr().err
    assert main([*new, *problems, "--samples", "1"]) == 0
    assert "1 solutions of 1 problems" in said(capsys)
