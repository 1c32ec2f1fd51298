"""Ready settings, as functions that return a config."""

from __future__ import annotations

import difflib
from dataclasses import replace

from eapo_agents.config import TrainConfig
from eapo_agents.dynamic_sampling import DynamicSampling
from eapo_agents.learner import LearnerSettings
from eapo_agents.rollout import TokenLimits
from eapo_agents.settings import (
    EMBEDDED,
    DistillationSettings,
    EvaluationSettings,
    ExpertSettings,
    ModelSettings,
    ProblemSettings,
    RolloutSettings,
)
from eapo_env.annealing import Annealing
from eapo_env.endpoints import Endpoint


def embedded() -> TrainConfig:
    """Return EAPO on the embedded model and procedural problems: minutes on two CPU cores."""
    steps = 80
    return TrainConfig(
        name="embedded",
        steps=steps,
        annealing=Annealing(steps=steps, turn_budget=2),
        problems=ProblemSettings(num_problems=4096, brackets=3),
        rollout=RolloutSettings(
            group_size=8,
            wording="terse",
            sampling=DynamicSampling(groups_per_step=16, problems_per_round=16, max_rounds=1),
            limits=TokenLimits(max_response_tokens=256, max_reply_tokens=32),
        ),
        learner=LearnerSettings(learning_rate=3e-4, layout="shared", max_batch_tokens=2048),
        evaluation=EvaluationSettings(every=20),
    )


def paper() -> TrainConfig:
    """Return the paper's training (3.1 and Table 5) of DeepSeek-R1-Distill-Qwen-7B.

    Inferred from the DAPO recipe, since the paper omits them: group size 16, at most 10 generation
    batches a step, weight decay 0.1, gradient clip 1.0. The number of steps is a choice.
    """
    steps = 200
    return TrainConfig(
        name="r1-distill-qwen-7b",
        steps=steps,
        annealing=Annealing(steps=steps, turn_budget=4, queries_per_turn=3),
        model=ModelSettings(path="deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", dtype="bfloat16"),
        problems=ProblemSettings(source="dapo-math-17k"),
        experts=ExpertSettings(
            kind="openai",
            endpoints=(
                Endpoint(base_url="http://127.0.0.1:8000/v1", models=("Qwen/QwQ-32B",) * 3),
            ),
        ),
        learner=LearnerSettings(learning_rate=1e-6, warmup_steps=10),
        evaluation=EvaluationSettings(problems=ProblemSettings(source="aime-2024"), every=20),
    )


def self_exploratory(config: TrainConfig) -> TrainConfig:
    """Return the same training without experts: alone from the first step (paper 3.1)."""
    return replace(
        config,
        name=f"{config.name}-self-exploratory",
        annealing=replace(config.annealing, turn_budget=1),
    )


def distilled(config: TrainConfig, *, lora_rank: int = 0) -> TrainConfig:
    """Return the distillation of the same experts into the same model (paper 3.1).

    The paper gives no value of it. Learning rates: 1e-5, and 1e-4 for adapters, are usual for the
    supervised fine-tuning of models of billions of parameters; the embedded one takes more.
    """
    rates = (1e-3, 3e-3) if config.model.path == EMBEDDED else (1e-5, 1e-4)
    return replace(
        config,
        name=f"{config.name}-distilled{'-lora' if lora_rank else ''}",
        annealing=replace(config.annealing, turn_budget=1),
        distillation=DistillationSettings(
            learning_rate=rates[bool(lora_rank)], lora_rank=lora_rank
        ),
    )


def preset_named(name: str) -> TrainConfig:
    """Return the preset of this name.

    Raises:
        ValueError: no such preset; the nearest one is named.
    """
    presets = {preset.__name__: preset for preset in (embedded, paper)}
    if name not in presets:
        near = difflib.get_close_matches(name, presets, n=1, cutoff=0.0)[0]
        raise ValueError(f"unknown preset {name!r}: did you mean {near!r}?")
    return presets[name]()
