"""What the miniature reproduction runs: cells, each a method and its seeds.

Every training is `Trained` with one thing changed, so that two cells differ in what their names say
and in nothing else. The tables that the cells stand in are in `claims.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from eapo_agents.bases import Base
from eapo_agents.config import TrainConfig
from eapo_agents.leap import LeapSettings
from eapo_agents.presets import distilled, embedded
from eapo_agents.settings import EvaluationSettings, ExpertSettings, ModelSettings
from eapo_env.annealing import Annealing
from eapo_env.types import Rules

SLIP = 0.5
"""How careless the base of the tables is: alone it solves one or two problems in a hundred."""

TABLES_BASE = Base(slip=SLIP)

ASKING_EITHER_WAY = Base(slip=SLIP, queries_per_turn=(1, 1, 1, 3), steps=1600, learning_rate=1e-3)
"""A base that asks one by one or all at once, as its prompt says; the first it has to learn."""

SLIPS = (0.2, 0.35, 0.42, 0.5, 0.6)
"""The bases of the curve of the gain."""

STEPS = 80

FIRST_SEEDS = 5
"""So many were planned for the cells of the aim; they left it open, and five more were added."""

PARTS = ExpertSettings(kind="synthetic-parts")
SCHEDULE = Annealing(steps=STEPS, turn_budget=2)
ALONE = replace(SCHEDULE, turn_budget=1)


@dataclass(frozen=True, slots=True)
class BaseCopies:
    """Experts that are frozen copies of the base model: a homogeneous pool."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """One training, to be run with several seeds and evaluated alone at its end.

    Args:
        name: of its folder and of its results.
        num_seeds: with seeds 0, 1, ...
        base: the model it starts from.
        experts: of its training.
        annealing: its schedule; a turn budget of 1 is self-exploratory RL.
        turn_budgets: who draws a fractional turn budget.
    """

    name: str
    num_seeds: int = 3
    base: Base = TABLES_BASE
    experts: ExpertSettings | BaseCopies = PARTS
    annealing: Annealing = SCHEDULE
    turn_budgets: Literal["member", "group"] = "group"

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the run of one seed, from the model in a folder."""
        settings = _common(self.name, seed, model)
        return replace(
            settings,
            annealing=self.annealing,
            experts=_described(self.experts),
            rollout=replace(settings.rollout, turn_budgets=self.turn_budgets),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """The base model as it is, evaluated; its seeds are those of the sampling.

    Args:
        name: of its results.
        num_seeds: with seeds 0, 1, ...
        base: the model played.
        experts: whom it may ask, if the rules allow it.
        rules: of the evaluation; alone by default.
    """

    name: str
    num_seeds: int = 3
    base: Base = TABLES_BASE
    experts: ExpertSettings | BaseCopies = PARTS
    rules: Rules = Rules.alone()

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the settings of one seed's evaluation."""
        return replace(_common(self.name, seed, model), experts=_described(self.experts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Distilled:
    """The base model, taught by right solutions of experts; evaluated alone at its end.

    Args:
        name: of its folder and of its results.
        num_seeds: with seeds 0, 1, ...
        base: the model it starts from.
        lora_rank: of the adapters trained; 0 trains all parameters.
    """

    name: str
    num_seeds: int = 5
    base: Base = TABLES_BASE
    lora_rank: int = 0

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the run of one seed, from the model in a folder."""
        settings = _common(self.name, seed, model)
        config = distilled(replace(settings, model=ModelSettings()), lora_rank=self.lora_rank)
        assert config.distillation is not None
        once = replace(config.distillation, samples_per_problem=1, batch_size=128)
        return replace(config, name=self.name, model=settings.model, distillation=once)


@dataclass(frozen=True, slots=True, kw_only=True)
class Talking:
    """The base model as it is, in parallel paths that talk to each other: LeaP.

    Args:
        name: of its results.
        num_seeds: of the sampling, 0, 1, ...
        base: the model played.
        leap: how the paths talk; k samples are k / `paths` groups of them.
    """

    name: str
    num_seeds: int = 5
    base: Base = TABLES_BASE
    leap: LeapSettings = LeapSettings(paths=4, block_tokens=42, summary_tokens=16, peers=3)

    def config(self, seed: int, model: Path) -> TrainConfig:
        """Return the settings of one seed's evaluation."""
        return _common(self.name, seed, model)


Cell = Trained | Played | Distilled | Talking


def gain_cells(slip: float) -> tuple[Cell, Cell, Cell]:
    """Return base, self-exploratory RL and EAPO of one base model; the tables' own have 5 seeds."""
    if slip == SLIP:
        return BASE, SELF_EXPLORATORY, EAPO
    base = Base(slip=slip)
    return (
        Played(name=f"base-slip-{slip:.2f}", base=base),
        Trained(name=f"self-exploratory-slip-{slip:.2f}", base=base, annealing=ALONE),
        Trained(name=f"eapo-slip-{slip:.2f}", base=base),
    )


def _described(experts: ExpertSettings | BaseCopies) -> ExpertSettings:
    """Return the experts as a config can hold them: copies are put in when the run starts."""
    return experts if isinstance(experts, ExpertSettings) else ExpertSettings(kind="silent")


def _common(name: str, seed: int, model: Path) -> TrainConfig:
    settings = embedded()
    return replace(
        settings,
        name=name,
        seed=seed,
        steps=STEPS,
        checkpoint_every=STEPS // 2,
        keep_checkpoints=1,
        transcripts_every=STEPS // 4,
        model=ModelSettings(path=str(model)),
        evaluation=EvaluationSettings(every=STEPS // 2),
    )


BASE = Played(name="base", num_seeds=5)
COLLABORATING, ASSISTED, ASSISTED_ERRONEOUS, ASSISTED_MEANINGLESS = (
    Played(name=name, num_seeds=num_seeds, experts=experts, rules=Rules(turn_budget=2))
    for name, num_seeds, experts in (
        ("self-collaboration", 5, BaseCopies()),
        ("assisted", 5, PARTS),
        ("assisted-erroneous", 3, replace(PARTS, error_rate=0.6)),
        ("assisted-meaningless", 3, ExpertSettings(kind="meaningless")),
    )
)
LEAP = Talking(name="leap")
SELF_EXPLORATORY = Trained(name="self-exploratory", num_seeds=10, annealing=ALONE)
EAPO = Trained(name="eapo", num_seeds=10)
DISTILLED = Distilled(name="distilled")
DISTILLED_LORA = Distilled(name="distilled-lora", lora_rank=16)
SEQUENTIAL, PARALLEL = (
    Trained(
        name=name,
        base=ASKING_EITHER_WAY,
        annealing=Annealing(steps=STEPS, turn_budget=4, queries_per_turn=queries_per_turn),
    )
    for name, queries_per_turn in (("eapo-one-query", 1), ("eapo-three-queries", 3))
)
WEAK = Trained(name="eapo-weak-experts", experts=replace(PARTS, error_rate=0.3))
CONSTANT, SLOW, FAST = (
    Trained(name=f"eapo-{schedule}", annealing=replace(SCHEDULE, schedule=schedule))
    for schedule in ("constant", "slow", "fast")
)
COPIES = Trained(name="eapo-copies", experts=BaseCopies())
WHOLES = Trained(name="eapo-experts-of-wholes", experts=ExpertSettings(kind="synthetic"))
PER_MEMBER = Trained(name="eapo-budgets-per-member", turn_budgets="member")
