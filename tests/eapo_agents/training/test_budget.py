"""A training whose budget for experts is spent goes on without them, and is so resumed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stub_server import StubServer

from eapo_agents.training.checkpoint import Progress
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

pytestmark = pytest.mark.slow


def test_a_spent_budget_closes_the_gate_and_the_run_goes_on(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The first query costs more than the limit; one call is live at a time."""
    model = "usage:100-20"
    with StubServer() as server:
        endpoint = {
            "base_url": server.url,
            "models": [model],
            "max_live_calls": 1,
            "price": {"prompt": 1.0, "completion": 2.0},
        }
        config = with_settings(
            tiny_config,
            [
                "experts.kind=openai",
                f"experts.endpoints={json.dumps([endpoint])}",
                "experts.cost_limit=0.0001",
                "steps=2",
                "annealing.steps=60",
                "stop_without_experts=1",
                "transcripts_every=1",
                "learner.learning_rate=1e-6",  # it goes on consulting
            ],
        )
        preflight = len(server.records(model))
        run = Run.create(config, tmp_path)
        assert Trainer.from_config(config).train(run)
        [spent] = {Progress.read(path).spent for path in run.checkpoints}
        assert (spent.prompt_tokens, spent.completion_tokens) == (100, 20)
        assert spent.cost == pytest.approx(140 / 1e6)
        assert Trainer.from_config(with_settings(config, ["steps=3"])).train(run)
        asked = server.records(model)[preflight:]
    assert len([call for call in asked if call["body"]["max_tokens"] > 1]) == 1
    assert sum("BUDGET IS SPENT" in message for message in caplog.messages) == 1
    first, *others = run.metrics
    assert (first["expert_prompt_tokens"], first["expert_completion_tokens"]) == (100, 20)
    assert first["expert_cost"] == pytest.approx(140 / 1e6)
    for row in run.metrics:
        assert row["queries_per_episode"] > 0
        assert row["failed_reply_rate"] == row.get("expert_failure_rate", 0.0) == 0.0
        assert row["expert_budget_used"] == pytest.approx(1.4)
    for row in others:
        assert row["acceptance_rate_realised"] == 0.0
        assert "expert_cost" not in row
