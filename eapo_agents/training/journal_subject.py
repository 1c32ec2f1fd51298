"""What the results of an evaluation depend on: all settings but those that only training reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import reduce
from operator import getitem
from typing import Any

from eapo_agents.training.config import TrainConfig
from eapo_agents.training.problem_sets import ProblemSet

TRAINING_ONLY = (
    "name",
    "steps",
    "algorithm",
    "annealing",
    "checkpoint_every",
    "cold_start",
    "distillation",
    "expert_alarm",
    "experts.preflight",
    "keep_checkpoints",
    "learner",
    "problems",
    "reward",
    "standstill_alarm",
    "stop_without_experts",
    "trackers",
    "transcripts_every",
    "truncation_alarm",
)
"""The settings of a config that no result of an evaluation depends on."""


def evaluation_subject(config: TrainConfig, sets: Sequence[ProblemSet]) -> dict[str, Any]:
    """Return the settings and problems of an evaluation for its `Journal`, JSON-ready.

    A setting counts unless it is in `TRAINING_ONLY`: a new one that is forgotten there makes a
    journal too strict, never too lenient.
    """
    settings = asdict(config)
    for name in TRAINING_ONLY:
        *sections, key = name.split(".")
        del reduce(getitem, sections, settings)[key]
    problems = {one.name: [asdict(problem) for problem in one.problems] for one in sets}
    return {"settings": settings, "problems": problems}
