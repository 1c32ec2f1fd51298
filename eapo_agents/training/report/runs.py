"""Runs grouped by method, with means and intervals over seeds.

Runs whose settings differ only in the seed are one method. Run folders are read once, so that the
parts of a report agree while a training is still writing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from eapo_agents.evaluation import (
    Interval,
    bootstrap_interval,
    first_distinct,
    seeds_interval,
    student_t_quantile,
)
from eapo_agents.files import validated
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.run_folder import Run
from eapo_agents.training.settings import ProblemSettings
from eapo_env.validation import UserError

Floats = npt.NDArray[np.float64]

Points = tuple[tuple[int, float], ...]
"""Training steps and values."""

_RECORDED_INTERVALS = {"alone/mean_at_k": ("alone/interval_low", "alone/interval_high")}
"""The metrics that a run records together with an interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRun:
    """The content of a run folder at the time it was read."""

    run: Run
    config: TrainConfig
    metrics: tuple[Mapping[str, float], ...]
    evaluations: Mapping[int, Path]

    @classmethod
    def read(cls, run: Run) -> RecordedRun:
        """Return the run's records as they are now.

        Raises:
            UserError: an invalid line in its metrics, or an invalid config.
        """
        return cls(
            run=run,
            config=run.config,
            metrics=tuple(run.metrics),
            evaluations=run.evaluations,
        )

    @property
    def num_steps(self) -> int:
        """The number of training steps on record; an evaluation before the first is none."""
        return sum(row["step"] > 0 for row in self.metrics)

    def points(self, metric: str) -> Points:
        """Return (step, value) of every step that recorded the metric."""
        return tuple((int(row["step"]), row[metric]) for row in self.metrics if metric in row)

    def correct_PK(self, step: int) -> Floats:
        """Return the correctness of every sample of the evaluation after a training step.

        Raises:
            UserError: its file is invalid.
        """
        path = self.evaluations[step]
        try:
            tree = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{path} holds no Evaluation: {error}") from None
        found = validated(tree, _Evaluation, path)
        lengths = sorted({len(verdicts) for verdicts in found.correct_PK})
        if len(lengths) != 1 or not lengths[0]:
            raise UserError(
                f"{path} holds no Evaluation: correct_PK: problems of {lengths} samples"
            )
        return np.array(found.correct_PK, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Evaluation:
    """The part of an evaluation's file that is read."""

    correct_PK: tuple[tuple[bool, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """A metric over training.

    Args:
        seeds: the points of each run that recorded it.
        mean: over those runs, at the steps that all of them recorded.
        band: (step, low, high), the 95% interval of the mean; empty if unknown.
    """

    seeds: tuple[Points, ...]
    mean: Points
    band: tuple[tuple[int, float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestEvaluation:
    """The newest evaluation that all evaluated runs of a method have in common.

    Args:
        step: the newest training step after which all of them were evaluated.
        runs: the runs that have been evaluated.
        values_SP: mean correctness of the samples, [seeds, problems].
        interval: of the mean, 95%: over the problems for one run, over runs and problems for
            several; None if there is a single value.
    """

    step: int
    runs: tuple[RecordedRun, ...]
    values_SP: Floats
    interval: Interval | None

    @property
    def mean(self) -> float:
        """The mean over runs and problems."""
        return float(self.values_SP.mean())

    def metric(self, name: str) -> float | None:
        """Return a metric of this step, averaged over the runs; None if one of them lacks it."""
        found = [dict(run.points(name)).get(self.step) for run in self.runs]
        values = [value for value in found if value is not None]
        return float(np.mean(values)) if len(values) == len(found) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRuns:
    """Runs of one method, one per seed, and the method's label."""

    label: str
    runs: tuple[RecordedRun, ...]

    @property
    def problems(self) -> ProblemSettings:
        """The problems that the method is evaluated on."""
        return self.runs[0].config.evaluation.problems

    def curve(self, metric: str) -> Curve:
        """Return a metric over training, averaged over the runs that recorded it."""
        found = [(run, points) for run in self.runs if (points := run.points(metric))]
        seeds = tuple(points for _, points in found)
        if len(seeds) < 2:
            band = _own_band(found[0][0], metric) if found else ()
            return Curve(seeds=seeds, mean=seeds[0] if seeds else (), band=band)
        by_step = [dict(points) for points in seeds]
        steps = sorted(set.intersection(*map(set, by_step)))
        values_ST = np.array([[one[step] for step in steps] for one in by_step])
        means = values_ST.mean(axis=0)
        number = len(seeds)
        error = values_ST.std(axis=0, ddof=1) / np.sqrt(number)
        half = student_t_quantile(0.975, number - 1) * error
        rows = zip(steps, means.tolist(), half.tolist(), strict=True)
        triples = [(step, mean - width, mean + width) for step, mean, width in rows]
        return Curve(
            seeds=seeds,
            mean=tuple(zip(steps, means.tolist(), strict=True)),
            band=tuple(triples),
        )

    def latest_evaluation(self) -> LatestEvaluation | None:
        """Return the newest evaluation that its runs have in common; None if there is none.

        Raises:
            UserError: an invalid file, or evaluations on different numbers of problems.
        """
        runs = tuple(run for run in self.runs if run.evaluations)
        common = set.intersection(*(set(run.evaluations) for run in runs)) if runs else set()
        if not common:
            return None
        step = max(common)
        values = [run.correct_PK(step).mean(axis=1) for run in runs]
        for run, one in zip(runs, values, strict=True):
            if len(one) != len(values[0]):
                raise UserError(
                    f"{run.evaluations[step]} has {len(one)} problems,"
                    f" {runs[0].evaluations[step]} has {len(values[0])}"
                )
        values_SP = np.stack(values)
        return LatestEvaluation(
            step=step, runs=runs, values_SP=values_SP, interval=_interval(values_SP)
        )

    def last(self, metric: str) -> float | None:
        """Return the last recorded value, averaged over the runs; None if no run has one."""
        values = [points[-1][1] for run in self.runs if (points := run.points(metric))]
        return float(np.mean(values)) if values else None


def methods_of(runs: Sequence[Run]) -> tuple[MethodRuns, ...]:
    """Return runs grouped by method, in the order of each method's first run.

    Runs belong to one method if their settings differ only in the seed. A second run with the same
    seed is not new evidence, so it becomes another method; a folder given twice counts once.

    Raises:
        UserError: none of the runs has metrics, or a file is invalid.
    """
    distinct = {run.folder.resolve(): run for run in runs}
    groups: list[list[RecordedRun]] = []
    for recorded in map(RecordedRun.read, distinct.values()):
        place = next((group for group in groups if _belongs(recorded, group)), None)
        if place is None:
            groups.append([recorded])
        else:
            place.append(recorded)
    if not any(one.metrics for group in groups for one in group):
        raise UserError(f"{', '.join(str(run.folder) for run in runs)} has no metrics yet")
    return tuple(
        MethodRuns(label=label, runs=tuple(group))
        for label, group in zip(_labels(groups), groups, strict=True)
    )


def _belongs(one: RecordedRun, group: Sequence[RecordedRun]) -> bool:
    seeds = {other.config.seed for other in group}
    return one.config.seed not in seeds and group[0].config == replace(
        one.config, seed=group[0].config.seed
    )


def _labels(groups: Sequence[Sequence[RecordedRun]]) -> list[str]:
    """Return distinct labels: names of run folders, or of configs if a method has several runs.

    If two labels would be equal, the other kind of name is tried, then the folders' whole paths.
    """
    folders = [group[0].run.name for group in groups]
    names = [group[0].config.name for group in groups]
    paths = [str(group[0].run.folder) for group in groups]
    single = all(len(group) == 1 for group in groups)
    chosen = first_distinct(*((folders, names) if single else (names, folders)), paths)
    counts = [f" ({len(group)} seeds)" if len(group) > 1 else "" for group in groups]
    return [label + count for label, count in zip(chosen, counts, strict=True)]


def _own_band(run: RecordedRun, metric: str) -> tuple[tuple[int, float, float], ...]:
    low, high = _RECORDED_INTERVALS.get(metric, ("", ""))
    return tuple(
        (int(row["step"]), row[low], row[high])
        for row in run.metrics
        if metric in row and low in row and high in row
    )


def _interval(values_SP: Floats) -> Interval | None:
    if values_SP.size == 1:
        return None
    if len(values_SP) == 1:
        return bootstrap_interval(values_SP[0], np.random.default_rng(0))
    return seeds_interval(values_SP)
