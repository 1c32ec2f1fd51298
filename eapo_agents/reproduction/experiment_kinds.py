"""[edge] The kinds of experiments: train, distill, evaluate, run LeaP; each runs one of its seeds.

A kind holds what may differ between two experiments. Everything else is the same for all of them,
so that two experiments differ in their fields and in nothing else.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from eapo_agents.evaluation import evaluate
from eapo_agents.learning import DAPO, AlgorithmSettings
from eapo_agents.methods import LeapSettings, distill, leap_of
from eapo_agents.policies import ModelSettings
from eapo_agents.reproduction.base_models import BaseModel, ModelExperts
from eapo_agents.reproduction.results import Measurement
from eapo_agents.rollouts import GateDraws
from eapo_agents.training import (
    EvaluationSettings,
    ExpertSettings,
    Run,
    TrainConfig,
    Trainer,
    fitted_to_model,
    make_rollout,
    policy_of,
    presets,
)
from eapo_env.annealing import Annealing
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.types import Rules
from eapo_env.validation import UserError

STEPS = 80
"""Training steps of an experiment that trains, unless it says otherwise."""

BASE_MODEL = BaseModel(step_error_rate=0.5)
"""The base model of the paper's tables: alone it solves one or two problems in a hundred."""

BRACKET_EXPERTS = ExpertSettings(kind="synthetic-parts")
"""Experts that work out one bracket at a time."""

