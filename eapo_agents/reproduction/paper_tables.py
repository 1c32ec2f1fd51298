"""The paper's tables and claims in miniature, and which experiments they are made of.

Experiments are named as in `experiments.EXPERIMENTS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eapo_agents.reproduction.experiment_kinds import Experiment
from eapo_agents.reproduction.experiments import EXPERIMENTS

TableKey = Literal["1", "2", "3", "9", "E", "beyond"]
"""The paper's number of a table; "beyond" for what is not in the paper."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """A row of a table.

    Args:
        label: the row's name in the table.
        experiment: the experiment it shows.
        paper_score: the paper's number; None if it has none.
    """

    label: str
    experiment: str
    paper_score: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the paper: one experiment scores higher than another.

    Args:
        text: the claim.
        better: the experiment that scores higher.
        worse: the other one.
        paper_points: the difference in the paper.
    """

    text: str
    better: str
    worse: str
    paper_points: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """A table of the paper in miniature, and the claims that rest on it."""

    key: TableKey
    title: str
    rows: tuple[TableRow, ...]
    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GainPoint:
    """A point of the curve of EAPO's gain over the strength of the base model.

    Args:
        step_error_rate: of the base model's demonstrator.
        base: the experiment that evaluates the base model.
        self_exploratory: the experiment that trains it without experts.
        eapo: the experiment that trains it with experts.
    """

    step_error_rate: float
    base: str
    self_exploratory: str
    eapo: str


MAIN_CLAIM = Claim(
    text="EAPO is ahead of self-exploratory RL",
    better="eapo",
    worse="self-exploratory",
    paper_points=4.91,
)
"""The claim that the reproduction is about; its experiments have the most seeds."""

FIRST_LOOK_SEEDS = 5
"""The seeds after which the main claim was looked at first; all seeds are its second look."""

TWO_LOOKS_LEVEL = 0.975
"""The level of the main claim's interval: with two looks, each one has half of the 5%."""

