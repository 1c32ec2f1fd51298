"""The preset `smollm2` on the real weights, in a few updates (`make test-real`)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command import as_options

from eapo_agents.cli import main
from eapo_agents.policies.gguf_import import import_gguf
from eapo_agents.training.run_folder import Run

SHORT = (
    *("evaluation.samples_per_problem=1", "evaluation.problems.num_problems=1"),
    *("learner.device=cpu", "problems.num_problems=32", "rollout.limits.max_response_tokens=32"),
)
LESSONS = ("steps=3", "cold_start.batch_size=2", "cold_start.learning_rate=2e-4")
REWARDS = (
    *("steps=2", "rollout.group_size=2"),
    *("rollout.sampling.groups_per_step=1", "rollout.sampling.problems_per_round=1"),
    "rollout.sampling.keep=all",
)


@pytest.mark.slow
def test_smollm2_imitates_and_then_learns_from_rewards(tmp_path: Path) -> None:
    file = os.environ.get("EAPO_SMOLLM2_GGUF")
    if not file:
        pytest.skip("EAPO_SMOLLM2_GGUF names no file")
    import_gguf(Path(file), tmp_path / "model")
    runs = ["--runs", str(tmp_path), *as_options(SHORT)]

    taught = ["cold-start", str(tmp_path / "model"), "--preset", "smollm2"]
    assert main([*taught, *runs, *as_options(LESSONS)]) == 0
    start = Run.open(tmp_path / "smollm2-cold-start-1")
    losses = [row["loss"] for row in start.metrics]
    assert 2.0 < losses[0] < 4.0
    assert losses[-1] < losses[0] - 0.3

    settings = as_options([f"model.path={start.checkpoints[-1]}", *REWARDS])
    assert main(["train", "smollm2", *runs, *settings]) == 0
    run = Run.open(tmp_path / "smollm2-1")
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert all(row["groups_kept"] == 1 for row in run.metrics)
    assert (run.checkpoints[-1] / "model.safetensors").is_file()
