"""What a study is: experiments by name, the tables that they are in, and its main claim."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from eapo_agents.reproduction.experiment_kinds import Experiment

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A set of experiments that are compared with each other.

    Args:
        name: on the command line.
        experiments: by name, as the tables name them.
        tables: what they are compared in.
        gain_curve: the main comparison over base models of other strengths.
        base: the experiment that evaluates the base model of the tables.
        main_claim: what the study is about; its experiments have the most seeds.
        aim: by how much it has to hold, and `aim_low`: what its interval has to be above; both are
            shares in [0, 1].
        looks: the numbers of seeds after which the main claim is looked at; each look has an equal
            part of the 5%.
    """

    name: str
    experiments: Mapping[str, Experiment]
    tables: tuple[PaperTable, ...]
    gain_curve: tuple[GainPoint, ...] = ()
    base: str = "base"
    main_claim: Claim
    aim: float
    aim_low: float
    looks: tuple[int, ...]

    @property
    def level(self) -> float:
        """The level of the main claim's interval."""
        return 1.0 - 0.05 / len(self.looks)

    def experiments_of(self, key: TableKey | None) -> list[Experiment]:
        """Return the experiments in the tables of a key, or in all, each once and in order."""
        rows = [row for table in self.tables if key in (None, table.key) for row in table.rows]
        return [self.experiments[name] for name in dict.fromkeys(row.experiment for row in rows)]
