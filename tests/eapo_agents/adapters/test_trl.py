"""EAPO's episodes in TRL's real `GRPOTrainer`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import as_options
from crowd import Crowd
from forked import run_forked
from hypothesis import given, strategies as st
from peft import LoraConfig
from programs import ENVIRONMENT, ROOT
from transformers import PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

from eapo_agents.adapters import EapoRollouts
from eapo_agents.adapters.trl import filled
from eapo_agents.learning import DAPO, Learner, LearnerSettings
from eapo_agents.policies import load_model
from eapo_agents.rollouts import Group, Sampled, Trajectory
from eapo_agents.testing import ScriptedPolicy
from eapo_agents.training.config import TrainConfig, with_settings
from eapo_env.episode import begin
from eapo_env.experts import ScriptedExperts, SilentExperts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Verifier

pytestmark = pytest.mark.filterwarnings("ignore:You are using 'rollout_func'")

SIZE = 4
EVERY_GROUP = ["rollout.sampling.keep=all", "rollout.sampling.problems_per_round=4"]
Make = Callable[..., GRPOTrainer]


@pytest.fixture
def make(tiny_config: TrainConfig, tmp_path: Path, verifier: Verifier) -> Iterator[Make]:
    """Makes TRL's trainer of the tiny model; changes are of the rollouts, or of TRL's settings."""
    opened = []

    def make_trainer(
        settings: Sequence[str] = (),
        args: dict[str, Any] | None = None,
        adapters: LoraConfig | None = None,
        **parts: Any,
    ) -> GRPOTrainer:
        config = with_settings(tiny_config, settings)
        eapo = EapoRollouts.from_config(config, verifier=verifier, **parts)
        opened.append(eapo)
        model, tokenizer = load_model(config.model)
        ours: dict[str, Any] = {
            "output_dir": str(tmp_path),
            "max_steps": 1,
            "num_generations": SIZE,
            "per_device_train_batch_size": 4 * SIZE,
            "per_device_eval_batch_size": 16,
            "num_generations_eval": 2,
            "bf16": False,
            "use_cpu": True,
            "save_strategy": "no",
            "report_to": [],
            "logging_steps": 1,
            "disable_tqdm": True,
        }
        return GRPOTrainer(
            model,
            args=GRPOConfig(**ours | (args or {})),
            processing_class=tokenizer,
            rollout_func=eapo,
            reward_funcs=eapo.eapo_reward,
            train_dataset=eapo.train_dataset,
            eval_dataset=eapo.eval_dataset,
            peft_config=adapters,
        )

    yield make_trainer
    for eapo in opened:
        eapo.close()


def rollouts(trainer: GRPOTrainer) -> EapoRollouts:
    assert isinstance(trainer.rollout_func, EapoRollouts)
    return trainer.rollout_func


def first_batch(trainer: GRPOTrainer, *, groups: int) -> dict[str, Any]:
    """Ask for the episodes of the first training step."""
    trainer.state.max_steps = 1
    trainer.model.train()
    rows = trainer.train_dataset[:groups]["prompt"]
    return rollouts(trainer)([row for row in rows for _ in range(SIZE)], trainer)


SGD: dict[str, Any] = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "weight_decay": 0.0,
    "epsilon_high": 0.28,
}


def test_a_step_is_that_of_our_learner(make: Make) -> None:
    """One step of SGD from the same episodes; what differs is TRL's 1e-4 under the advantages."""
    trainer = make(["seed=1"], SGD)
    (before, _), (model, _) = (load_model(rollouts(trainer).config.model) for _ in range(2))
    played: list[Trajectory] = []

    def kept(**row: Any) -> list[float]:
        played.extend(row["trajectory"])
        return [0.0] * len(row["trajectory"])

    kept.__name__ = "kept"
    trainer.reward_funcs.append(kept)
    trainer.reward_func_names.append("kept")
    trainer.reward_processing_classes.append(None)
    trainer.reward_weights = torch.ones(2)
    trainer.train()

    groups = [
        Group(problem=four[0].episode.problem, trajectories=tuple(four))
        for four in (played[first : first + SIZE] for first in range(0, len(played), SIZE))
    ]
    assert any(group.has_signal for group in groups)
    settings = LearnerSettings(
        device="cpu", optimizer="sgd", learning_rate=0.1, warmup_steps=0, weight_decay=0.0
    )
    learner = Learner(model, algorithm=DAPO(importance_cap=None), settings=settings)
    metrics = learner.update(groups)
    theirs, ours = (
        torch.cat(
            [
                (new - old).flatten()
                for new, old in zip(model.parameters(), before.parameters(), strict=True)
            ]
        )
        for model in (trainer.model, learner.model)
    )
    assert (theirs - ours).norm() < 1e-3 * ours.norm()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(metrics["loss"], abs=1e-5)


