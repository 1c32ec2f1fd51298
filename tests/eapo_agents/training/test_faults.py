"""What goes wrong in practice: a full disk, a bad update, two trainers, a policy that dies."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from command import ENVIRONMENT, eapo_forked
from forked import run_forked
from programs import PROGRAMS
from transformers import PreTrainedTokenizerFast

from eapo_agents.cli import main
from eapo_agents.learning.advantages import group_advantages
from eapo_agents.learning.algorithms import CustomAlgorithm
from eapo_agents.learning.learner import NonFiniteUpdateError
from eapo_agents.learning.losses import LossInputs, LossOutput, dapo_loss
from eapo_agents.policies.policy import Completion, PolicyError, Sampling
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_agents.training.run_folder import Run
from eapo_agents.training.trainer import Trainer
from eapo_env.types import ExpertReply, Query, Reply, Unavailable

pytestmark = pytest.mark.slow


def test_a_full_disk_is_an_error_that_leaves_the_last_checkpoint(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    run = Run.create(replace(tiny_config, checkpoint_every=2), tmp_path)
    assert Trainer.from_config(replace(tiny_config, steps=2)).train(run)
    before = {path.name: path.read_bytes() for path in run.checkpoints[0].iterdir()}
    smallest = max(map(len, before.values()))  # the weights, or the optimiser's state
    command = ("train", "--resume", run.folder, "--set", "steps=4")
    done = run_forked(PROGRAMS / "little_room.py", str(smallest // 2), *command)
    assert done.returncode == 2
    reason = "a file is larger than the limit on file sizes (ulimit -f)"
    place = run.folder / "checkpoints" / "step-000004"
    assert done.stderr.startswith(f"eapo: cannot write {place}: {reason}. This was")
    assert "This was training step 4" in done.stderr
    assert "can be resumed from step-000002" in done.stderr
    assert [one.name for one in run.checkpoints] == ["step-000002"]
    assert {path.name: path.read_bytes() for path in run.checkpoints[0].iterdir()} == before
    assert Trainer.from_config(run.config).train(run)
    assert run.checkpoints[-1].name == "step-000004"


def test_a_loss_that_is_no_number_ends_the_run_before_it_is_applied(
    tiny_config: TrainConfig, tmp_path: Path
) -> None:
    def broken(inputs: LossInputs) -> LossOutput:
        output = dapo_loss(inputs)
        bad = trainer.learner.step == 2
        return replace(output, loss=output.loss * float("nan")) if bad else output

    algorithm = CustomAlgorithm(name="broken", advantages=group_advantages, loss=broken)
    config = replace(tiny_config, checkpoint_every=1)
    trainer = Trainer.from_config(config, algorithm=algorithm)
    run = Run.create(config, tmp_path)
    with pytest.raises(NonFiniteUpdateError, match="update 2 is not applied") as caught:
        trainer.train(run)
    assert "This was training step 3" in caught.value.__notes__[0]
    assert "can be resumed from step-000002" in caught.value.__notes__[0]
    weights = torch.load(run.checkpoints[-1] / "learner.pt", weights_only=True)
    assert weights["step"] == 2


def test_two_trainers_in_one_folder_are_refused(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tiny_config, tmp_path)
    with run.exclusively():
        assert main(["train", "--resume", str(run.folder)]) == 2
        assert f"another process is training in {run.folder}" in capsys.readouterr().err
    assert Trainer.from_config(tiny_config).train(run)


def test_a_policy_that_dies_names_the_step(
    tiny_config: TrainConfig, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    class Dying(ScriptedPolicy):
        completions = 0

        async def complete(
            self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
        ) -> Completion:
            type(self).completions += 1
            if self.completions > 60:
                raise PolicyError("the engine is gone")
            return await super().complete(prompt_ids, sampling, seed)

    mine = Dying(
        tokenizer,
        lambda prompt, rng: f"\\boxed{{{3 if rng.random() < 0.5 else 4}}}",
        logprob=-0.7,
    )
    config = with_settings(tiny_config, ["checkpoint_every=1", "sync.tolerance=100"])
    trainer = Trainer.from_config(config, policy=mine)
    run = Run.create(config, tmp_path)
    with pytest.raises(PolicyError, match="the engine is gone") as caught:
        trainer.train(run)
    assert "This was training step" in caught.value.__notes__[0]
    assert str(run.folder) in caught.value.__notes__[0]


def test_ctrl_c_in_the_middle_of_a_completion_prints_no_traceback(
    tiny_config: TrainConfig,
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Interrupted(ScriptedPolicy):
        async def complete(
            self, prompt_ids: Sequence[int], sampling: Sampling, seed: int
        ) -> Completion:
            engine = asyncio.create_task(self.decode())  # as `HFPolicy` has it
            await asyncio.Event().wait()
            return await engine

        async def decode(self) -> Completion:
            raise KeyboardInterrupt

    trainer = Trainer.from_config(
        with_settings(tiny_config, ["sync.num_completions=1"]),
        policy=Interrupted(tokenizer, lambda prompt, rng: "3"),
    )
    run = Run.create(tiny_config, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(run)
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_experts_that_die_and_come_back_are_asked_again(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    step = 0

    class Sick:
        async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
            if step == 1:
                return [Unavailable("out of order", "calculator") for _ in queries]
            return [Reply("calculator", "3") for _ in queries]

    def on_step(done: int, metrics: Mapping[str, float]) -> None:
        nonlocal step
        step = done

    config = with_settings(tiny_config, ["annealing.schedule=ours_slow", "steps=3"])
    trainer = Trainer.from_config(config, experts=Sick())
    run = Run.create(config, tmp_path)
    assert trainer.train(run, on_step)
    assert [row.get("expert_failure_rate") for row in run.metrics] == [0.0, 1.0, 0.0]
    alarms = [message for message in caplog.messages if "expert replies did not come" in message]
    assert len(alarms) == 1
    assert "calculator: out of order" in alarms[0]


def test_cut_responses_are_reported_loudly(
    tiny_config: TrainConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = with_settings(
        tiny_config, ["rollout.limits.max_response_tokens=2", "steps=1", "truncation_alarm=0.4"]
    )
    assert Trainer.from_config(config).train(Run.create(config, tmp_path))
    assert any("OF THE RESPONSES WERE CUT SHORT" in message for message in caplog.messages)


def test_a_preset_beside_resume_is_refused(
    tiny_config: TrainConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.create(tiny_config, tmp_path)
    assert main(["train", "--resume", str(run.folder), "embedded"]) == 2
    assert "--resume takes the run's own settings; not embedded" in capsys.readouterr().err


def test_weights_and_biases_gets_the_metrics_too(tiny_config: TrainConfig, tmp_path: Path) -> None:
    """Offline, as on a machine without network; in a process of its own, for its warnings."""
    pytest.importorskip("wandb")
    config = with_settings(tiny_config, ["trackers=wandb", "steps=1"])
    run = Run.create(config, tmp_path)
    offline = ENVIRONMENT | {"WANDB_MODE": "offline", "WANDB_SILENT": "true"}
    done = eapo_forked("train", "--resume", run.folder, env=offline)
    assert done.returncode == 0, done.stderr
    [written] = run.folder.glob("wandb/offline-run-*/run-*.wandb")
    assert b"groups_all_wrong" in written.read_bytes()
