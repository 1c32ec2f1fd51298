"""A run that is resumed with other settings, without checkpoints, or after an error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eapo_agents.cli import main
from eapo_agents.learning import LossInputs, LossOutput, PythonAlgorithm
from eapo_agents.learning.advantages import Rewards
from eapo_agents.learning.losses import dapo_loss
from eapo_agents.rollouts import Group
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.model_defaults import fitted_to_model
from eapo_agents.training.resumption import changed_settings, lengthened
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.endpoints import Endpoint
from eapo_env.validation import UserError

SERVED = replace(
    with_settings(TrainConfig(), ["experts.kind=openai", "engine=vllm-server"]),
    experts=replace(
        with_settings(TrainConfig(), ["experts.kind=openai"]).experts,
        endpoints=(Endpoint(base_url="http://a/v1", models=("x",)),),
    ),
)


@pytest.mark.parametrize(
    "setting",
    [
        "checkpoint_every=7",
        "keep_checkpoints=9",
        "trackers=[]",
        "experts.batch_timeout_s=9",
        'experts.endpoints=[{"base_url": "http://b/v1", "models": ["x"], "max_live_calls": 3}]',
        'engine.base_urls=["http://127.0.0.1:9000", "http://127.0.0.1:9001"]',
        "learner.max_batch_tokens=512",
        "learner.gradient_checkpointing=true",
        "verifier.num_workers=7",
        "sync.tolerance=0.5",
        "stop_without_experts=3",
    ],
)
def test_what_does_not_change_what_is_learned_may_change(setting: str) -> None:
    assert changed_settings(SERVED, with_settings(SERVED, [setting]))


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("seed=1", "seed is 0, not 1"),
        ("learner.weight_decay=0.3", "learner.weight_decay is 0.1, not 0.3"),
        ("algorithm=grpo", "algorithm.kind is 'dapo', not 'grpo'"),
        ("annealing.steps=7", "annealing.steps is 200, not 7"),
        ("steps=7", "annealing.steps is 200, not 7"),
        ("experts.kind=silent", "experts.kind is 'openai', not 'silent'"),
        (
            'experts.endpoints=[{"base_url": "http://a/v1", "models": ["y"]}]',
            "experts.endpoints.0.models.0 is 'x', not 'y'",
        ),
        ("reward.consultation_penalty=0.1", "reward.consultation_penalty is 0.0, not 0.1"),
        ("rollout.group_size=2", "rollout.group_size is 16, not 2"),
        ("model.path=other", "model.path is '"),
    ],
)
def test_what_decides_what_is_learned_may_not(setting: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        changed_settings(SERVED, with_settings(SERVED, [setting]))
    assert told in str(caught.value)


def test_a_longer_run_keeps_the_schedule_it_had() -> None:
    longer = lengthened(SERVED, with_settings(SERVED, ["steps=300"]))
    assert longer.schedule == SERVED.schedule
    assert changed_settings(SERVED, longer) == {"steps": (200, 300)}
    assert lengthened(SERVED, with_settings(SERVED, ["steps=200"])) == SERVED


def test_a_schedule_that_follows_steps_is_named_where_only_steps_was_changed() -> None:
    hint = "The annealing ends with the run: set annealing.steps=200 to change steps"
    with pytest.raises(UserError, match=hint):
        changed_settings(SERVED, replace(SERVED, steps=300))
    longer = with_settings(SERVED, ["steps=300", "annealing.steps=200"])
    assert changed_settings(SERVED, longer)["steps"] == (200, 300)
    with pytest.raises(UserError) as caught:
        changed_settings(SERVED, with_settings(SERVED, ["annealing.steps=7"]))
    assert "ends with the run" not in str(caught.value)


def made_of(**arguments: Any) -> TrainConfig:
    algorithm = PythonAlgorithm(factory="<mine.Algorithm>", arguments=arguments)
    return replace(SERVED, algorithm=algorithm)


def test_what_is_not_a_number_is_equal_to_itself() -> None:
    nan = float("nan")
    assert changed_settings(made_of(clip=nan), made_of(clip=-nan)) == {}
    with pytest.raises(UserError, match=r"algorithm.arguments.clip is nan, not 1.0"):
        changed_settings(made_of(clip=nan), made_of(clip=1.0))


def test_the_refusal_of_a_described_part_says_what_is_not_compared() -> None:
    private = 'An attribute of a part whose name begins with "_" is not compared'
    with pytest.raises(UserError, match=private):
        changed_settings(made_of(calls=1), made_of(calls=2))
    with pytest.raises(UserError) as caught:
        changed_settings(SERVED, with_settings(SERVED, ["seed=1"]))
    assert private not in str(caught.value)


def files_of(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_refused_setting_leaves_the_folder_as_it_was(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = with_settings(tiny_config, ["steps=2", "checkpoint_every=9"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    before = files_of(run)
    resume = ["train", "--resume", str(run.folder), "--set"]
    assert main([*resume, "steps=1"]) == 2
    assert "the run has done 2 steps; it cannot end after 1" in capsys.readouterr().err
    assert main([*resume, "learner.device=cuda:9", "--set", "steps=3"]) == 2
    assert "cuda:9" in capsys.readouterr().err
    shorter = with_settings(config, ["steps=1", "annealing.steps=2"])
    with pytest.raises(UserError, match="has done 2 steps"):
        Trainer.from_config(shorter).train(run)
    assert files_of(run) == before


def same(one: Run, other: Run) -> bool:
    machine = ("seconds/", "memory/")
    rows = [
        [{k: v for k, v in row.items() if not k.startswith(machine)} for row in run.metrics]
        for run in (one, other)
    ]
    return rows[0] == rows[1]


@pytest.mark.slow
def test_a_run_is_lengthened_and_the_change_is_recorded(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = with_settings(tiny_config, ["steps=4", "annealing.steps=2", "evaluation.every=2"])
    whole = Run.create(long, tmp_path)
    assert Trainer.from_config(long).train(whole)
    short = with_settings(long, ["steps=2", "annealing.steps=null"])
    run = Run.create(short, tmp_path)
    assert Trainer.from_config(short).train(run)
    resume = ["train", "--resume", str(run.folder)]
    assert main([*resume, "--set", "steps=4", "--set", "seed=1"]) == 2
    assert "seed is 0, not 1" in capsys.readouterr().err
    assert run.config == fitted_to_model(short)
    assert main([*resume, "--set", "steps=4", "--set", "trackers=[]"]) == 0
    assert same(run, whole)
    events = [{k: v for k, v in event.items() if k != "time"} for event in run.events]
    assert events == [
        {"event": "started", "step": 0},
        {"event": "finished", "step": 2},
        {
            "event": "changed",
            "step": 2,
            "settings": {"steps": [2, 4], "trackers.0.kind": ["tensorboard", None]},
        },
        {"event": "resumed", "step": 2, "superseded": 0},
        {"event": "finished", "step": 4},
    ]


@pytest.mark.slow
def test_a_run_killed_after_its_last_checkpoint_finishes_when_it_is_resumed(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=1"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    events = run.folder / "events.jsonl"
    first, _ = events.read_text("utf-8").splitlines(keepends=True)
    events.write_text(first, "utf-8")
    for _ in range(2):
        assert Trainer.from_config(config).train(run)
        assert [event["event"] for event in run.events] == ["started", "finished"]


@pytest.mark.slow
def test_without_a_checkpoint_it_starts_again_and_keeps_what_was_recorded(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_settings(tiny_config, ["steps=3", "evaluation.every=1", "transcripts_every=1"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    rows = run.metrics
    for checkpoint in run.checkpoints:
        for file in checkpoint.iterdir():
            file.unlink()
        checkpoint.rmdir()
    again = Trainer.from_config(config)
    assert again.train(run)
    assert "has no checkpoint: it starts from step 0, and the records of its 3 steps" in caplog.text
    aside = Run(run.folder / "superseded")
    assert aside.metrics == rows
    assert list(aside.evaluations) == list(aside.transcripts) == [1, 2, 3]
    assert same(run, aside)
    run.rewind(0)
    for kind in ("transcripts", "latencies"):
        names = sorted(path.stem for path in (aside.folder / kind).iterdir())
        assert names == [f"step-00000{n}{more}" for n in (1, 2, 3) for more in ("", "_2")]
    assert [event["event"] for event in run.events][-2:] == ["resumed", "finished"]
    assert run.events[-2]["superseded"] == 3


@pytest.mark.slow
def test_a_trainer_that_has_trained_does_not_start_another_run(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=1"])
    trainer = Trainer.from_config(config)
    assert trainer.train(Run.create(config, tmp_path))
    another = Run.create(config, tmp_path)
    with pytest.raises(UserError, match="this trainer has trained already"):
        trainer.train(another)
    assert Trainer.from_config(config).train(another)


@pytest.mark.slow
def test_a_callback_that_raises_costs_no_step(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(tiny_config, ["steps=3", "checkpoint_every=2"])
    for bad in (1, 2):  # between two checkpoints, and with one
        run = Run.create(config, tmp_path)

        def on_step(step: int, metrics: Mapping[str, float], bad: int = bad) -> None:
            assert step <= bad
            if step == bad:
                raise RuntimeError("tracker is down")

        with pytest.raises(RuntimeError, match="tracker is down") as caught:
            Trainer.from_config(config).train(run, on_step)
        assert caught.value.__notes__ == [
            f"This was training step {bad}; {run.folder} can be resumed from step-{bad:06d}"
        ]
        assert [row["step"] for row in run.metrics] == list(range(1, bad + 1))
        assert run.events[-1]["error"] == "RuntimeError('tracker is down')"


@dataclass
class RunningBaseline:
    """REINFORCE with a baseline over all groups: it remembers, and it wants every group."""

    name: str = "running-baseline"
    rewards: list[float] = field(default_factory=list)
    latest: float = 0.0
    groups: int = 0

    def keeps(self, group: Group) -> bool:
        self.groups += 1
        return True

    def advantages(self, rewards_G: Rewards) -> Rewards:
        baseline = float(np.mean(self.rewards)) if self.rewards else 0.0
        self.rewards += rewards_G.tolist()
        self.latest = rewards_G.mean()  # a number of numpy's
        return rewards_G - baseline

    def loss(self, inputs: LossInputs) -> LossOutput:
        return dapo_loss(inputs)

    def state_dict(self) -> dict[str, Any]:
        return {"rewards": self.rewards, "latest": self.latest}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.rewards = list(state["rewards"])
        self.latest = state["latest"]


@pytest.mark.slow
def test_an_algorithm_may_remember_and_choose_its_groups(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    config = with_settings(tiny_config, ["steps=3", "checkpoint_every=1"])
    whole = Run.create(config, tmp_path)
    algorithm = RunningBaseline()
    assert Trainer.from_config(config, algorithm=algorithm).train(whole)
    sampling = config.rollout.sampling
    kept = [row["groups_kept"] for row in whole.metrics]
    assert kept == [min(sampling.groups_per_step, sampling.problems_per_round)] * 3
    assert len(algorithm.rewards) == sum(kept) * config.rollout.group_size

    run = Run.create(config, tmp_path)

    def stop(step: int, metrics: object) -> None:
        raise RuntimeError("enough")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="enough"):
            Trainer.from_config(config, algorithm=RunningBaseline()).train(run, stop)
    last = RunningBaseline()
    assert Trainer.from_config(config, algorithm=last).train(run)
    assert (last.rewards, last.latest) == (algorithm.rewards, algorithm.latest)
    assert same(run, whole)


@pytest.mark.slow
def test_dynamic_sampling_may_keep_every_group(tiny_config: TrainConfig, tmp_path: Path) -> None:
    config = with_settings(tiny_config, ["steps=1", "rollout.sampling.keep=all"])
    run = Run.create(config, tmp_path)
    assert Trainer.from_config(config).train(run)
    [row] = run.metrics
    sampling = config.rollout.sampling
    assert row["groups_kept"] == min(sampling.groups_per_step, sampling.problems_per_round)
    assert row["problems_used"] == sampling.problems_per_round
