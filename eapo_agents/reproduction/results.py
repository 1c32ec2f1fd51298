"""[edge] What one run of a cell found, as a small JSON file that can be committed.

    results/CELL/seed-0.json

A file is written beside its place and moved there: it is whole or not there.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import TypeAdapter, ValidationError

from eapo_env.validation import UserError

CURVES = (
    "accuracy",
    "call_rate",
    "acceptance_rate",
    "response_tokens",
    "entropy",
    "groups_all_wrong",
    "alone/mean_at_k",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of a cell.

    Args:
        cell: its name.
        seed: of the run.
        settings: changes to the cell's own config.
        samples_per_problem: k of the evaluation, alone, at the end.
        correct_P: how many of the k samples of each held-out problem are right.
        variance: the paper's Var.
        response_tokens: mean policy tokens of those samples.
        curves: metrics over training, as (step, value).
        seconds: the run took, on a machine that may have been busy.
        commit: of the code, with "+" if files had changed; "" where nobody knows.
        machine: processor and cores, or accelerator.
    """

    cell: str
    seed: int
    settings: tuple[str, ...] = ()
    samples_per_problem: int
    correct_P: tuple[int, ...]
    variance: float
    response_tokens: float
    curves: dict[str, tuple[tuple[int, float], ...]]
    seconds: float
    commit: str
    machine: str

    def __post_init__(self) -> None:
        if not self.correct_P or not all(
            0 <= c <= self.samples_per_problem for c in self.correct_P
        ):
            raise UserError(f"{self.correct_P} are no counts out of {self.samples_per_problem}")
        for name in ("variance", "response_tokens", "seconds"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} must be a finite number, not {getattr(self, name)}")

    @property
    def means_P(self) -> npt.NDArray[np.float64]:
        """The mean of each problem's samples; their mean is mean@k."""
        return np.asarray(self.correct_P) / self.samples_per_problem

    def write(self, results: Path) -> None:
        """Write the result under the folder of all results."""
        path = result_path(results, self.cell, self.seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".unfinished")
        beside.write_text(json.dumps(dataclasses.asdict(self)) + "\n", encoding="utf-8")
        beside.replace(path)


def result_path(results: Path, cell: str, seed: int) -> Path:
    """Return where a run's result is, or will be."""
    return results / cell / f"seed-{seed}.json"


def read_results(results: Path) -> dict[str, list[Result]]:
    """Return all results in a folder by cell, in the order of their seeds.

    Raises:
        UserError: a file that holds no result, or the result of another cell or seed: a copy would
            count as evidence twice.
    """
    found: dict[str, list[Result]] = {}
    for path in results.glob("*/seed-*.json"):
        result = _read(path)
        if path != result_path(results, result.cell, result.seed):
            raise UserError(f"{path} holds the result of {result.cell}, seed {result.seed}")
        found.setdefault(result.cell, []).append(result)
    return {name: sorted(runs, key=lambda run: run.seed) for name, runs in sorted(found.items())}


def curves_of(metrics: list[dict[str, float]]) -> dict[str, tuple[tuple[int, float], ...]]:
    """Return the curves worth keeping of a run's metrics, rounded."""
    return {
        name: tuple((int(row["step"]), round(row[name], 4)) for row in metrics if name in row)
        for name in CURVES
    }


def counts(correct_PK: npt.ArrayLike) -> tuple[int, ...]:
    """Return how many samples of each problem are right."""
    return tuple(int(count) for count in np.asarray(correct_PK, dtype=np.int64).sum(axis=1))


def _read(path: Path) -> Result:
    try:
        tree: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Result).validate_python(tree)
    except (ValidationError, ValueError) as error:
        raise UserError(f"{path} holds no result: {error}") from None
