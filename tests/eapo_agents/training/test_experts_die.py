"""Experts that die, hang, or were never there: what a training does, and what it says."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from command import as_options, eapo_forked, started_forked
from stub_server import StubServer

from eapo_agents.cli import main
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.reward_step import RewardStep
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.guarded_experts import ExpertMonitor
from eapo_env.synthetic import synthetic_problems
from eapo_env.types import Problem
from eapo_env.validation import UserError

pytestmark = pytest.mark.slow


def test_a_killed_server_is_missed_once_a_minute_and_used_again(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It is killed after the second step and started again after the fourth.

    The clock of the warnings stands still: however long the test takes, its minute is not over.
    """
    with StubServer() as server:
        endpoint = {
            "base_url": server.url,
            "models": ["echo"],
            "max_retries": 0,
            "breaker": {"max_failures": 5, "cooldown_s": 0.0},
        }
        config = with_settings(
            tiny_config,
            [
                "experts.kind=openai",
                f"experts.endpoints={json.dumps([endpoint])}",
                "steps=6",
                "annealing.steps=60",
                "transcripts_every=1",
                "rollout.group_size=8",
                "learner.learning_rate=1e-6",  # it goes on consulting
            ],
        )
        warned: list[int] = []

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            warned.append(sum("expert replies did not come" in one for one in caplog.messages))
            match step:
                case 2:
                    server.kill()
                case 4:
                    server.start()

        trainer = Trainer.from_config(config)
        assert isinstance(trainer.step, RewardStep)
        monitor = ExpertMonitor(clock=lambda: 0.0)
        rollout = replace(trainer.rollout, monitor=monitor)
        trainer = replace(trainer, step=replace(trainer.step, rollout=rollout))
        run = Run.create(config, tmp_path)
        assert trainer.train(run, on_step)
        answered = server.records("echo")  # since it came back
    assert warned[1] == 0
    assert warned[3:] == [1, 1, 1]
    told = next(one for one in caplog.messages if "expert replies did not come" in one)
    assert "; it goes on without them. The last: echo: " in told
    assert "APITimeoutError" not in told  # openai's kind of a connection that was refused
    rates = [row["expert_failure_rate"] for row in run.metrics]
    assert rates[:4] == [0.0, 0.0, 1.0, 1.0]
    assert rates[4] < 1.0
    assert rates[5] == 0.0
    assert len(answered) >= 4
    assert came(run, 2) == {True}
    assert came(run, 3) == {False}
    assert came(run, 6) == {True}


def came(run: Run, step: int) -> set[bool]:
    """Return whether the accepted replies of a step came: all of them, none, or some."""
    path = run.folder / "transcripts" / f"step-{step:06d}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    slots = [slot for row in rows for asked in row["consultations"] for slot in asked]
    return {"reply" in slot for slot in slots if slot["accepted"]}


def endpoint(url: str, model: str = "echo", **more: str) -> str:
    return json.dumps([{"base_url": url, "models": [model], "max_retries": 0} | more])


