"""What the page of a report shows, as JSON-ready values: curves, tables, settings, episodes.

The summary is all but the episodes; these come by run and step, so that a page which follows a
training fetches only what is new.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, TypeVar

from eapo_agents.evaluation import Table, first_distinct
from eapo_agents.training.report.plots import OVERVIEW_PANELS, PARADIGM_PANELS
from eapo_agents.training.report.report import report_tables
from eapo_agents.training.report.runs import Curve, MethodRuns, RecordedRun, methods_of
from eapo_agents.training.report.transcripts import (
    Transcript,
    as_row,
    evaluated_in,
    transcripts_of,
)
from eapo_agents.training.resumption import leaves
from eapo_agents.training.run_folder import Run

Point = TypeVar("Point")

MAX_POINTS = 1000
"""A longer curve is drawn at every n-th step, and at its last."""

_PANELS = (*OVERVIEW_PANELS, *PARADIGM_PANELS)
_DIGITS = 6


def summary(runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the page shows of some runs, except for the episodes.

    Its `tag` differs whenever the rest does.

    Raises:
        UserError: none of the runs has metrics, or one of their files is invalid.
    """
    methods = methods_of(runs)
    evaluations = [method.latest_evaluation() for method in methods]
    in_order = [(number, one) for number, method in enumerate(methods) for one in method.runs]
    names = distinct_names([one.run for _, one in in_order])
    found = {
        "methods": [method.label for method in methods],
        "runs": [
            _run(one, name, number) for name, (number, one) in zip(names, in_order, strict=True)
        ],
        "tables": [_table(table) for table in report_tables(methods, evaluations)],
        "panels": [{"metric": metric, "title": title} for metric, title in _PANELS],
        "curves": _curves(methods),
    }
    return {**found, "tag": hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]}


def episodes(run: Run, step: int, every: int = 1) -> list[dict[str, Any]]:
    """Return every n-th group of the episodes that a run recorded at a step.

    Which ones differs from step to step, so that few groups a step are thinned out, too; it is the
    same in all runs.

    Raises:
        UserError: a file is invalid.
    """
    return _thinned_groups(transcripts_of(run, step), list(run.transcripts).index(step), every)


def evaluated(run: Run, step: int, every: int = 1) -> list[dict[str, Any]]:
    """Return every n-th episode of the evaluation that a run recorded at a step, as `episodes`.

    Raises:
        UserError: a file is invalid.
    """
    return _thinned_groups(evaluated_in(run, step), list(run.evaluated).index(step), every)


def recorded_bytes(runs: Iterable[Run]) -> int:
    """Return the size of all recorded episodes of some runs."""
    paths = (path for run in runs for path in (*run.transcripts.values(), *run.evaluated.values()))
    return sum(path.stat().st_size for path in paths)


def _thinned_groups(found: Iterable[Transcript], first: int, every: int) -> list[dict[str, Any]]:
    rows, group = [], -1
    for one in found:
        group += not one.member
        if (first + group) % every == 0:
            rows.append(as_row(one) | {"group": group})
    return rows


def distinct_names(runs: Sequence[Run]) -> Sequence[str]:
    """Return distinct names of run folders, with as much of their paths as it takes."""
    folders = [run.folder.absolute() for run in runs]
    return first_distinct(
        [folder.name for folder in folders],
        [f"{folder.parent.name}/{folder.name}" for folder in folders],
        [str(folder) for folder in folders],
    )


def _run(one: RecordedRun, name: str, method: int) -> dict[str, Any]:
    return {
        "name": name,
        "folder": str(one.run.folder),
        "method": method,
        "seed": one.config.seed,
        "steps": one.num_steps,
        "planned": one.config.steps,
        "episodes": list(one.run.transcripts),
        "evaluated": list(one.run.evaluated),
        "settings": {name: _shown(value) for name, value in leaves(asdict(one.config))},
        "events": [{name: _shown(value) for name, value in row.items()} for row in one.run.events],
    }


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "header": list(table.header),
        "rows": [list(row) for row in table.rows],
    }


def _curves(methods: Sequence[MethodRuns]) -> dict[str, list[dict[str, Any]]]:
    """Return the curve of each method, by metric; the metrics in the order of the alphabet."""
    rows = (row for method in methods for run in method.runs for row in run.metrics)
    names = sorted({name for row in rows for name in row} - {"step"})
    return {name: [_curve(method.curve(name)) for method in methods] for name in names}


def _curve(curve: Curve) -> dict[str, Any]:
    several = curve.seeds if len(curve.seeds) > 1 else ()
    return {
        "mean": _columns(curve.mean),
        "band": _columns(curve.band),
        "seeds": [_columns(points) for points in several],
    }


def _columns(points: Sequence[tuple[float, ...]]) -> list[list[float | None]]:
    """Return points as columns: steps, then values."""
    return [list(map(rounded, column)) for column in zip(*thinned(points), strict=True)]


def thinned(points: Sequence[Point], most: int = MAX_POINTS) -> list[Point]:
    """Return every n-th point, so that there are at most `most`, and the last one."""
    drawn = list(points[:: -(-len(points) // most) or 1])
    if points and drawn[-1] != points[-1]:
        drawn.append(points[-1])
    return drawn


def rounded(value: float) -> float | None:
    """Return a number to six digits; None for one that JSON lacks."""
    if isinstance(value, int):
        return value
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
