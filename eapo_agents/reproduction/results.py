"""[edge] The result of one run of an experiment, as a small JSON file that can be committed.

results/EXPERIMENT/seed-0.json
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, ValidationError

from eapo_agents.evaluation import pass_at_k
from eapo_agents.files import write_text
from eapo_env.validation import UserError

Curves = Mapping[str, tuple[tuple[int, float], ...]]
"""Metrics over training, as (step, value)."""

KEPT_METRICS = (
    "accuracy",
    "call_rate",
    "acceptance_rate",
    "response_tokens",
    "entropy",
    "groups_all_wrong",
    "alone/mean_at_k",
)
"""The metrics of a training run whose curves a result keeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one run of an experiment measured.

    Args:
        samples_per_problem: k of the final evaluation.
        correct_P: how many of the k samples of each held-out problem are right.
        greedy_P: whether the greedy answer to each is right; empty if there is none.
        variance: the paper's Var.
        response_tokens: mean policy tokens of those samples.
        curves: metrics over training; empty without training.
        seconds: of computing; of a training, those of its steps.
    """

    samples_per_problem: int
    correct_P: tuple[int, ...]
    greedy_P: tuple[bool, ...] = ()
    variance: float
    response_tokens: float
    curves: Curves
    seconds: float

    @classmethod
    def of(
        cls,
        report: Mapping[str, Any],
        *,
        greedy_P: tuple[bool, ...] = (),
        metrics: Sequence[Mapping[str, float]] = (),
        seconds: float,
    ) -> Measurement:
        """Return what is kept of an evaluation's report (as JSON has it) and a run's metrics."""
        return cls(
            samples_per_problem=report["samples_per_problem"],
            correct_P=tuple(sum(map(int, correct_K)) for correct_K in report["correct_PK"]),
            greedy_P=greedy_P,
            variance=report["variance"],
            response_tokens=report["response_tokens"],
            curves=curves_of(metrics),
            seconds=round(seconds),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One run of an experiment: which it was, what it measured (see `Measurement`), and where.

    Args:
        experiment: its name; the key `cell` of the file.
        seed: of the run.
        settings: changes to the experiment's own config.
        commit: of the code, with "+" if files had changed; "" if unknown.
        machine: processor and cores, or accelerator.

    Raises:
        UserError: counts beyond k, or a number that is not finite.
    """

    experiment: Annotated[str, Field(alias="cell")]
    seed: int
    settings: tuple[str, ...] = ()
    samples_per_problem: int
    correct_P: tuple[int, ...]
    greedy_P: tuple[bool, ...] = ()
    variance: float
    response_tokens: float
    curves: Curves
    seconds: float
    commit: str
    machine: str

    def __post_init__(self) -> None:
        if not self.correct_P or not all(
            0 <= c <= self.samples_per_problem for c in self.correct_P
        ):
            raise UserError(f"{self.correct_P} are not counts out of {self.samples_per_problem}")
        for name in ("variance", "response_tokens", "seconds"):
            if not math.isfinite(getattr(self, name)):
                raise UserError(f"{name} must be a finite number, not {getattr(self, name)}")

    @property
    def means_P(self) -> npt.NDArray[np.float64]:
        """The mean correctness of each problem's samples; their mean is mean@k."""
        return np.asarray(self.correct_P) / self.samples_per_problem

    def pass_at(self, k: int) -> float:
        """Return the unbiased pass@k; nan with fewer samples."""
        if k > self.samples_per_problem:
            return math.nan
        correct_PK = np.arange(self.samples_per_problem) < np.asarray(self.correct_P)[:, None]
        return pass_at_k(correct_PK, k)

    def write(self, results: Path) -> None:
        """Write the result under the folder of all results; the file is never seen half-written."""
        tree = dataclasses.asdict(self)
        tree = {"cell": tree.pop("experiment"), **tree}
        if not self.greedy_P:
            del tree["greedy_P"]
        write_text(result_path(results, self.experiment, self.seed), json.dumps(tree) + "\n")


Shares = npt.NDArray[np.float64]
"""The share of right answers of each problem, [seeds, problems]."""

Results = Mapping[str, Sequence[Result]]
"""Results by the name of their experiment, in the order of their seeds."""


def result_path(results: Path, experiment: str, seed: int) -> Path:
    """Return the path of a run's result, whether it is there yet or not."""
    return results / experiment / f"seed-{seed}.json"


def read_results(results: Path) -> dict[str, list[Result]]:
    """Return all results in a folder by experiment, in the order of their seeds.

    Raises:
        UserError: an invalid file, or one that holds the result of another experiment or seed: a
            copy would count as evidence twice.
    """
    found: dict[str, list[Result]] = {}
    for path in results.glob("*/seed-*.json"):
        result = _read(path)
        if path != result_path(results, result.experiment, result.seed):
            raise UserError(f"{path} holds the result of {result.experiment}, seed {result.seed}")
        found.setdefault(result.experiment, []).append(result)
    return {name: sorted(runs, key=lambda run: run.seed) for name, runs in sorted(found.items())}


def means_SP(runs: Sequence[Result]) -> Shares:
    """Return the mean correctness of each problem's samples, [seeds, problems]."""
    return np.stack([run.means_P for run in runs])


def greedy_SP(runs: Sequence[Result]) -> Shares:
    """Return whether greedy answers are right, [seeds, problems]; no seeds if one has none."""
    if not all(run.greedy_P for run in runs):
        return np.zeros((0, 1))
    return np.stack([np.asarray(run.greedy_P, dtype=np.float64) for run in runs])


def curves_of(metrics: Sequence[Mapping[str, float]]) -> Curves:
    """Return the curves of a run's metrics that a result keeps, rounded to four digits."""
    return {
        name: tuple((int(row["step"]), round(row[name], 4)) for row in metrics if name in row)
        for name in KEPT_METRICS
    }


def _read(path: Path) -> Result:
    try:
        tree: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
        return TypeAdapter(Result).validate_python(tree)
    except (ValidationError, ValueError) as error:
        raise UserError(f"{path} holds no result: {error}") from None
