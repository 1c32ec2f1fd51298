"""The study: a base whose most likely answer is wrong, and the paper's schedule and reward.

`EAPO` is the paper's; every other training changes what its name says and nothing else. MaxRL's
advantage takes rewards of 0 and 1, so that training has no reward for the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from eapo_agents.learning import MaxRL
from eapo_agents.reproduction.base_models import WRONG_BELIEF, BaseModel
from eapo_agents.reproduction.experiment_kinds import (
    BRACKET_EXPERTS,
    BaseModelExperts,
    Distill,
    Evaluate,
    Experiment,
    RunLeap,
    Train,
)
from eapo_agents.reproduction.paper_tables import TABLE_1, TABLE_2, TABLE_3, TABLE_E
from eapo_agents.reproduction.study import Claim, PaperTable, Study, TableRow
from eapo_agents.training import EvaluationSettings, ExpertSettings
from eapo_env.annealing import Annealing
from eapo_env.types import Rules

BASE = WRONG_BELIEF
"""A base that mixes up what it writes and what it carries."""

BASE_ONE_OR_THREE_QUERIES = replace(BASE, queries_per_turn=(1, 1, 1, 3), steps=1600)
"""A base that asks one query or three a turn, as its prompt allows."""

WEAKER = replace(BASE, step_error_rate=0.65)
"""A base whose wrong belief is so weak that self-exploration succeeds."""

STRONGER = replace(BASE, step_error_rate=0.85)
"""A base whose wrong belief is stronger."""

STRONGEST = replace(BASE, step_error_rate=0.9)
"""A base whose wrong belief is so strong that a right bracket is rarer than a lucky guess."""

PROBLEMS = replace(EvaluationSettings().problems, operations=1, carry_rate=1.0)
"""The held-out problems: brackets of one step, which carries or borrows."""

STEPS = 160

_AT_THE_END = EvaluationSettings(problems=PROBLEMS, every=STEPS, samples_per_problem=256)
_OF_BASES = EvaluationSettings(problems=PROBLEMS, every=STEPS, samples_per_problem=1024)
_HELPED = Rules(turn_budget=2)

EAPO = Train(
    name="eapo",
    num_seeds=5,
    base_model=BASE,
    annealing=Annealing(),
    format_reward=0.1,
    steps=STEPS,
    evaluation=_AT_THE_END,
)
"""The paper's: p = s^-1, ten turns, three queries, 0.1 for the right format."""

_EVALUATED = Evaluate(name="base", num_seeds=3, base_model=BASE, evaluation=_AT_THE_END)
_HALF = Annealing(schedule="constant", rate=0.5, turn_budget=2)
_LINEAR = Annealing(schedule="ours_linear", turn_budget=2)
_FROM_06 = replace(_LINEAR, initial_acceptance_rate=0.6)
_BY_SUCCESS = Annealing(schedule="ours_by_success", initial_acceptance_rate=0.6, turn_budget=2)


def _of(name: str, **changes: object) -> Train:
    """Return EAPO with changes, over five seeds unless these say otherwise."""
    return replace(EAPO, **({"name": name, "num_seeds": 5} | changes))  # type: ignore[arg-type]


def _from(rate: str, base: BaseModel) -> tuple[Experiment, ...]:
    """Return the evaluation of a base, the two trainings of the main claim from it, and a third.

    That one helps where a group failed alone.
    """
    return (
        replace(_EVALUATED, name=f"base-{rate}", base_model=base),
        _of(f"self-exploratory-{rate}", base_model=base, annealing=Annealing(turn_budget=1)),
        _of(f"eapo-half-group-{rate}", base_model=base, annealing=_HALF, gate_draws="group"),
        _of(
            f"eapo-failed-alone-group-{rate}",
            base_model=base,
            annealing=_HALF,
            help_for="failed_alone",
            gate_draws="group",
        ),
    )


_EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment
    for experiment in (
        # Table 1
        replace(_EVALUATED, evaluation=_OF_BASES),
        replace(_EVALUATED, name="self-collaboration", experts=BaseModelExperts(), rules=_HELPED),
        replace(_EVALUATED, name="assisted", rules=_HELPED),
        RunLeap(name="leap", num_seeds=3, base_model=BASE, evaluation=_AT_THE_END),
        Distill(name="distilled", base_model=BASE, evaluation=_AT_THE_END),
        Distill(name="distilled-lora", base_model=BASE, lora_rank=16, evaluation=_AT_THE_END),
        _of("self-exploratory", num_seeds=10, annealing=Annealing(turn_budget=1)),
        _of(
            "self-exploratory-maxrl",
            annealing=Annealing(turn_budget=1),
            algorithm=MaxRL(),
            format_reward=0.0,
        ),
        EAPO,
        # Table 2
        replace(_EVALUATED, name="base-one-or-three", base_model=BASE_ONE_OR_THREE_QUERIES),
        _of(
            "eapo-one-query",
            base_model=BASE_ONE_OR_THREE_QUERIES,
            annealing=Annealing(queries_per_turn=1),
        ),
        _of("eapo-three-queries", base_model=BASE_ONE_OR_THREE_QUERIES),
        _of("eapo-weak-experts", experts=replace(BRACKET_EXPERTS, error_rate=0.3)),
        # Table 3
        _of("eapo-copies", experts=BaseModelExperts()),
        # Table 9
        _of("eapo-constant", annealing=Annealing(schedule="constant")),
        _of("eapo-slow", annealing=Annealing(exponent=0.5)),
        _of("eapo-fast", annealing=Annealing(exponent=2.0)),
        # Appendix E, Table 8
        replace(
            _EVALUATED,
            name="assisted-erroneous",
            experts=replace(BRACKET_EXPERTS, error_rate=0.6),
            rules=_HELPED,
        ),
        replace(
            _EVALUATED,
            name="assisted-meaningless",
            experts=ExpertSettings(kind="meaningless"),
            rules=_HELPED,
        ),
        # Not in the paper: the paper's schedule from two turns, as those below
        _of("eapo-two-turns", annealing=Annealing(turn_budget=2)),
        # Not in the paper: other schedules, with draws at the gate per member and per group
        _of("eapo-half", annealing=_HALF),
        _of("eapo-half-group", num_seeds=10, annealing=_HALF, gate_draws="group"),
        _of("eapo-linear", annealing=_LINEAR),
        _of("eapo-linear-group", annealing=_LINEAR, gate_draws="group"),
        _of("eapo-from-0.6", annealing=_FROM_06),
        _of("eapo-from-0.6-group", annealing=_FROM_06, gate_draws="group"),
        _of("eapo-by-success", annealing=_BY_SUCCESS),
        _of("eapo-by-success-group", annealing=_BY_SUCCESS, gate_draws="group"),
        _of("eapo-failed-alone", annealing=_HALF, help_for="failed_alone"),
        _of(
            "eapo-failed-alone-group",
            num_seeds=10,
            annealing=_HALF,
            help_for="failed_alone",
            gate_draws="group",
        ),
        # Not in the paper: bases of other strengths
        *_from("0.65", WEAKER),
        *_from("0.85", STRONGER),
        *_from("0.90", STRONGEST),
    )
}