PAPER_TABLES = (
    PaperTable(
        key="1",
        title="Table 1: methods",
        rows=(
            TableRow(label="base model", experiment="base", paper_score=42.53),
            TableRow(
                label="self collaboration", experiment="self-collaboration", paper_score=41.83
            ),
            TableRow(label="expert-assisted workflow", experiment="assisted", paper_score=49.39),
            TableRow(label="LeaP", experiment="leap", paper_score=47.08),
            TableRow(
                label="distillation, all parameters", experiment="distilled", paper_score=35.31
            ),
            TableRow(label="distillation, LoRA", experiment="distilled-lora", paper_score=43.24),
            TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
            TableRow(label="EAPO", experiment="eapo", paper_score=64.07),
        ),
        claims=(
            MAIN_CLAIM,
            Claim(
                text="EAPO is ahead of its base model",
                better="eapo",
                worse="base",
                paper_points=21.54,
            ),
            Claim(
                text="EAPO, alone, is ahead of the base model with experts",
                better="eapo",
                worse="assisted",
                paper_points=14.68,
            ),
            Claim(
                text="EAPO is ahead of LeaP",
                better="eapo",
                worse="leap",
                paper_points=16.99,
            ),
            Claim(
                text="EAPO is ahead of distillation",
                better="eapo",
                worse="distilled",
                paper_points=28.76,
            ),
            Claim(
                text="experts help the base model",
                better="assisted",
                worse="base",
                paper_points=6.86,
            ),
            Claim(
                text="experts help the base model more than copies of itself",
                better="assisted",
                worse="self-collaboration",
                paper_points=7.56,
            ),
            Claim(
                text="experts help the base model more than LeaP",
                better="assisted",
                worse="leap",
                paper_points=2.31,
            ),
            Claim(
                text="LeaP helps the base model",
                better="leap",
                worse="base",
                paper_points=4.55,
            ),
        ),
    ),
    PaperTable(
        key="2",
        title="Table 2: queries and experts",
        rows=(
            TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
            TableRow(
                label="EAPO, one query a turn, base *",
                experiment="eapo-one-query",
                paper_score=61.79,
            ),
            TableRow(
                label="EAPO, three queries a turn, base *",
                experiment="eapo-three-queries",
                paper_score=64.07,
            ),
            TableRow(
                label="EAPO, experts wrong at 30%",
                experiment="eapo-weak-experts",
                paper_score=61.55,
            ),
            TableRow(label="EAPO, right experts", experiment="eapo", paper_score=64.07),
        ),
        claims=(
            Claim(
                text="parallel queries are ahead of sequential ones",
                better="eapo-three-queries",
                worse="eapo-one-query",
                paper_points=2.28,
            ),
            Claim(
                text="strong experts are ahead of weak ones",
                better="eapo",
                worse="eapo-weak-experts",
                paper_points=2.52,
            ),
        ),
    ),
    PaperTable(
        key="3",
        title="Table 3: homogeneous and heterogeneous pools",
        rows=(
            TableRow(label="self-exploratory RL", experiment="self-exploratory", paper_score=59.16),
            TableRow(
                label="EAPO, copies of the base as experts",
                experiment="eapo-copies",
                paper_score=58.85,
            ),
            TableRow(label="EAPO, other experts", experiment="eapo", paper_score=60.66),
        ),
        claims=(
            Claim(
                text="other experts are ahead of copies of the policy",
                better="eapo",
                worse="eapo-copies",
                paper_points=1.81,
            ),
        ),
    ),
    PaperTable(
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
            Claim(
                text="linear is ahead of slow", better="eapo", worse="eapo-slow", paper_points=1.25
            ),
            Claim(
                text="linear is ahead of fast", better="eapo", worse="eapo-fast", paper_points=4.31
            ),
        ),
    ),
    PaperTable(
        key="E",
        title="Appendix E, Table 8: bad experts, base model",
        rows=(
            TableRow(
                label="experts wrong at 60%", experiment="assisted-erroneous", paper_score=42.82
            ),
            TableRow(
                label="meaningless experts", experiment="assisted-meaningless", paper_score=42.92
            ),
            TableRow(label="right experts", experiment="assisted", paper_score=49.39),
        ),
        claims=(
            Claim(
                text="right experts are ahead of erroneous ones",
                better="assisted",
                worse="assisted-erroneous",
                paper_points=6.57,
            ),
            Claim(
                text="right experts are ahead of meaningless ones",
                better="assisted",
                worse="assisted-meaningless",
                paper_points=6.47,
            ),
        ),
    ),
    PaperTable(
        key="beyond",
        title="Not in the paper: the gain over the strength of the base",
        rows=(
            TableRow(label="slip 0.20: base model", experiment="base-slip-0.20"),
            TableRow(
                label="slip 0.20: self-exploratory RL", experiment="self-exploratory-slip-0.20"
            ),
            TableRow(label="slip 0.20: EAPO", experiment="eapo-slip-0.20"),
            TableRow(label="slip 0.35: base model", experiment="base-slip-0.35"),
            TableRow(
                label="slip 0.35: self-exploratory RL", experiment="self-exploratory-slip-0.35"
            ),
            TableRow(label="slip 0.35: EAPO", experiment="eapo-slip-0.35"),
            TableRow(label="slip 0.42: base model", experiment="base-slip-0.42"),
            TableRow(
                label="slip 0.42: self-exploratory RL", experiment="self-exploratory-slip-0.42"
            ),
            TableRow(label="slip 0.42: EAPO", experiment="eapo-slip-0.42"),
            TableRow(label="slip 0.50: base model", experiment="base"),
            TableRow(label="slip 0.50: self-exploratory RL", experiment="self-exploratory"),
            TableRow(label="slip 0.50: EAPO", experiment="eapo"),
            TableRow(label="slip 0.60: base model", experiment="base-slip-0.60"),
            TableRow(
                label="slip 0.60: self-exploratory RL", experiment="self-exploratory-slip-0.60"
            ),
            TableRow(label="slip 0.60: EAPO", experiment="eapo-slip-0.60"),
        ),
    ),
    PaperTable(
        key="beyond",
        title="Not in the paper: what the result hangs on",
        rows=(
            TableRow(
                label="EAPO, experts answer whole problems too", experiment="eapo-experts-of-wholes"
            ),
            TableRow(
                label="EAPO, turn budgets drawn per member", experiment="eapo-budgets-per-member"
            ),
            TableRow(label="EAPO", experiment="eapo"),
        ),
    ),
)

GAIN_CURVE = (
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


def experiments_of(key: TableKey | None) -> list[Experiment]:
    """Return the experiments in the tables of a key, or in all tables, each once and in order."""
    rows = [row for table in PAPER_TABLES if key in (None, table.key) for row in table.rows]
    return [EXPERIMENTS[name] for name in dict.fromkeys(row.experiment for row in rows)]
