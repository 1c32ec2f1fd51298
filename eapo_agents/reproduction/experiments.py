"""The experiments of the miniature reproduction, by name; the tables they are in: `paper_tables`.

`Train` with its defaults is EAPO. Every other training changes what its name says and nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eapo_agents.reproduction.base_models import BaseModel
from eapo_agents.reproduction.experiment_kinds import (
    BRACKET_EXPERTS,
    BaseModelExperts,
    Distill,
    Evaluate,
    Experiment,
    RunLeap,
    Train,
)
from eapo_agents.training import ExpertSettings
from eapo_env.annealing import Annealing
from eapo_env.types import Rules

BASE_ONE_OR_THREE_QUERIES = BaseModel(
    step_error_rate=0.5, queries_per_turn=(1, 1, 1, 3), steps=1600, learning_rate=1e-3
)
"""A base model that asks one query or three a turn, as its prompt allows.

The others ask three at once. One at a time is what has to be learned, hence more steps.
"""

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        # Table 1
        Evaluate(name="base", num_seeds=5),
        Evaluate(
            name="self-collaboration",
            num_seeds=5,
            experts=BaseModelExperts(),
            rules=Rules(turn_budget=2),
        ),
        Evaluate(name="assisted", num_seeds=5, rules=Rules(turn_budget=2)),
        RunLeap(name="leap"),
        Distill(name="distilled"),
        Distill(name="distilled-lora", lora_rank=16),
        Train(
            name="self-exploratory",
            num_seeds=10,
            annealing=Annealing(schedule="ours_linear", turn_budget=1),
        ),
        Train(name="eapo", num_seeds=10),
        # Table 2
        Train(
            name="eapo-one-query",
            base_model=BASE_ONE_OR_THREE_QUERIES,
            annealing=Annealing(schedule="ours_linear", turn_budget=4, queries_per_turn=1),
        ),
        Train(
            name="eapo-three-queries",
            base_model=BASE_ONE_OR_THREE_QUERIES,
            annealing=Annealing(schedule="ours_linear", turn_budget=4, queries_per_turn=3),
        ),
        Train(name="eapo-weak-experts", experts=replace(BRACKET_EXPERTS, error_rate=0.3)),
        # Table 3
        Train(name="eapo-copies", experts=BaseModelExperts()),
        # Table 9
        Train(
            name="eapo-constant",
            annealing=Annealing(turn_budget=2, schedule="constant", rate=0.5),
        ),
        Train(
            name="eapo-slow",
            annealing=Annealing(turn_budget=2, schedule="ours_slow", turn_pace="acceptance"),
        ),
        Train(
            name="eapo-fast",
            annealing=Annealing(turn_budget=2, schedule="ours_fast", turn_pace="acceptance"),
        ),
        # Appendix E, Table 8
        Evaluate(
            name="assisted-erroneous",
            experts=replace(BRACKET_EXPERTS, error_rate=0.6),
            rules=Rules(turn_budget=2),
        ),
        Evaluate(
            name="assisted-meaningless",
            experts=ExpertSettings(kind="meaningless"),
            rules=Rules(turn_budget=2),
        ),
        # Not in the paper: base models of other strengths
        Evaluate(name="base-slip-0.20", base_model=BaseModel(step_error_rate=0.2)),
        Evaluate(name="base-slip-0.35", base_model=BaseModel(step_error_rate=0.35)),
        Evaluate(name="base-slip-0.42", base_model=BaseModel(step_error_rate=0.42)),
        Evaluate(name="base-slip-0.60", base_model=BaseModel(step_error_rate=0.6)),
        Train(
            name="self-exploratory-slip-0.20",
            base_model=BaseModel(step_error_rate=0.2),
            annealing=Annealing(schedule="ours_linear", turn_budget=1),
        ),
        Train(
            name="self-exploratory-slip-0.35",
            base_model=BaseModel(step_error_rate=0.35),
            annealing=Annealing(schedule="ours_linear", turn_budget=1),
        ),
        Train(
            name="self-exploratory-slip-0.42",
            base_model=BaseModel(step_error_rate=0.42),
            annealing=Annealing(schedule="ours_linear", turn_budget=1),
        ),
        Train(
            name="self-exploratory-slip-0.60",
            base_model=BaseModel(step_error_rate=0.6),
            annealing=Annealing(schedule="ours_linear", turn_budget=1),
        ),
        Train(name="eapo-slip-0.20", base_model=BaseModel(step_error_rate=0.2)),
        Train(name="eapo-slip-0.35", base_model=BaseModel(step_error_rate=0.35)),
        Train(name="eapo-slip-0.42", base_model=BaseModel(step_error_rate=0.42)),
        Train(name="eapo-slip-0.60", base_model=BaseModel(step_error_rate=0.6)),
        # Not in the paper: variants of EAPO
        Train(name="eapo-experts-of-wholes", experts=ExpertSettings(kind="synthetic")),
        Train(name="eapo-budgets-per-member", turn_budgets="member"),
    )
}
