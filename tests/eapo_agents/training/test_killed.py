"""A training killed at any moment, again and again, ends as one that was never killed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from forked import run_forked
from programs import PROGRAMS

from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer

pytestmark = pytest.mark.slow


def rows(run: Run) -> list[dict[str, float]]:
    machine = ("seconds/", "memory/")
    return [{k: v for k, v in row.items() if not k.startswith(machine)} for row in run.metrics]


def files(folder: Path) -> dict[str, bytes]:
    """What is in a folder, without `learner.pt`, whose bytes depend on where its keys came from."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "learner.pt"}


def assert_same_optimisers(one: Path, other: Path) -> None:
    first, second = (torch.load(path, weights_only=True)["optimizer"] for path in (one, other))
    assert first["param_groups"] == second["param_groups"]
    assert first["state"].keys() == second["state"].keys()
    for weight, state in first["state"].items():
        assert all(torch.equal(value, second["state"][weight][k]) for k, value in state.items())


@pytest.mark.parametrize(
    "engine",
    [[], ["rollout.steps_ahead=1", "engine.kind=python", "engine.factory=user_parts:copied_model"]],
    ids=["on-policy", "ahead"],
)
def test_a_training_killed_at_any_moment_ends_as_one_never_killed(
    tiny_config: TrainConfig, tmp_path: Path, engine: list[str]
) -> None:
    """Kills come after a drawn time and in the middle of checkpoints; each time it goes on."""
    settings = [
        *engine,
        "steps=6",
        "checkpoint_every=1",
        "transcripts_every=1",
        "evaluation.every=3",
    ]
    settings += ["rollout.sampling.surplus=carry", "rollout.sampling.groups_per_step=1"]
    config = with_settings(tiny_config, settings)
    undisturbed, killed = (Run.create(config, tmp_path) for _ in range(2))
    assert Trainer.from_config(config).train(undisturbed)
    assert any(row["groups_carried"] for row in undisturbed.metrics)
    done = run_forked(PROGRAMS / "kill_and_resume.py", killed.folder, warnings="error")
    assert done.returncode == 0, done.stderr
    assert rows(killed) == rows(undisturbed)
    assert killed.last_evaluation == undisturbed.last_evaluation
    for name in ("transcripts", "checkpoints/step-000006"):
        assert files(killed.folder / name) == files(undisturbed.folder / name), name
    assert_same_optimisers(*(run.checkpoints[-1] / "learner.pt" for run in (killed, undisturbed)))
