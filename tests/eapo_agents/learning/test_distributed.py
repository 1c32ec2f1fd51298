"""Several real processes on gloo give what one gives: updates, whole runs, interruption, resume."""

from __future__ import annotations

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shared_updates
import torch
from command import succeed
from forked import run_forked
from hypothesis import given, strategies as st
from programs import ENVIRONMENT, PROGRAMS
from safetensors.torch import load_file
from user_parts import Brief, Librarian, custom_trainer

from eapo_agents.learning.distributed import SINGLE_PROCESS, balanced_shares
from eapo_agents.methods.distillation import distillation_trainer
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.episode import begin
from eapo_env.types import Problem, Rules

pytestmark = pytest.mark.slow

PROBLEM = Problem(id="p", statement="p", answer="2")
FLOAT64 = ["learner.precision=float64", "learner.max_grad_norm=0.5", "learner.layout=padded"]
ACCELERATE = (
    "--multi_gpu --num_processes=2 --num_machines=1 --mixed_precision=no --dynamo_backend=no"
    " --main_process_port=0"  # its launcher for CPUs wants MPI; this one starts torchrun
)
LAUNCHERS = {
    "accelerate": ["accelerate.commands.launch", *ACCELERATE.split()],
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
}

MACHINE = ("seconds/", "sync_gap", "padding_rate", "memory/")
"""Metrics that depend on the machine and the number of processes."""


def launched(program: Sequence[str], launcher: str) -> subprocess.Popen[str]:
    """Start a program in two processes; in the foreground, whatever this one inherited."""
    return subprocess.Popen(
        [sys.executable, "-m", *LAUNCHERS[launcher], *program],
        env=ENVIRONMENT,
        text=True,
        start_new_session=True,
        restore_signals=True,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )


