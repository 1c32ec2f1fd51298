"""The paper's tables, row by row, and its claims: which cells test them.

Numbers of the paper are its averages over AIME 2024, AIME 2025 and AIMO 2025 ("Pass@32").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from eapo_agents import cells
from eapo_agents.cells import SLIPS, Cell, gain_cells

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
            Line(label="base model", cell=cells.BASE, paper=42.53),
            Line(label="self collaboration", cell=cells.COLLABORATING, paper=41.83),
            Line(label="expert-assisted workflow", cell=cells.ASSISTED, paper=49.39),
            Line(label="LeaP", cell=cells.LEAP, paper=47.08),
            Line(label="distillation, all parameters", cell=cells.DISTILLED, paper=35.31),
            Line(label="distillation, LoRA", cell=cells.DISTILLED_LORA, paper=43.24),
            Line(label="self-exploratory RL", cell=cells.SELF_EXPLORATORY, paper=59.16),
            Line(label=_EAPO, cell=cells.EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="EAPO is ahead of self-exploratory RL",
                better=cells.EAPO,
                worse=cells.SELF_EXPLORATORY,
                points=4.91,
            ),
            Claim(
                text="EAPO is ahead of its base model",
                better=cells.EAPO,
                worse=cells.BASE,
                points=21.54,
            ),
            Claim(
                text="EAPO, alone, is ahead of the base model with experts",
                better=cells.EAPO,
                worse=cells.ASSISTED,
                points=14.68,
            ),
            Claim(
                text="EAPO is ahead of LeaP",
                better=cells.EAPO,
                worse=cells.LEAP,
                points=16.99,
            ),
            Claim(
                text="EAPO is ahead of distillation",
                better=cells.EAPO,
                worse=cells.DISTILLED,
                points=28.76,
            ),
            Claim(
                text="experts help the base model",
                better=cells.ASSISTED,
                worse=cells.BASE,
                points=6.86,
            ),
            Claim(
                text="experts help the base model more than copies of itself",
                better=cells.ASSISTED,
                worse=cells.COLLABORATING,
                points=7.56,
            ),
            Claim(
                text="experts help the base model more than LeaP",
                better=cells.ASSISTED,
                worse=cells.LEAP,
                points=2.31,
            ),
            Claim(
                text="LeaP helps the base model",
                better=cells.LEAP,
                worse=cells.BASE,
                points=4.55,
            ),
        ),
    ),
    PaperTable(
        key="2",
        title="Table 2: queries and experts",
        lines=(
            Line(label="self-exploratory RL", cell=cells.SELF_EXPLORATORY, paper=59.16),
            Line(label="EAPO, one query a turn, base *", cell=cells.SEQUENTIAL, paper=61.79),
            Line(label="EAPO, three queries a turn, base *", cell=cells.PARALLEL, paper=64.07),
            Line(label="EAPO, experts wrong at 30%", cell=cells.WEAK, paper=61.55),
            Line(label="EAPO, right experts", cell=cells.EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="parallel queries are ahead of sequential ones",
                better=cells.PARALLEL,
                worse=cells.SEQUENTIAL,
                points=2.28,
            ),
            Claim(
                text="strong experts are ahead of weak ones",
                better=cells.EAPO,
                worse=cells.WEAK,
                points=2.52,
            ),
        ),
    ),
    PaperTable(
        key="3",
        title="Table 3: homogeneous and heterogeneous pools",
        lines=(
            Line(label="self-exploratory RL", cell=cells.SELF_EXPLORATORY, paper=59.16),
            Line(label="EAPO, copies of the base as experts", cell=cells.COPIES, paper=58.85),
            Line(label="EAPO, other experts", cell=cells.EAPO, paper=60.66),
        ),
        claims=(
            Claim(
                text="other experts are ahead of copies of the policy",
                better=cells.EAPO,
                worse=cells.COPIES,
                points=1.81,
            ),
        ),
    ),
    PaperTable(
        key="9",
        title="Table 9: schedules",
        lines=(
            Line(label="constant 1/2", cell=cells.CONSTANT, paper=59.65),
            Line(label="slow", cell=cells.SLOW, paper=62.82),
            Line(label="fast", cell=cells.FAST, paper=59.76),
            Line(label="linear (ours)", cell=cells.EAPO, paper=64.07),
        ),
        claims=(
            Claim(
                text="linear is ahead of constant",
                better=cells.EAPO,
                worse=cells.CONSTANT,
                points=4.42,
            ),
            Claim(text="linear is ahead of slow", better=cells.EAPO, worse=cells.SLOW, points=1.25),
            Claim(text="linear is ahead of fast", better=cells.EAPO, worse=cells.FAST, points=4.31),
        ),
    ),
    PaperTable(
        key="E",
        title="Appendix E, Table 8: bad experts, base model",
        lines=(
            Line(label="experts wrong at 60%", cell=cells.ASSISTED_ERRONEOUS, paper=42.82),
            Line(label="meaningless experts", cell=cells.ASSISTED_MEANINGLESS, paper=42.92),
            Line(label="right experts", cell=cells.ASSISTED, paper=49.39),
        ),
        claims=(
            Claim(
                text="right experts are ahead of erroneous ones",
                better=cells.ASSISTED,
                worse=cells.ASSISTED_ERRONEOUS,
                points=6.57,
            ),
            Claim(
                text="right experts are ahead of meaningless ones",
                better=cells.ASSISTED,
                worse=cells.ASSISTED_MEANINGLESS,
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
            Line(label="EAPO, experts answer whole problems too", cell=cells.WHOLES),
            Line(label="EAPO, turn budgets drawn per member", cell=cells.PER_MEMBER),
            Line(label=_EAPO, cell=cells.EAPO),
        ),
    ),
)


def cells_of(key: str | None) -> list[Cell]:
    """Return the cells of the tables of a key, or of all, each once, Table 1's first."""
    found = [cell for table in TABLES if key in (None, table.key) for cell in table.cells]
    return list(dict.fromkeys(found))
