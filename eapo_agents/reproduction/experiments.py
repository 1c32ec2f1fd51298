"""What the miniature reproduction runs: cells, each a method and its seeds.

Every training is `Trained` with one thing changed, so that two cells differ in what their names say
and in nothing else. The tables that the cells stand in are in `claims.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from eapo_agents.methods import LeapSettings
from eapo_agents.policies import ModelSettings
from eapo_agents.reproduction.base_models import Base
from eapo_agents.training import EvaluationSettings, ExpertSettings, TrainConfig
from eapo_agents.training.presets import distilled, embedded
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

Key = Literal["1", "2", "3", "9", "E", "beyond"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a table.

    Args:
        label: as the table shows it.
        cell: what was run.
        paper: the paper's number; None where it has none.
    """

    label: str
    cell: Cell
    paper: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """That one cell is ahead of another.

    Args:
        text: the claim.
        better: the cell ahead.
        worse: the other.
        points: by how much in the paper.
    """

    text: str
    better: Cell
    worse: Cell
    points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table of the paper in miniature."""

    key: Key
    title: str
    lines: tuple[Line, ...]
    claims: tuple[Claim, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of its lines."""
        return tuple(line.cell for line in self.lines)


_EAPO = "EAPO"

TABLES = (
    PaperTable(
        key="1",
        title="Table 1: methods",
        lines=(
            Line(label="base model", cell=BASE, paper=42.53),
            Line(label="self collaboration", cell=COLLABORATING, paper=41.83),
            Line(label="expert-assisted workflow", cell=ASSISTED, paper=49.39),
            Line(label="LeaP", cell=LEAP, paper=47.08),
            Line(label="distillation, all parameters", cell=DISTILLED, paper=35.31),
            Line(label="distillation, LoRA", cell=DISTILLED_LORA, paper=43.24),
            Line(label="self-exploratory RL", cell=SELF_EXPLORATORY, paper=59.16),
            Line(label=_EAPO, cell=EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="EAPO is ahead of self-exploratory RL",
                better=EAPO,
                worse=SELF_EXPLORATORY,
                points=4.91,
            ),
            Claim(
                text="EAPO is ahead of its base model",
                better=EAPO,
                worse=BASE,
                points=21.54,
            ),
            Claim(
                text="EAPO, alone, is ahead of the base model with experts",
                better=EAPO,
                worse=ASSISTED,
                points=14.68,
            ),
            Claim(
                text="EAPO is ahead of LeaP",
                better=EAPO,
                worse=LEAP,
                points=16.99,
            ),
            Claim(
                text="EAPO is ahead of distillation",
                better=EAPO,
                worse=DISTILLED,
                points=28.76,
            ),
            Claim(
                text="experts help the base model",
                better=ASSISTED,
                worse=BASE,
                points=6.86,
            ),
            Claim(
                text="experts help the base model more than copies of itself",
                better=ASSISTED,
                worse=COLLABORATING,
                points=7.56,
            ),
            Claim(
                text="experts help the base model more than LeaP",
                better=ASSISTED,
                worse=LEAP,
                points=2.31,
            ),
            Claim(
                text="LeaP helps the base model",
                better=LEAP,
                worse=BASE,
                points=4.55,
            ),
        ),
    ),
    PaperTable(
        key="2",
        title="Table 2: queries and experts",
        lines=(
            Line(label="self-exploratory RL", cell=SELF_EXPLORATORY, paper=59.16),
            Line(label="EAPO, one query a turn, base *", cell=SEQUENTIAL, paper=61.79),
            Line(label="EAPO, three queries a turn, base *", cell=PARALLEL, paper=64.07),
            Line(label="EAPO, experts wrong at 30%", cell=WEAK, paper=61.55),
            Line(label="EAPO, right experts", cell=EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="parallel queries are ahead of sequential ones",
                better=PARALLEL,
                worse=SEQUENTIAL,
                points=2.28,
            ),
            Claim(
                text="strong experts are ahead of weak ones",
                better=EAPO,
                worse=WEAK,
                points=2.52,
            ),
        ),
    ),
    PaperTable(
        key="3",
        title="Table 3: homogeneous and heterogeneous pools",
        lines=(
            Line(label="self-exploratory RL", cell=SELF_EXPLORATORY, paper=59.16),
            Line(label="EAPO, copies of the base as experts", cell=COPIES, paper=58.85),
            Line(label="EAPO, other experts", cell=EAPO, paper=60.66),
        ),
        claims=(
            Claim(
                text="other experts are ahead of copies of the policy",
                better=EAPO,
                worse=COPIES,
                points=1.81,
            ),
        ),
    ),
    PaperTable(
        key="9",
        title="Table 9: schedules",
        lines=(
            Line(label="constant 1/2", cell=CONSTANT, paper=59.65),
            Line(label="slow", cell=SLOW, paper=62.82),
            Line(label="fast", cell=FAST, paper=59.76),
            Line(label="linear (ours)", cell=EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="linear is ahead of constant",
                better=EAPO,
                worse=CONSTANT,
                points=4.42,
            ),
            Claim(text="linear is ahead of slow", better=EAPO, worse=SLOW, points=1.25),
            Claim(text="linear is ahead of fast", better=EAPO, worse=FAST, points=4.31),
        ),
    ),
    PaperTable(
        key="E",
        title="Appendix E, Table 8: bad experts, base model",
        lines=(
            Line(label="experts wrong at 60%", cell=ASSISTED_ERRONEOUS, paper=42.82),
            Line(label="meaningless experts", cell=ASSISTED_MEANINGLESS, paper=42.92),
            Line(label="right experts", cell=ASSISTED, paper=49.39),
        ),
        claims=(
            Claim(
                text="right experts are ahead of erroneous ones",
                better=ASSISTED,
                worse=ASSISTED_ERRONEOUS,
                points=6.57,
            ),
            Claim(
                text="right experts are ahead of meaningless ones",
                better=ASSISTED,
                worse=ASSISTED_MEANINGLESS,
                points=6.47,
            ),
        ),
    ),
    PaperTable(
        key="beyond",
        title="Not in the paper: the gain over the strength of the base",
        lines=tuple(
            Line(label=f"slip {slip:.2f}: {method}", cell=cell)
            for slip in SLIPS
            for method, cell in zip(
                ("base model", "self-exploratory RL", _EAPO), gain_cells(slip), strict=True
            )
        ),
    ),
    PaperTable(
        key="beyond",
        title="Not in the paper: what the result hangs on",
        lines=(
            Line(label="EAPO, experts answer whole problems too", cell=WHOLES),
            Line(label="EAPO, turn budgets drawn per member", cell=PER_MEMBER),
            Line(label=_EAPO, cell=EAPO),
        ),
    ),
)


def cells_of(key: str | None) -> list[Cell]:
    """Return the cells of the tables of a key, or of all, each once, Table 1's first."""
    found = [cell for table in TABLES if key in (None, table.key) for cell in table.cells]
    return list(dict.fromkeys(found))
