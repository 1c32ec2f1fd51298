"""An expert's server, a real one in a process of its own, dies during a training and comes back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from stub_server import StubServer

from eapo_agents.rollouts.expert_monitor import ExpertMonitor
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import RewardStep, Trainer

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
    assert "; it goes on without them. The last: echo: API" in told
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