TWICE = EvaluationSettings(every=STEPS // 2)
"""At half-time and at the end."""

OnStep = Callable[[int], None]
"""Called with the number of each training step when it ends."""


@dataclass(frozen=True, slots=True)
class BaseModelExperts:
    """Experts that are frozen copies of the base model: a homogeneous pool."""


Experts = ExpertSettings | BaseModelExperts


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """Reinforcement learning from a base model; the policy is evaluated alone at the end.

    Args:
        name: of its folders and results.
        num_seeds: runs, with seeds 0, 1, ...
        base_model: the initial policy.
        experts: of the training.
        annealing: its schedule; a turn budget of 1 is self-exploratory RL.
        turn_budgets: whether a fractional turn budget is drawn per member or once per group.
        gate_draws: whether each member of a group has its own draws at the gate.
        help_for: which groups are helped.
        algorithm: its advantages and loss.
        format_reward: for a wrong answer in the right format.
        steps: training steps.
        evaluation: when, and with how many samples.
    """

    name: str
    num_seeds: int = 3
    base_model: BaseModel = BASE_MODEL
    experts: Experts = BRACKET_EXPERTS
    annealing: Annealing = Annealing(schedule="ours_linear", turn_budget=2)
    turn_budgets: Literal["member", "group"] = "group"
    gate_draws: GateDraws = "member"
    help_for: Literal["all", "failed_alone"] = "all"
    algorithm: AlgorithmSettings = DAPO()
    format_reward: float = 0.0
    steps: int = STEPS
    evaluation: EvaluationSettings = TWICE

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the config of one seed, with the base model in a folder."""
        config = _common_config(self, seed, model)
        return replace(
            config,
            steps=self.steps,
            checkpoint_every=self.steps // 2,
            transcripts_every=self.steps // 4,
            annealing=self.annealing,
            experts=_expert_settings(self.experts),
            rollout=replace(
                config.rollout,
                turn_budgets=self.turn_budgets,
                gate_draws=self.gate_draws,
                help_for=self.help_for,
            ),
            algorithm=self.algorithm,
            reward=replace(config.reward, format_reward=self.format_reward),
        )

    def run(self, config: TrainConfig, folder: Path, on_step: OnStep) -> Measurement | None:
        """Train in a run folder, resuming what is there; return None if interrupted.

        Raises:
            UserError: the folder holds a run of other settings.
        """
        run = _new_or_resumed_run(folder, config)
        trainer = Trainer.from_config(config, experts=_expert_pool(self.experts, config))
        if not trainer.train(run, lambda step, metrics: on_step(step)):
            return None
        return _measurement_of_run(run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill:
    """Supervised learning of experts' correct solutions; the policy is evaluated alone at the end.

    Args:
        name: of its folders and results.
        num_seeds: runs, with seeds 0, 1, ...
        base_model: the initial policy.
        lora_rank: of the adapters that are trained; 0 trains all parameters.
        evaluation: when, and with how many samples.
    """

    name: str
    num_seeds: int = 5
    base_model: BaseModel = BASE_MODEL
    lora_rank: int = 0
    evaluation: EvaluationSettings = TWICE

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the config of one seed, with the base model in a folder."""
        common = _common_config(self, seed, model)
        embedded = replace(common, model=ModelSettings())
        config = fitted_to_model(presets.distilled(embedded, lora_rank=self.lora_rank))
        assert config.distillation is not None
        settings = replace(config.distillation, samples_per_problem=1, batch_size=128)
        adapted = replace(common.model, lora=config.model.lora)
        return replace(config, name=self.name, model=adapted, distillation=settings)

    def run(self, config: TrainConfig, folder: Path, on_step: OnStep) -> Measurement | None:
        """Distill in a run folder, resuming what is there; return None if interrupted.

        Raises:
            UserError: the folder holds a run of other settings.
        """
        run = _new_or_resumed_run(folder, config)
        if not distill(run, on_step=lambda step, metrics: on_step(step)):
            return None
        return _measurement_of_run(run)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluate:
    """Evaluation of a base model; the seeds are those of its sampling.

    Args:
        name: of its results.
        num_seeds: runs, with seeds 0, 1, ...
        base_model: the policy.
        experts: those it may consult, if the rules allow it.
        rules: of every episode; by default it plays alone.
        evaluation: with how many samples.
    """

    name: str
    num_seeds: int = 3
    base_model: BaseModel = BASE_MODEL
    experts: Experts = BRACKET_EXPERTS
    rules: Rules = Rules.alone()
    evaluation: EvaluationSettings = TWICE

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the config of one seed, with the base model in a folder."""
        config = _common_config(self, seed, model)
        return replace(config, experts=_expert_settings(self.experts))

    def run(self, config: TrainConfig, folder: Path, on_step: OnStep) -> Measurement | None:
        """Evaluate the model; nothing is written and no step is reported."""
        start = time.perf_counter()
        experts = _expert_pool(self.experts, config)
        report = asyncio.run(
            evaluate(
                replace(
                    make_rollout(config, policy_of(config), experts=experts),
                    truncation=config.evaluation.truncation,
                    expert_timeout_s=math.inf,  # all start at once: it would measure the queue
                ),
                config.evaluation.problems.load(),
                samples_per_problem=config.evaluation.samples_per_problem,
                rules=self.rules,
                seed=config.evaluation_seed,
            )
        )
        greedy_P = _greedy(config, self.rules, experts)
        seconds = time.perf_counter() - start
        return Measurement.of(asdict(report), greedy_P=greedy_P, seconds=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLeap:
    """LeaP with a base model: parallel paths that read each other's summaries.

    Args:
        name: of its results.
        num_seeds: runs, with seeds 0, 1, ... of the sampling.
        base_model: the policy.
        leap: how the paths communicate; k samples are k / `paths` groups of them.
        evaluation: with how many samples.
    """

    name: str
    num_seeds: int = 5
    base_model: BaseModel = BASE_MODEL
    leap: LeapSettings = LeapSettings(paths=4, block_tokens=42, summary_tokens=16, peers=3)
    evaluation: EvaluationSettings = TWICE

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the config of one seed, with the base model in a folder."""
        return _common_config(self, seed, model)

    def run(self, config: TrainConfig, folder: Path, on_step: OnStep) -> Measurement | None:
        """Evaluate LeaP; nothing is written and no step is reported."""
        start = time.perf_counter()
        with leap_of(config, self.leap) as leap:
            report = asyncio.run(
                leap.evaluate(
                    config.evaluation.problems.load(),
                    samples_per_problem=config.evaluation.samples_per_problem,
                    seed=config.evaluation_seed,
                )
            )
        return Measurement.of(asdict(report), seconds=time.perf_counter() - start)


Experiment = Train | Distill | Evaluate | RunLeap


def _common_config(experiment: Experiment, seed: int, model: Path) -> TrainConfig:
    """Return the settings of all experiments; problems carry as often as those held out."""
    config = fitted_to_model(presets.embedded())
    held_out = experiment.evaluation.problems
    return replace(
        config,
        name=experiment.name,
        seed=seed,
        steps=STEPS,
        checkpoint_every=STEPS // 2,
        keep_checkpoints=1,
        transcripts_every=STEPS // 4,
        model=ModelSettings(path=str(model)),
        problems=replace(
            config.problems,
            brackets=held_out.brackets,
            operations=held_out.operations,
            carry_rate=held_out.carry_rate,
        ),
        evaluation=experiment.evaluation,
    )


def _expert_settings(experts: Experts) -> ExpertSettings:
    """Return the experts of a config; copies of the base model are put in when it runs."""
    return experts if isinstance(experts, ExpertSettings) else ExpertSettings(kind="silent")


def _expert_pool(experts: Experts, config: TrainConfig) -> ExpertPool | None:
    """Return the pool that a config cannot describe; None where it makes the experts itself."""
    return ModelExperts(config.model) if isinstance(experts, BaseModelExperts) else None


def _measurement_of_run(run: Run) -> Measurement:
    report = run.last_evaluation
    assert report is not None, "the last step ends with an evaluation"
    parts = ("seconds/rollout", "seconds/update")  # of whole steps, over all resumptions
    seconds = sum(row.get(part, 0.0) for row in run.metrics for part in parts)
    trained = replace(run.config, model=ModelSettings(path=str(run.checkpoints[-1])))
    greedy_P = _greedy(trained, Rules.alone(), SilentExperts())
    return Measurement.of(report, greedy_P=greedy_P, metrics=run.metrics, seconds=seconds)


def _greedy(
    config: TrainConfig, rules: Rules, experts: ExpertPool | None = None
) -> tuple[bool, ...]:
    """Return whether the policy's most likely answer is right, for each held-out problem."""
    rollout = make_rollout(config, policy_of(config), experts=experts)
    report = asyncio.run(
        evaluate(
            replace(rollout, temperature=0.0),
            config.evaluation.problems.load(),
            samples_per_problem=1,
            rules=rules,
            seed=config.evaluation_seed,
        )
    )
    return tuple(correct for (correct,) in report.correct_PK)


def _new_or_resumed_run(folder: Path, config: TrainConfig) -> Run:
    if not (folder / "config.json").exists():
        (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    run = Run.open(folder)
    recorded = replace(run.config, experts=config.experts)
    if fitted_to_model(recorded) != fitted_to_model(config):
        raise UserError(f"{folder} holds a run of other settings; delete it to start again")
    return run
