"""[edge] Settings that follow the model: the wording of its prompts, and its learning rates.

They are decided last, when every other setting is known: what suits the embedded model, a toy that
was trained on terse prompts, neither reads well to a pretrained model nor leaves it unharmed.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from eapo_agents.policies import ModelSettings, is_character_level
from eapo_env.prompts import Prompts

if TYPE_CHECKING:
    from eapo_agents.training.config import TrainConfig

_LOG = logging.getLogger(__name__)

TOO_HIGH = 30.0
"""A learning rate of so many times the usual one is warned of."""

Lesson = Literal["rewards", "imitation", "cold start"]
"""What a learning rate is for."""

Wording = Literal["full", "few-shot", "terse"]


def fitted_to_model(config: TrainConfig) -> TrainConfig:
    """Return the config with every setting decided that follows the model.

    These are `rollout.wording`, where it is "auto", and the learning rates of `learner`,
    `distillation` and `cold_start`, where they are null.
    """
    learner, distillation, start = config.learner, config.distillation, config.cold_start
    if learner.learning_rate is None:
        learner = replace(learner, learning_rate=usual_rate("rewards", config.model))
    if distillation and distillation.learning_rate is None:
        rate = usual_rate("imitation", config.model)
        distillation = replace(distillation, learning_rate=rate)
    if start and start.learning_rate is None:
        start = replace(start, learning_rate=usual_rate("cold start", config.model))
    return replace(
        config,
        rollout=replace(config.rollout, wording=wording_of(config)),
        learner=learner,
        distillation=distillation,
        cold_start=start,
    )


def wording_of(config: TrainConfig) -> Wording:
    """Return the wording of a config's prompts; "auto" is terse for character-level models only."""
    if config.rollout.wording == "auto":
        return "terse" if is_character_level(config.model.path) else "full"
    return config.rollout.wording


def prompts_of(config: TrainConfig) -> Prompts:
    """Return the prompts of a config's wording."""
    match wording_of(config):
        case "full":
            return Prompts()
        case "few-shot":
            return Prompts.few_shot()
        case "terse":
            return Prompts.terse()


def usual_rate(lesson: Lesson, model: ModelSettings) -> float:
    """Return the usual learning rate of a model.

    For pretrained models, reinforcement learning takes the 1e-6 of the paper's Table 5, supervised
    fine-tuning 1e-5, and adapters (LoRA) ten times as much. A cold start, which teaches a small
    model a format in a few updates, takes ten times that of fine-tuning. The embedded model needs
    more.
    """
    toy, lora = is_character_level(model.path), model.lora.rank > 0
    match lesson:
        case "rewards":
            return (1e-3 if lora else 3e-4) if toy else (1e-5 if lora else 1e-6)
        case "imitation":
            return (3e-3 if lora else 1e-3) if toy else (1e-4 if lora else 1e-5)
        case "cold start":
            return (3e-3 if lora else 1e-3) if toy else (1e-3 if lora else 1e-4)


def warn_of_high_rate(config: TrainConfig) -> None:
    """Log a warning if the learning rate is at least `TOO_HIGH` times the usual one."""
    lesson, name, rate = _lesson_of(config)
    usual = usual_rate(lesson, config.model)
    if rate is not None and rate >= TOO_HIGH * usual:
        _LOG.warning(
            "%s=%g IS %.0f TIMES WHAT IS USUAL FOR %s (%g): it may destroy what the model knows",
            name,
            rate,
            rate / usual,
            config.model.path,
            usual,
        )


def warn_of_long_warm_up(config: TrainConfig) -> None:
    """Log a warning if the training ends before its learning rate is reached."""
    settings, imitates = config.learner, config.distillation or config.cold_start
    updates = config.steps * (1 if imitates else settings.mini_batches * settings.epochs)
    if updates < settings.warmup_steps:
        _LOG.warning(
            "learner.warmup_steps=%d IS MORE THAN THE %d UPDATES OF steps=%d: the learning rate"
            " ends at %.0f%% of what is set; learner.warmup_steps=0 begins with it",
            settings.warmup_steps,
            updates,
            config.steps,
            100 * updates / settings.warmup_steps,
        )


def _lesson_of(config: TrainConfig) -> tuple[Lesson, str, float | None]:
    """Return what a config teaches, the name of its learning rate, and this rate."""
    if config.distillation:
        return "imitation", "distillation.learning_rate", config.distillation.learning_rate
    if config.cold_start:
        return "cold start", "cold_start.learning_rate", config.cold_start.learning_rate
    return "rewards", "learner.learning_rate", config.learner.learning_rate