def test_trl_reads_the_ids_mask_and_logprobs_of_the_trajectories(make: Make) -> None:
    trainer = make()
    batch = first_batch(trainer, groups=4)
    assert len(batch["trajectory"]) == 4 * SIZE
    assert max(one.episode.num_queries for one in batch["trajectory"]) > 0
    for number, one in enumerate(batch["trajectory"]):
        opening, rest = batch["prompt_ids"][number], batch["completion_ids"][number]
        assert opening + rest == one.token_ids.tolist()
        assert batch["env_mask"][number] == one.mask[len(opening) :].tolist()
        assert batch["logprobs"][number] == one.logprobs[len(opening) :].tolist()
        assert batch["env_mask"][number][0] == 1
        assert sum(batch["env_mask"][number]) == one.num_policy_tokens


@pytest.mark.parametrize(
    "adapters", [None, LoraConfig(r=2, target_modules="all-linear")], ids=["plain", "LoRA"]
)
def test_the_module_that_was_trained_samples(make: Make, adapters: LoraConfig | None) -> None:
    trainer = make(args=SGD, adapters=adapters)
    trainer.train()
    [first, *_] = first_batch(trainer, groups=1)["trajectory"]
    ids_1T = torch.tensor(first.token_ids)[None].long()
    with torch.no_grad():
        logits_1TV = trainer.model.eval()(input_ids=ids_1T[:, :-1]).logits
    logps_T = logits_1TV.log_softmax(-1).gather(2, ids_1T[:, 1:, None])[0, :, 0].numpy()
    found = np.where(first.mask[1:], logps_T, 0)
    assert np.allclose(found, first.logprobs[1:], atol=1e-5)


def test_trl_counts_the_tokens_that_the_policy_sampled(make: Make) -> None:
    trainer = make(EVERY_GROUP)
    trainer.train()
    row = trainer.state.log_history[0]
    assert row["completions/mean_length"] == row["eapo/response_tokens"]
    assert row["rewards/eapo_reward/mean"] == pytest.approx(row["eapo/reward"])


def test_the_experts_go_as_the_steps_of_trl_go(make: Make) -> None:
    """Three steps of p = s^-1 with two turns: rules by TRL's global step, over its max_steps."""
    trainer = make(["annealing.schedule=power", "annealing.turn_budget=4"], {"max_steps": 3})
    seen: list[set[float]] = []
    reward = rollouts(trainer).eapo_reward

    def watched(**row: Any) -> list[float]:
        rules = [one.episode.rules for one in row["trajectory"]]
        seen.append({one.acceptance_rate for one in rules})
        assert {one.turn_budget for one in rules} <= {4 - len(seen) + 1}
        return reward(**row)

    trainer.reward_funcs[0] = watched
    trainer.train()
    assert seen == [{1.0}, {1 / 2}, {1 / 3}]


CONSULT = "<consult>\n<query>9</query>\n</consult>"


def consulting(prompt: str, rng: np.random.Generator) -> str:
    return r"\boxed{3}" if "</consult>" in prompt else CONSULT