def test_a_run_does_not_start_with_experts_that_do_not_answer(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StubServer("echo") as server:
        settings = [*tiny_settings, "steps=1", "experts.kind=openai"]
        arguments = ["train", *as_options(settings), "--runs", str(tmp_path / "runs"), "--set"]
        assert main([*arguments, f"experts.endpoints={endpoint(server.url, 'QwQ-32B')}"]) == 2
        told = capsys.readouterr().err
        assert f"{server.url}: serves echo" in told
        assert ", not QwQ-32B" in told
    assert main([*arguments, f"experts.endpoints={endpoint(server.url)}"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"eapo: experts that cannot be asked: {server.url}: Cannot connect")
    assert told.endswith("experts.preflight=skipped starts without them\n")
    assert told.count("\n") == 1
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_run_alone_needs_no_experts_and_records_its_first_and_last_step(
    tiny_settings: list[str], tmp_path: Path
) -> None:
    keyless = endpoint("http://127.0.0.1:9/v1", api_key_env="EAPO_TESTS_HAVE_NO_SUCH_KEY")
    nobody = f"experts.endpoints={keyless}"
    alone = ["steps=3", "transcripts_every=10", "annealing.turn_budget=1", "experts.kind=openai"]
    settings = as_options([*tiny_settings, *alone, nobody])
    assert main(["train", *settings, "--runs", str(tmp_path)]) == 0
    assert list(Run.open(tmp_path / "tiny-1").transcripts) == [1, 3]


def test_a_server_without_a_list_of_models_is_asked_for_a_token(
    tiny_settings: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [*tiny_settings, "steps=1", "experts.kind=openai"]
    arguments = ["train", *as_options(settings), "--runs", str(tmp_path / "runs"), "--set"]
    with StubServer() as server:
        assert main([*arguments, f"experts.endpoints={endpoint(server.url)}"]) == 0
        assert server.records("echo")[0]["body"]["max_tokens"] == 1
        nowhere = server.url.removesuffix("/v1")
        capsys.readouterr()
        assert main([*arguments, f"experts.endpoints={endpoint(nowhere)}"]) == 2
        assert f"experts that cannot be asked: {nowhere}: " in capsys.readouterr().err


def test_experts_that_never_answer_are_seen_and_may_end_the_run(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_settings(
        tiny_config,
        [
            "experts.kind=openai",
            f"experts.endpoints={endpoint('http://127.0.0.1:9/v1')}",
            "experts.preflight=skipped",
            "steps=3",
            "checkpoint_every=9",
            "annealing.steps=60",
            "stop_without_experts=2",
        ],
    )
    run = Run.create(config, tmp_path)
    with pytest.raises(UserError, match="the experts have not answered for 2 steps") as caught:
        Trainer.from_config(config).train(run)
    assert any("can be resumed from step-000002" in note for note in caught.value.__notes__)
    assert len(run.metrics) == 2
    for row in run.metrics:
        assert row["call_rate"] > 0
        assert row["acceptance_rate"] > 0.9
        assert (row["acceptance_rate_realised"], row["failed_reply_rate"]) == (0, 1)
    told = next(one for one in caplog.messages if one.startswith("STEP 1: "))
    assert "THE EXPERTS LEFT 100% OF THE ACCEPTED QUERIES UNANSWERED" in told
    assert "Cannot connect to host 127.0.0.1:9" in told
    assert set(run.transcripts) == {1, 2}, "the first step, and those whose experts were silent"
    resumed = with_settings(config, ["stop_without_experts=null"])
    assert Trainer.from_config(resumed).train(run)


HANGING = """
import asyncio, time

from pathlib import Path

class Hangs:
    async def ask(self, queries):
        Path("asked").touch()
        await asyncio.sleep(3600)

class Blocks:
    async def ask(self, queries):
        Path("asked").touch()
        time.sleep(3600)

class WaitsForAThread:
    async def ask(self, queries):
        Path("asked").touch()
        await asyncio.to_thread(time.sleep, 3600)
"""


@pytest.mark.parametrize("pool", ["Hangs", "Blocks", "WaitsForAThread"])
def test_a_pool_that_hangs_costs_its_replies_and_not_the_run(
    pool: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HANGING)
    settings = [*tiny_settings, "steps=1", "experts.kind=python", f"experts.factory=mine:{pool}"]
    settings += ["experts.batch_timeout_s=0.5", "evaluation.samples_per_problem=1"]
    done = eapo_forked("train", *as_options(settings), "--runs", tmp_path / "runs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no reply within 0.5 s" in done.stderr
    [row] = Run.open(tmp_path / "runs" / "tiny-1").metrics
    assert row["expert_failure_rate"] == row["failed_reply_rate"] == 1
    assert row["expert_errors"] > 0


@pytest.mark.parametrize("pool", ["Hangs", "Blocks", "WaitsForAThread"])
def test_ctrl_c_says_what_it_waits_for_and_a_second_one_does_not_wait(
    pool: str, tiny_settings: list[str], tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(HANGING)
    settings = [*tiny_settings, "steps=1", "experts.kind=python", f"experts.factory=mine:{pool}"]
    settings += ["experts.batch_timeout_s=3000"]
    arguments = ("train", *as_options(settings), "--runs", str(tmp_path / "runs"))
    with started_forked(*arguments, cwd=tmp_path) as child:
        while not (tmp_path / "asked").exists():
            assert child.poll() is None, child.communicate()
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.stderr.readline() == "\n"
        told = child.stderr.readline()
        assert re.fullmatch(
            r"finishing this step \(waiting for \d+ expert replies, \d+ s\); Ctrl-C again stops at"
            r" once\n",
            told,
        )
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130
    assert list((tmp_path / "runs").iterdir()) == []  # nothing was computed


def test_evaluations_on_other_problems_than_ones_own_are_reported(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"problem": "1 + 1?", "answer": "2"}\n')
    own = with_settings(
        tiny_config, [f"problems.source={file}", "evaluation.problems.source=synthetic"]
    )
    Trainer.from_config(own, held_out=synthetic_problems(8))
    Trainer.from_config(tiny_config)
    assert "evaluation.problems" not in caplog.text
    Trainer.from_config(own)
    assert f"{file}, but evaluation.problems.source=synthetic" in caplog.text


def test_experts_that_know_other_problems_are_reported(
    tiny_config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    problems = [Problem(id=str(n), statement=f"Who is number {n}?", answer="Ada") for n in range(8)]
    Trainer.from_config(tiny_config)
    Trainer.from_config(tiny_config, problems=synthetic_problems(8, brackets=1, operations=1))
    alone = with_settings(tiny_config, ["annealing.turn_budget=1"])
    Trainer.from_config(alone, problems=problems)
    assert caplog.records == []
    Trainer.from_config(tiny_config, problems=problems)
    assert "experts.kind=synthetic knows the procedural problems alone" in caplog.text


def test_a_model_that_was_taught_other_problems_is_reported(
    tiny_config: TrainConfig, caplog: pytest.LogCaptureFixture
) -> None:
    problems = [Problem(id=str(n), statement=f"Who is number {n}?", answer="Ada") for n in range(8)]
    alone = with_settings(tiny_config, ["annealing.turn_budget=1"])
    shipped = with_settings(alone, ["model.path=embedded"])
    Trainer.from_config(alone, problems=problems)
    Trainer.from_config(shipped)
    assert caplog.records == []
    Trainer.from_config(shipped, problems=problems)
    assert "model.path=embedded was taught the procedural problems alone" in caplog.text
