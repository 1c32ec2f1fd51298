"""The earlier study: a base that knows the arithmetic and is noisy, and schedules that are ours.

`Train` with its defaults is EAPO there. Every other training changes what its name says and nothing
else.
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
from eapo_agents.reproduction.paper_tables import (
    EAPO_IS_AHEAD,
    TABLE_1,
    TABLE_2,
    TABLE_3,
    TABLE_E,
)
from eapo_agents.reproduction.study import Claim, GainPoint, PaperTable, Study, TableRow
from eapo_agents.training import ExpertSettings
from eapo_env.annealing import Annealing
from eapo_env.types import Rules

BASE_ONE_OR_THREE_QUERIES = BaseModel(
    step_error_rate=0.5, queries_per_turn=(1, 1, 1, 3), steps=1600, learning_rate=1e-3
)
"""A base model that asks one query or three a turn, as its prompt allows.

The others ask three at once. One at a time is what has to be learned, hence more steps.
"""

_EXPERIMENTS: Mapping[str, Experiment] = {
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

_TABLE_9 = PaperTable(
    key="9",
    title="Table 9: schedules",
    rows=(
        TableRow(label="constant 1/2", experiment="eapo-constant", paper_score=59.65),
        TableRow(label="slow", experiment="eapo-slow", paper_score=62.82),
        TableRow(label="fast", experiment="eapo-fast", paper_score=59.76),
        TableRow(label="linear (ours)", experiment="eapo", paper_score=64.07),
    ),
    claims=(
        Claim(
            text="linear is ahead of constant",
            better="eapo",
            worse="eapo-constant",
            paper_points=4.42,
        ),
        Claim(text="linear is ahead of slow", better="eapo", worse="eapo-slow", paper_points=1.25),
        Claim(text="linear is ahead of fast", better="eapo", worse="eapo-fast", paper_points=4.31),
    ),
)

_STRENGTHS = PaperTable(
    key="beyond",
    title="Not in the paper: the gain over the strength of the base",
    rows=(
        TableRow(label="slip 0.20: base model", experiment="base-slip-0.20"),
        TableRow(label="slip 0.20: self-exploratory RL", experiment="self-exploratory-slip-0.20"),
        TableRow(label="slip 0.20: EAPO", experiment="eapo-slip-0.20"),
        TableRow(label="slip 0.35: base model", experiment="base-slip-0.35"),
        TableRow(label="slip 0.35: self-exploratory RL", experiment="self-exploratory-slip-0.35"),
        TableRow(label="slip 0.35: EAPO", experiment="eapo-slip-0.35"),
        TableRow(label="slip 0.42: base model", experiment="base-slip-0.42"),
        TableRow(label="slip 0.42: self-exploratory RL", experiment="self-exploratory-slip-0.42"),
        TableRow(label="slip 0.42: EAPO", experiment="eapo-slip-0.42"),
        TableRow(label="slip 0.50: base model", experiment="base"),
        TableRow(label="slip 0.50: self-exploratory RL", experiment="self-exploratory"),
        TableRow(label="slip 0.50: EAPO", experiment="eapo"),
        TableRow(label="slip 0.60: base model", experiment="base-slip-0.60"),
        TableRow(label="slip 0.60: self-exploratory RL", experiment="self-exploratory-slip-0.60"),
        TableRow(label="slip 0.60: EAPO", experiment="eapo-slip-0.60"),
    ),
)

_VARIANTS = PaperTable(
    key="beyond",
    title="Not in the paper: what the result hangs on",
    rows=(
        TableRow(
            label="EAPO, experts answer whole problems too", experiment="eapo-experts-of-wholes"
        ),
        TableRow(label="EAPO, turn budgets drawn per member", experiment="eapo-budgets-per-member"),
        TableRow(label="EAPO", experiment="eapo"),
    ),
)

_GAIN_CURVE = (
    GainPoint(
        step_error_rate=0.2,
        base="base-slip-0.20",
        self_exploratory="self-exploratory-slip-0.20",
        eapo="eapo-slip-0.20",
    ),
    GainPoint(
        step_error_rate=0.35,
        base="base-slip-0.35",
        self_exploratory="self-exploratory-slip-0.35",
        eapo="eapo-slip-0.35",
    ),
    GainPoint(
        step_error_rate=0.42,
        base="base-slip-0.42",
        self_exploratory="self-exploratory-slip-0.42",
        eapo="eapo-slip-0.42",
    ),
    GainPoint(
        step_error_rate=0.5,
        base="base",
        self_exploratory="self-exploratory",
        eapo="eapo",
    ),
    GainPoint(
        step_error_rate=0.6,
        base="base-slip-0.60",
        self_exploratory="self-exploratory-slip-0.60",
        eapo="eapo-slip-0.60",
    ),
)

NOISE = Study(
    name="noise",
    experiments=_EXPERIMENTS,
    tables=(TABLE_1, TABLE_2, TABLE_3, _TABLE_9, TABLE_E, _STRENGTHS, _VARIANTS),
    gain_curve=_GAIN_CURVE,
    main_claim=EAPO_IS_AHEAD,
    aim=0.05,
    aim_low=0.0,
    looks=(5, 10),
)
"""All runs of it are in `docs/earlier`."""