def run_in_two(*program: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program in two processes that no launcher started (`two_ranks.py`)."""
    return run_forked("-m", "two_ranks", *program)


def groups(num: int, size: int) -> list[Group]:
    rng = np.random.default_rng(num)
    return [
        Group(
            problem=PROBLEM,
            trajectories=tuple(trajectory(rng, float(member % 2)) for member in range(size)),
        )
        for _ in range(num)
    ]


def trajectory(rng: np.random.Generator, reward: float) -> Trajectory:
    lengths = rng.integers(1, 8, size=4)
    mask = np.repeat([False, True, False, True], lengths)
    return Trajectory(
        token_ids=rng.integers(5, 99, mask.size).astype(np.int32),
        mask=mask,
        logprobs=np.where(mask, -rng.exponential(2.5, mask.size), 0.0),
        reward=reward,
        status="correct" if reward else "wrong",
        correct=bool(reward),
        episode=begin(PROBLEM, Rules(), seed=0),
    )


CASES = {
    "padded": (["learner.max_batch_tokens=64"], (4, 4)),
    "packed": (["learner.layout=packed", "learner.max_batch_tokens=64"], (4, 4)),
    "shared": (["learner.layout=shared", "learner.max_batch_tokens=256"], (4, 4)),
    "tree": (["learner.layout=tree", "learner.max_batch_tokens=256"], (4, 4)),
    "checkpointed": (["learner.layout=padded", "learner.gradient_checkpointing=true"], (4, 4)),
    "one more than the other": (["learner.max_batch_tokens=1"], (1, 3)),
    "float32": (["learner.precision=float32"], (4, 4)),
    "adapters": (["model.lora.rank=4"], (4, 4)),
    "adapters in bfloat16": (["model.lora.rank=4", "learner.precision=bfloat16"], (4, 4)),
    "sgd": (["learner.optimizer=sgd"], (4, 4)),
    "several updates": (["learner.mini_batches=2", "learner.epochs=2"], (4, 2)),
}


# Norms round a gradient to float32: in a tree, after the sum over the sequences of a process.
TOLERANCES = {
    "float32": (1e-3, 1e-4),
    "adapters in bfloat16": (5e-2, 5e-3),
    "tree": (1e-6, 1e-7),
}


@pytest.fixture(scope="module")
def cases(tiny_config: TrainConfig) -> dict[str, tuple[TrainConfig, list[Group]]]:
    return {
        name: (with_settings(tiny_config, FLOAT64 + settings), groups(*shape))
        for name, (settings, shape) in CASES.items()
    }


def test_two_processes_make_the_updates_of_one(
    cases: dict[str, tuple[TrainConfig, list[Group]]], tmp_path: Path
) -> None:
    """The last update is from a checkpoint: of two processes, in two as in one."""
    given, result = tmp_path / "cases", tmp_path / "result"
    given.write_bytes(pickle.dumps(list(cases.values())))
    done = run_in_two(shared_updates.__file__, given, result)
    assert done.returncode == 0, done.stderr
    found = pickle.loads(result.read_bytes())
    for number, (name, theirs) in enumerate(zip(cases, found, strict=True)):
        others = shared_updates.checkpoint_of(tmp_path, number)
        assert len(list(others.glob("shards/*.distcp"))) == 2, "each has written its part"
        own = shared_updates.checkpoint_of(tmp_path / "one", number)
        ours = shared_updates.updates(*cases[name], own, SINGLE_PROCESS, others)
        rel, atol = TOLERANCES.get(name, (1e-6, 1e-10))
        for one, other in zip(ours["reports"], theirs["reports"], strict=True):
            for metric in one.keys() - {"padding_rate"}:  # others stand beside each other
                assert other[metric] == pytest.approx(one[metric], rel=rel, abs=1e-9), (
                    name,
                    metric,
                )
        state = ours["states"]["uninterrupted"]
        assert_same_state(ours["states"]["resumed"], state, atol, name)
        for other in theirs["states"].values():
            assert_same_state(other, state, atol, name)
        for one, other in zip(ours["logprobs"], theirs["logprobs"], strict=True):
            np.testing.assert_allclose(other, one, atol=max(20 * atol, 1e-6))


def assert_same_state(
    found: Mapping[str, Any], expected: Mapping[str, Any], atol: float, name: str
) -> None:
    assert found["step"] == expected["step"]
    for weight, value in expected["model"].items():
        assert (found["model"][weight] - value).abs().max() < atol, (name, weight)
    for number, moments in expected["optimizer"]["state"].items():
        for moment, value in moments.items():
            other = found["optimizer"]["state"][number][moment]
            torch.testing.assert_close(other, value, rtol=0, atol=atol)


def metrics(run: Path) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def settings_of(config: TrainConfig, folder: Path) -> Path:
    path = folder / "config.json"
    folder.mkdir(parents=True)
    path.write_text(config.to_json(), encoding="utf-8")
    return folder


def assert_same_metrics(alone: Path, together: Path) -> None:
    for ours, theirs in zip(metrics(alone), metrics(together), strict=True):
        for name in ours.keys() | theirs.keys():
            if not name.startswith(MACHINE):
                assert theirs[name] == pytest.approx(ours[name], rel=1e-6, abs=1e-9), name


def test_a_run_in_two_processes_is_that_of_one(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(tiny_config, FLOAT64)
    together = settings_of(config, tmp_path / "together")
    program = ["-m", "eapo_agents.cli", "train", "--resume", str(together)]
    with launched(program, "accelerate") as process:
        assert process.wait(280) == 0
    alone = settings_of(config, tmp_path / "alone")
    succeed("train", "--resume", alone)
    assert_same_metrics(alone, together)
    assert all(row["sync_gap"] < 1e-6 for row in metrics(together))


def test_custom_parts_are_the_same_in_two_processes(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, [*FLOAT64, "transcripts_every=1"])
    settings = settings_of(config, tmp_path / "settings") / "config.json"
    done = run_in_two(PROGRAMS / "train_with_custom_parts.py", settings, tmp_path / "both")
    assert done.returncode == 0, done.stderr
    alone, dapo = (Run.create(config, tmp_path / name) for name in ("one", "dapo"))
    assert custom_trainer(config, SINGLE_PROCESS).train(alone)
    assert Trainer.from_config(config, reward=Brief(), experts=Librarian()).train(dapo)
    together = Run.open(tmp_path / "both" / "tiny-1")
    assert_same_metrics(alone.folder, together.folder)
    assert alone.metrics[0]["reward"] == dapo.metrics[0]["reward"], "before the first update"
    assert alone.metrics[0]["loss"] != pytest.approx(dapo.metrics[0]["loss"])
    assert 0 < together.metrics[0]["reward"] < 1 / 4, "the custom reward's"
    assert "librarian" in (together.folder / "transcripts" / "step-000001.jsonl").read_text()


def test_two_processes_distil_and_resume_as_one_distils(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """All parameters, and adapters."""
    imitation = ["distillation.batch_size=16", "distillation.learning_rate=0.01", "steps=4"]
    imitation += ["evaluation.every=1"]
    configs = [
        with_settings(tiny_config, [*FLOAT64, *imitation, f"model.lora.rank={rank}"])
        for rank in (0, 4)
    ]
    settings = [
        str(settings_of(config, tmp_path / f"settings-{n}") / "config.json")
        for n, config in enumerate(configs)
    ]
    done = run_in_two(PROGRAMS / "distil_together.py", *settings, tmp_path / "both")
    assert done.returncode == 0, done.stderr
    for number, config in enumerate(configs, start=1):
        alone = Run.create(config, tmp_path / "one")
        assert distillation_trainer(config, experts=Librarian()).train(alone)
        together = Run.open(tmp_path / "both" / f"tiny-{number}")
        assert_same_metrics(alone.folder, together.folder)
        assert all(row["sync_gap"] < 1e-6 for row in together.metrics)
        assert together.metrics[-1]["loss"] < together.metrics[0]["loss"]
        one, other = (run.checkpoints[-1] / "model.safetensors" for run in (alone, together))
        ours, theirs = load_file(one), load_file(other)
        assert ours.keys() == theirs.keys()
        for name, weight in ours.items():
            torch.testing.assert_close(theirs[name], weight, rtol=0, atol=1e-6)


def test_what_each_process_would_train_by_itself_is_refused(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """In a launcher's script without `lead`, without `processes`, and with a lambda to send."""
    config = settings_of(tiny_config, tmp_path / "settings") / "config.json"
    folder = tmp_path / "refused"
    folder.mkdir()
    done = run_in_two(PROGRAMS / "refused_under_a_launcher.py", config, folder)
    assert done.returncode == 2, done.stderr
    first, second = ((folder / str(rank)).read_text().splitlines() for rank in range(2))
    by_itself = r"a launcher started 2 processes, .* call eapo_agents.training.lead\(main\)"
    assert all(re.match(by_itself, line) for line in [*first[:3], second[0]])
    assert first[3] == second[1]
    assert re.match(r"the algorithm 'mine' cannot be sent to the other processes .*", first[3])
    assert "at the top level of a module, not as lambdas" in first[3]
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1"], "no run was started"


def children(process: subprocess.Popen[str]) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True)
    rows = [row.split() for row in listed.stdout.splitlines()]
    return [int(pid) for pid, parent in rows if int(parent) == process.pid]