def test_the_experts_of_all_episodes_are_asked_at_the_same_time(
    make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    crowd = Crowd(16)
    trainer = make(
        [*EVERY_GROUP, "experts.batch_timeout_s=60"],
        experts=crowd,
        policy=lambda trainer: ScriptedPolicy(tokenizer, consulting),
    )
    batch = first_batch(trainer, groups=4)
    assert [one.episode.num_accepted for one in batch["trajectory"]] == [1] * 16
    assert crowd.asking == 16


def test_an_evaluation_is_alone_and_repeats(make: Make) -> None:
    pool = ScriptedExperts(lambda query: pytest.fail("asked in an evaluation"))
    trainer = make(experts=pool)
    first, second = (trainer.evaluate() for _ in range(2))
    assert first["eval_eapo/alone_rate"] == 1
    assert first["eval_eapo/queries_per_episode"] == 0
    assert first["eval_eapo/problems_used"] == 4
    assert first["eval_reward"] == second["eval_reward"]
    assert first["eval_completions/mean_length"] == second["eval_completions/mean_length"]


def test_groups_without_signal_are_replaced(make: Make, tokenizer: PreTrainedTokenizerFast) -> None:
    """Problems with an odd number are always answered right, the others now and then."""

    def write(prompt: str, rng: np.random.Generator) -> str:
        found = re.search(r"p(\d+)", prompt)
        assert found
        sure = int(found[1]) % 2 == 1
        return r"\boxed{3}" if sure or rng.random() < 0.5 else r"\boxed{4}"

    settings = ["rollout.sampling.problems_per_round=8", "rollout.sampling.max_rounds=3"]
    trainer = make(settings, policy=lambda trainer: ScriptedPolicy(tokenizer, write))
    batch = first_batch(trainer, groups=4)
    groups = [batch["trajectory"][first : first + SIZE] for first in range(0, 16, SIZE)]
    assert all(0 < sum(one.correct for one in group) < SIZE for group in groups)
    assert len(batch["sampled"].played) > 4

    every = make(EVERY_GROUP, policy=rollouts(trainer).policy)
    batch = first_batch(every, groups=4)
    assert [one.episode.problem.id for one in batch["trajectory"][::SIZE]] == [
        problem.id for problem in rollouts(every).problems[:4]
    ]


def test_problems_that_are_too_long_are_replaced(
    make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    long = Problem(id="long", statement="p" * 60, answer="3")
    short = [Problem(id=f"p{n}", statement=f"p{n}", answer="3") for n in range(3)]
    trainer = make(
        [*EVERY_GROUP, "rollout.limits.max_prompt_tokens=50"],
        problems=[long, *short],
        policy=lambda trainer: ScriptedPolicy(tokenizer, consulting),
    )
    played = [one.episode.problem.id for one in first_batch(trainer, groups=2)["trajectory"]]
    assert "long" not in played
    assert played[SIZE:] == ["p0"] * SIZE


def group(name: str, *, mixed: bool) -> Group:
    problem = Problem(id=name, statement=name, answer="3")
    return Group(
        problem=problem,
        trajectories=tuple(
            Trajectory(
                token_ids=[1, 2],  # type: ignore[arg-type]
                mask=[False, True],  # type: ignore[arg-type]
                logprobs=[0.0, -1.0],  # type: ignore[arg-type]
                reward=float(correct),
                status="correct" if correct else "wrong",
                correct=correct,
                episode=begin(problem, Rules.alone()),
            )
            for correct in (True, not mixed)
        ),
    )


@given(st.lists(st.booleans(), min_size=1, max_size=12), st.data())
def test_a_batch_is_filled_with_signal_first(signal: list[bool], data: st.DataObject) -> None:
    wanted = data.draw(st.integers(1, len(signal)))
    played = tuple(group(str(n), mixed=mixed) for n, mixed in enumerate(signal))
    kept = tuple(one for one in played if one.has_signal)[:wanted]
    found = filled(Sampled(kept=kept, played=played), wanted)
    assert len(found) == len({one.problem.id for one in found}) == wanted
    assert sum(one.has_signal for one in found) == len(kept)
    for place, own in enumerate(played[:wanted]):
        assert found[place] is own or not own.has_signal


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["{0}"] * 3, "a process got 3 prompts, not whole groups of 4"),
        (["{0}", "{0}", "{1}", "{1}"], "a process got 4 prompts, not whole groups of 4"),
        (["{0}"] * 4 + ["no such"] * 4, "'no such' is none of the prompts"),
    ],
    ids=["part of a group", "two halves", "unknown"],
)
def test_prompts_that_are_refused(make: Make, given: list[str], message: str) -> None:
    trainer = make()
    trainer.model.train()
    known = trainer.train_dataset[:2]["prompt"]
    with pytest.raises(UserError, match=re.escape(message)):
        rollouts(trainer)([one.format(*known) for one in given], trainer)


def test_an_evaluation_batch_that_cuts_groups_is_refused(make: Make) -> None:
    trainer = make()
    trainer.model.eval()
    [prompt] = trainer.eval_dataset[:1]["prompt"]
    with pytest.raises(UserError, match="3 prompts, not whole groups of 2: per_device_eval"):
        rollouts(trainer)([prompt] * 3, trainer)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("annealing.schedule=ours_by_success", "ours_by_success needs evaluations"),
        ("rollout.sampling.surplus=carry", "surplus=carry"),
        ("rollout.steps_ahead=1", "steps_ahead=1"),
    ],
)
def test_settings_that_need_our_own_trainer(
    tiny_config: TrainConfig, setting: str, message: str
) -> None:
    changes = [setting, "annealing.initial_acceptance_rate=0.6"]
    with pytest.raises(UserError, match=re.escape(message)):
        EapoRollouts.from_config(with_settings(tiny_config, changes))


def test_a_prompt_that_fills_the_context_is_refused(
    make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    policy = ScriptedPolicy(tokenizer, consulting, max_context_tokens=5)
    trainer = make(policy=lambda trainer: policy)
    with pytest.raises(UserError, match="'p0' leaves no room for a completion"):
        first_batch(trainer, groups=1)


def test_experts_that_fail_cost_their_replies(
    make: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    trainer = make(
        experts=SilentExperts(),
        policy=lambda trainer: ScriptedPolicy(tokenizer, consulting),
    )
    batch = first_batch(trainer, groups=1)
    assert {one.episode.num_accepted for one in batch["trajectory"]} == {0}


EXAMPLE = ROOT / "examples" / "trl_eapo.py"


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tiny_settings: list[str]) -> None:
    """Which share the groups of a step; a group's episodes do not depend on the process."""
    environment = ENVIRONMENT | {"TRL_EXPERIMENTAL_SILENCE": "1"}
    options = ["--steps", "2", *as_options([*tiny_settings, *EVERY_GROUP])]
    losses = []
    for groups, launcher in ((4, ()), (2, ("-m", "two_ranks"))):
        done = run_forked(*launcher, EXAMPLE, "--groups", str(groups), *options, env=environment)
        assert done.returncode == 0, done.stderr
        losses.append([float(one) for one in re.findall(r"loss +(\S+)", done.stdout)])
    one, two = losses
    assert len(one) == 2
    assert any(one)
    assert two == pytest.approx(one, rel=1e-4, abs=2e-6)
