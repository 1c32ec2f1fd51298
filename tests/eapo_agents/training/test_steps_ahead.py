"""Step s+1 is played while step s is learned: with which weights and rules, resumed, and broken."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from same_training import assert_same_training, numbers
from user_parts import OnlySuccesses

from eapo_agents.learning.advantages import group_advantages
from eapo_agents.learning.algorithms import CustomAlgorithm
from eapo_agents.learning.learner import Learner, NonFiniteUpdateError
from eapo_agents.learning.losses import Loss, LossInputs, LossOutput, dapo_loss
from eapo_agents.learning.settings import LearnerSettings
from eapo_agents.policies.huggingface import HFPolicy
from eapo_agents.policies.models import ModelSettings, load_model
from eapo_agents.policies.policy import Completion, PolicyError, Sampling
from eapo_agents.rollouts.trajectory import Group
from eapo_agents.training.checkpoint import Progress
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError

pytestmark = pytest.mark.slow

AHEAD = [
    "rollout.steps_ahead=1",
    "engine.kind=python",
    "engine.factory=user_parts:copied_model",
    "steps=5",
    "checkpoint_every=1",
    "keep_checkpoints=9",
    "transcripts_every=1",
    "evaluation.every=3",
    "rollout.sampling.max_rounds=1",
    "rollout.sampling.problems_per_round=10",
]


@pytest.fixture(scope="module")
def config(tiny_config: TrainConfig) -> TrainConfig:
    return with_settings(tiny_config, AHEAD)


@pytest.fixture(scope="module")
def run(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run.create(config, tmp_path_factory.mktemp("ahead"))
    assert Trainer.from_config(config).train(run)
    assert all("grad_norm" in row for row in run.metrics), "every step learns"
    return run


@pytest.fixture(scope="module")
def on_policy(config: TrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = with_settings(config, ["rollout.steps_ahead=0"])
    run = Run.create(config, tmp_path_factory.mktemp("on-policy"))
    assert Trainer.from_config(config).train(run)
    return run


def episodes(run: Run, step: int) -> list[dict[str, Any]]:
    return [row for row in JsonLines(run.transcripts[step]).read() if isinstance(row, dict)]


# --- weights and rules


def test_a_step_is_played_with_the_weights_before_the_last_update(run: Run) -> None:
    versions = [{row["version"] for row in episodes(run, step)} for step in range(1, 6)]
    assert versions == [{0}, {0}, {1}, {2}, {3}]
    assert [row["staleness"] for row in run.metrics] == [0, 1, 1, 1, 1]
    assert [row["max_staleness"] for row in run.metrics] == [0, 1, 1, 1, 1]


def test_without_it_every_step_is_played_with_the_newest_weights(on_policy: Run) -> None:
    versions = [{row["version"] for row in episodes(on_policy, step)} for step in range(1, 6)]
    assert versions == [{0}, {1}, {2}, {3}, {4}]
    assert all(row["staleness"] == 0 for row in on_policy.metrics)


def test_the_recorded_log_probabilities_are_those_of_the_weights_that_sampled(run: Run) -> None:
    """After step s, its checkpoint holds what step s+1 learns from, sampled with weights s-1."""
    for step in (2, 3):
        ahead = Progress.read(run.checkpoints[step - 1]).ahead
        assert ahead
        trajectories = [one for group in ahead.sampled.played for one in group.trajectories]
        assert {one.version for one in trajectories} == {step - 1}
        gaps = []
        for place in (run.checkpoints[step - 2], run.checkpoints[step - 1]):
            model, _ = load_model(ModelSettings(path=str(place)))
            found = Learner(model, settings=LearnerSettings(device="cpu")).logprobs(trajectories)
            pairs = zip(found, trajectories, strict=True)
            gaps.append(max(np.abs(logp - one.logprobs).max() for logp, one in pairs))
        assert gaps[0] < 1e-4 < gaps[1]


def test_a_step_has_the_rules_and_the_problems_of_its_number(run: Run, on_policy: Run) -> None:
    for name in ("acceptance_rate", "turn_budget", "problems_used"):
        ours, theirs = ([row[name] for row in one.metrics] for one in (run, on_policy))
        assert ours == theirs, name
    assert len({row["acceptance_rate"] for row in run.metrics}) == 5
    for step in range(1, 6):
        rules, others = (
            [(row["problem_id"], row["acceptance_rate"]) for row in episodes(one, step)]
            for one in (run, on_policy)
        )
        assert rules == others


def test_the_first_two_steps_see_the_same_weights(run: Run, on_policy: Run) -> None:
    assert numbers(run)[0] == numbers(on_policy)[0]
    assert numbers(run)[1] != numbers(on_policy)[1]


# --- interrupted, resumed, and broken


class Disturbed(HFPolicy):
    """A policy of which something happens when it is asked while step 2 is learned."""

    def __init__(self, config: TrainConfig, happens: Callable[[], Awaitable[object]]) -> None:
        super().__init__(*load_model(config.model))
        self._happens, self._hand_overs = happens, 0

    def load_weights(self, state_dict: Mapping[str, torch.Tensor]) -> None:
        super().load_weights(state_dict)
        self._hand_overs += 1

    async def complete(
        self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
    ) -> Completion:
        in_background = threading.current_thread() is not threading.main_thread()
        if self._hand_overs == 2 and in_background:  # not for the probe
            await self._happens()
        return await super().complete(prompt_ids, sampling, seed)


async def nothing() -> None:
    pass


def custom(loss: Loss) -> CustomAlgorithm:
    return CustomAlgorithm(name="custom", advantages=group_advantages, loss=loss)


def test_the_next_step_is_played_while_this_one_is_learned(
    config: TrainConfig, tmp_path: Path
) -> None:
    """The update of step 2 and the rollout of step 3 wait for each other."""
    sampling, learning = threading.Event(), threading.Event()

    async def meet() -> None:
        sampling.set()
        assert await asyncio.to_thread(learning.wait, 60)

    def loss(inputs: LossInputs) -> LossOutput:
        if trainer.learner.step == 1:
            learning.set()
            assert sampling.wait(60)
        return dapo_loss(inputs)

    trainer = Trainer.from_config(config, policy=Disturbed(config, meet), algorithm=custom(loss))
    assert trainer.train(Run.create(config, tmp_path))


def test_interruptions_change_nothing(config: TrainConfig, run: Run, tmp_path: Path) -> None:
    again, stops = Run.create(config, tmp_path), [1, 3]

    def interrupt(step: int, metrics: Mapping[str, float]) -> None:
        if step in stops:
            os.kill(os.getpid(), signal.SIGINT)

    for stop in stops:
        assert not Trainer.from_config(config).train(again, interrupt)
        assert again.checkpoints[-1].name == f"step-{stop:06d}"
    assert Trainer.from_config(config).train(again)
    assert_same_training(again, run)


def test_a_second_ctrl_c_stops_and_an_earlier_checkpoint_goes_on(
    config: TrainConfig, run: Run, tmp_path: Path
) -> None:
    again = Run.create(replace(config, checkpoint_every=3), tmp_path)

    def interrupt_twice(step: int, metrics: Mapping[str, float]) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Trainer.from_config(again.config).train(again, interrupt_twice)
    assert again.checkpoints[-1].name == "step-000003"
    assert Trainer.from_config(config).train(again)
    assert_same_training(again, run)


def test_ctrl_c_while_both_are_under_way_ends_the_step_and_keeps_both(
    config: TrainConfig, run: Run, tmp_path: Path
) -> None:
    sent: list[None] = []

    async def ctrl_c() -> None:
        if not sent:
            sent.append(None)
            os.kill(os.getpid(), signal.SIGINT)

    again = Run.create(config, tmp_path)
    assert not Trainer.from_config(config, policy=Disturbed(config, ctrl_c)).train(again)
    assert again.checkpoints[-1].name == "step-000002"
    assert Trainer.from_config(config, policy=Disturbed(config, nothing)).train(again)
    assert_same_training(again, run)


def test_a_second_ctrl_c_while_both_are_under_way_stops_at_once(
    config: TrainConfig, run: Run, tmp_path: Path
) -> None:
    sent: list[None] = []
    ended, handler = [], signal.getsignal(signal.SIGINT)

    async def ctrl_c() -> None:
        if not sent:
            sent.append(None)
            os.kill(os.getpid(), signal.SIGINT)
            while signal.getsignal(signal.SIGINT) != handler:  # the first one restores it
                await asyncio.sleep(0)
            os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    again = Run.create(config, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        Trainer.from_config(config, policy=Disturbed(config, ctrl_c)).train(again)
    assert ended
    assert again.checkpoints[-1].name == "step-000001"
    assert Trainer.from_config(config, policy=Disturbed(config, nothing)).train(again)
    assert_same_training(again, run)


def test_a_policy_that_fails_meanwhile_ends_the_run_which_can_be_resumed(
    config: TrainConfig, run: Run, tmp_path: Path
) -> None:
    async def fail() -> None:
        raise PolicyError("the server is gone")

    again = Run.create(config, tmp_path)
    with pytest.raises(PolicyError, match="the server is gone") as caught:
        Trainer.from_config(config, policy=Disturbed(config, fail)).train(again)
    assert "This was training step 2" in caught.value.__notes__[0]
    assert "can be resumed from step-000001" in caught.value.__notes__[0]
    assert Trainer.from_config(config, policy=Disturbed(config, nothing)).train(again)
    assert_same_training(again, run)


def test_an_update_that_fails_ends_the_rollout_too(config: TrainConfig, tmp_path: Path) -> None:
    began, ended = threading.Event(), []

    async def wait() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    def loss(inputs: LossInputs) -> LossOutput:
        output = dapo_loss(inputs)
        if trainer.learner.step == 1:
            assert began.wait(60)
            return replace(output, loss=output.loss * float("nan"))
        return output

    trainer = Trainer.from_config(config, policy=Disturbed(config, wait), algorithm=custom(loss))
    with pytest.raises(NonFiniteUpdateError, match="update 1 is not applied"):
        trainer.train(Run.create(config, tmp_path))
    assert ended


# --- refused


@pytest.mark.parametrize("engine", ["hf", "vllm"])
def test_an_engine_in_the_learners_process_is_refused(config: TrainConfig, engine: str) -> None:
    config = with_settings(config, [f"engine={engine}"])
    with pytest.raises(UserError, match=f"engine={engine} samples in the learner's: use engine=vl"):
        Trainer.from_config(config)


def test_groups_are_not_chosen_by_a_state_that_changes_meanwhile(config: TrainConfig) -> None:
    @dataclass(frozen=True)
    class Choosy(OnlySuccesses):
        name: str = "choosy"

        def keeps(self, group: Group) -> bool:
            return True

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: Mapping[str, Any]) -> None:
            pass

    with pytest.raises(UserError, match="the algorithm 'choosy' has a state, which may change"):
        Trainer.from_config(config, algorithm=Choosy())
    assert Trainer.from_config(with_settings(config, ["rollout.steps_ahead=0"]), algorithm=Choosy())
