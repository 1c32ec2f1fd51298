"""A training killed at any moment, again and again, ends as one that was never killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run import Run
from eapo_agents.training.trainer import Trainer

KILLING = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from eapo_agents.training.run import Run
from eapo_agents.training.trainer import Trainer

def start():
    child = os.fork()
    if child == 0:
        Trainer.from_config(run.config).train(Run.open(run.folder))
        os._exit(0)
    return child

def kill(child, is_moment):
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if is_moment():
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return True
        time.sleep(0.0005)
    return False

def after(seconds):
    started = []
    def is_moment():
        started.append(time.monotonic())
        return started[-1] >= started[0] + seconds
    return is_moment

def in_a_checkpoint(step):
    return (run.folder / "checkpoints" / f".unfinished-step-{step:06d}").exists

run, luck = Run.open(Path(sys.argv[1])), np.random.default_rng(0)
moments = [after(0.0), in_a_checkpoint(1), *(after(luck.uniform(0.0, 0.5)) for _ in range(3))]
moments += [in_a_checkpoint(3), in_a_checkpoint(4), after(luck.uniform(0.1, 0.8))]
kills = [kill(start(), moment) for moment in moments]
assert kills[0], "it comes before anything could be done"
_, status = os.waitpid(start(), 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


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


def test_a_training_killed_at_any_moment_ends_as_one_never_killed(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """Kills come after a drawn time and in the middle of checkpoints; each time it goes on."""
    settings = ["steps=6", "checkpoint_every=1", "transcripts_every=1", "evaluation.every=3"]
    settings += ["rollout.sampling.surplus=carry", "rollout.sampling.groups_per_step=1"]
    config = with_settings(tiny_config, settings)
    undisturbed, killed = (Run.create(config, tmp_path) for _ in range(2))
    assert Trainer.from_config(config).train(undisturbed)
    assert any(row["groups_carried"] for row in undisturbed.metrics)
    command = [sys.executable, "-c", KILLING, str(killed.folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert rows(killed) == rows(undisturbed)
    assert killed.last_evaluation == undisturbed.last_evaluation
    for name in ("transcripts", "checkpoints/step-000006"):
        assert files(killed.folder / name) == files(undisturbed.folder / name), name
    assert_same_optimisers(*(run.checkpoints[-1] / "learner.pt" for run in (killed, undisturbed)))