_TABLE_2 = replace(
    TABLE_2,
    rows=(TableRow(label="base *, untrained", experiment="base-one-or-three"), *TABLE_2.rows),
)

_TABLE_9 = PaperTable(
    key="9",
    title="Table 9: schedules, by the paper's formulas",
    rows=(
        TableRow(label="constant (H_S / S)", experiment="eapo-constant", paper_score=59.65),
        TableRow(label="slow (s^-1/2)", experiment="eapo-slow", paper_score=62.82),
        TableRow(label="fast (s^-2)", experiment="eapo-fast", paper_score=59.76),
        TableRow(label="the paper's (s^-1)", experiment="eapo", paper_score=64.07),
    ),
    claims=(
        Claim(
            text="s^-1 is ahead of a constant rate of the same budget",
            better="eapo",
            worse="eapo-constant",
            paper_points=4.42,
        ),
        Claim(text="s^-1 is ahead of slow", better="eapo", worse="eapo-slow", paper_points=1.25),
        Claim(text="s^-1 is ahead of fast", better="eapo", worse="eapo-fast", paper_points=4.31),
    ),
)

_OURS = PaperTable(
    key="beyond",
    title="Not in the paper: schedules of ours, and common draws at the gate",
    rows=(
        TableRow(label="self-exploratory RL", experiment="self-exploratory"),
        TableRow(label="self-exploratory RL, MaxRL", experiment="self-exploratory-maxrl"),
        TableRow(label="EAPO, s^-1", experiment="eapo"),
        TableRow(label="s^-1 from two turns", experiment="eapo-two-turns"),
        TableRow(label="constant 1/2", experiment="eapo-half"),
        TableRow(label="constant 1/2, common draws", experiment="eapo-half-group"),
        TableRow(label="linear", experiment="eapo-linear"),
        TableRow(label="linear, common draws", experiment="eapo-linear-group"),
        TableRow(label="0.6 (1 - x)", experiment="eapo-from-0.6"),
        TableRow(label="0.6 (1 - x), common draws", experiment="eapo-from-0.6-group"),
        TableRow(label="by success alone", experiment="eapo-by-success"),
        TableRow(label="by success alone, common draws", experiment="eapo-by-success-group"),
        TableRow(label="1/2 where a group failed alone", experiment="eapo-failed-alone"),
        TableRow(
            label="1/2 where a group failed alone, common draws",
            experiment="eapo-failed-alone-group",
        ),
        TableRow(label="belief 0.65: base model", experiment="base-0.65"),
        TableRow(label="belief 0.65: self-exploratory RL", experiment="self-exploratory-0.65"),
        TableRow(
            label="belief 0.65: constant 1/2, common draws", experiment="eapo-half-group-0.65"
        ),
        TableRow(
            label="belief 0.65: 1/2 where a group failed alone, common draws",
            experiment="eapo-failed-alone-group-0.65",
        ),
        TableRow(label="belief 0.85: base model", experiment="base-0.85"),
        TableRow(label="belief 0.85: self-exploratory RL", experiment="self-exploratory-0.85"),
        TableRow(
            label="belief 0.85: constant 1/2, common draws", experiment="eapo-half-group-0.85"
        ),
        TableRow(
            label="belief 0.85: 1/2 where a group failed alone, common draws",
            experiment="eapo-failed-alone-group-0.85",
        ),
        TableRow(label="belief 0.90: base model", experiment="base-0.90"),
        TableRow(label="belief 0.90: self-exploratory RL", experiment="self-exploratory-0.90"),
        TableRow(
            label="belief 0.90: constant 1/2, common draws", experiment="eapo-half-group-0.90"
        ),
        TableRow(
            label="belief 0.90: 1/2 where a group failed alone, common draws",
            experiment="eapo-failed-alone-group-0.90",
        ),
    ),
)

BELIEF = Study(
    name="belief",
    experiments=_EXPERIMENTS,
    tables=(TABLE_1, _TABLE_2, TABLE_3, _TABLE_9, TABLE_E, _OURS),
    main_claim=Claim(
        text="EAPO at a constant rate of 1/2, with common draws, is ahead of self-exploratory RL",
        better="eapo-half-group",
        worse="self-exploratory",
        paper_points=4.91,
    ),
    aim=0.35,
    aim_low=0.25,
    looks=(10,),
)
"""Its results are in `docs/results`."""