def rank_of(pid: int) -> str | None:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next((v[5:].decode() for v in variables if v.startswith(b"RANK=")), None)


def test_ctrl_c_in_one_process_stops_all_and_one_process_goes_on(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, [*FLOAT64, "steps=400", "checkpoint_every=400"])
    run = settings_of(config, tmp_path / "run")
    program = ["-m", "eapo_agents.cli", "train", "--resume", str(run)]
    with launched(program, "torchrun") as process:
        while not (run / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.1)
        [second] = [pid for pid in children(process) if rank_of(pid) == "1"]
        os.kill(second, signal.SIGINT)
        assert process.wait(280) != 0  # interrupted, not finished
    steps = len(metrics(run))
    assert (run / "checkpoints" / f"step-{steps:06d}" / "learner.pt").is_file()
    goal = with_settings(config, [f"steps={steps + 1}"])
    (run / "config.json").write_text(goal.to_json(), encoding="utf-8")
    succeed("train", "--resume", run)
    assert [row["step"] for row in metrics(run)] == list(range(1, steps + 2))


def test_two_processes_killed_while_they_write_leave_the_checkpoint_before(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    """One process goes on from it."""
    config = with_settings(tiny_config, [*FLOAT64, "steps=1", "checkpoint_every=1"])
    settings = settings_of(config, tmp_path / "settings") / "config.json"
    done = run_in_two(PROGRAMS / "killed_while_saving.py", settings, tmp_path / "runs")
    assert done.returncode != 0
    run = Run.open(tmp_path / "runs" / "tiny-1")
    left = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert left == [".unfinished-step-000002", "step-000001"]
    goal = with_settings(config, ["steps=2"])
    (run.folder / "config.json").write_text(goal.to_json(), encoding="utf-8")
    succeed("train", "--resume", run.folder)
    assert [row["step"] for row in run.metrics] == [1, 2]
    assert [path.name for path in run.checkpoints] == ["step-000001", "step-000002"]


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=40), st.integers(1, 6))
def test_every_item_is_in_one_share_and_shares_are_balanced(sizes: list[int], num: int) -> None:
    shares = balanced_shares(sizes, num)
    assert sorted(item for share in shares for item in share) == list(range(len(sizes)))
    sums = [sum(sizes[item] for item in share) for share in shares]
    assert max(sums) - min(sums) <= max(sizes)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
