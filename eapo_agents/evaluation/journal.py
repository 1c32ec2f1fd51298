"""One policy on several sets of problems: a JSON file, and a journal to resume from.

    RESULT.json            the reports, set by set, with every sample's verdict
    RESULT.json.partial    until it ends: what is evaluated, then one line per finished problem

The command that writes the journal removes it when all of its results are there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from eapo_agents.evaluation.evaluator import NUM_RESAMPLES, ProblemResult, Report
from eapo_agents.evaluation.metrics import Interval, resampled_means
from eapo_agents.files import resume_journal, validated, write_text
from eapo_env.json_lines import JsonLines
from eapo_env.validation import UserError

Means = npt.NDArray[np.float64]
"""The mean correctness of each problem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The reports on one policy, by the names of the sets of problems.

    Args:
        wrong_replies: the share of incorrect replies of the experts, by the same names, where they
            were drawn from a recording.
    """

    name: str
    reports: Mapping[str, Report]
    wrong_replies: Mapping[str, float] = field(default_factory=dict)

    def average(self) -> tuple[float, Interval]:
        """Return mean@k averaged over the sets, as the paper's "Avg.", and its 95% interval.

        Problems are resampled within their sets; each set has the same weight.
        """
        rng = np.random.default_rng(0)
        means_P = [np.mean(report.correct_PK, axis=1) for report in self.reports.values()]
        resampled = np.mean([resampled_means(m, rng, NUM_RESAMPLES) for m in means_P], axis=0)
        low, high = np.quantile(resampled, [0.025, 0.975]).tolist()
        return float(np.mean([m.mean() for m in means_P])), Interval(low, high)

    def to_json(self) -> str:
        """Return the evaluation as JSON that `evaluation_in` reads back."""
        mean, interval = self.average()
        tree = {
            "name": self.name,
            "average_mean_at_k": mean,
            "average_interval": interval,
            "wrong_replies": dict(self.wrong_replies),
            "sets": {name: asdict(report) for name, report in self.reports.items()},
        }
        return json.dumps(tree, indent=1) + "\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Journal:
    """The finished problems of an evaluation, in a file from which it resumes.

    Args:
        file: its first line is what is evaluated and how, each later one a finished problem.
        results: the problems that were finished when it was opened, by the name of their set.
    """

    file: JsonLines
    results: dict[str, list[ProblemResult]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: str | PathLike[str], subject: Mapping[str, Any]) -> Journal:
        """Return the journal in a file, which is made if it is not there.

        Args:
            path: the file.
            subject: what is evaluated and how, JSON-ready; results of another subject are refused.

        Raises:
            UserError: the file holds results of something else, or an invalid line; a last line
                cut short by a crash is left out.
        """
        journal = cls(file=JsonLines(Path(path)))
        for found in resume_journal(journal.file, subject, _Result):
            journal.results.setdefault(found.set, []).append(found.result)
        return journal

    def append(self, set_name: str, result: ProblemResult) -> None:
        """Add a finished problem."""
        self.file.append({"set": set_name, "result": asdict(result)})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """A line of a journal after its first."""

    set: str
    result: ProblemResult


def paired(a: Evaluation, b: Evaluation) -> dict[str, tuple[Means, Means]]:
    """Return, for each set that both have, the mean correctness of every common problem.

    Raises:
        UserError: no problem in common, by the name of its set and its id.
    """
    pairs = {
        name: _common(a.reports[name], b.reports[name]) for name in a.reports if name in b.reports
    }
    pairs = {name: pair for name, pair in pairs.items() if len(pair[0])}
    if not pairs:
        sets = " and ".join(", ".join(one.reports) for one in (a, b))
        raise UserError(
            f"{a.name} and {b.name} were not evaluated on the same problems, by the names of the"
            f" sets and the ids in them: {sets}"
        )
    return pairs


def _common(a: Report, b: Report) -> tuple[Means, Means]:
    means_a, means_b = _means(a), _means(b)
    ids = [one for one in means_a if one in means_b]
    return np.array([means_a[one] for one in ids]), np.array([means_b[one] for one in ids])


def _means(report: Report) -> dict[str, float]:
    """Return each problem's mean correctness; nothing for a report that names no problems."""
    if not report.problem_ids:
        return {}
    means_P = np.mean(report.correct_PK, axis=1).tolist()
    return dict(zip(report.problem_ids, means_P, strict=True))


def write_evaluation(evaluation: Evaluation, path: str | PathLike[str]) -> None:
    """Write an evaluation into a JSON file, atomically."""
    write_text(Path(path), evaluation.to_json())


def evaluation_in(path: str | PathLike[str]) -> Evaluation:
    """Return the evaluation in a JSON file.

    Raises:
        UserError: there is none, or the file holds something else.
    """
    path = Path(path)
    tree = _json(path)
    if not isinstance(tree, dict) or not isinstance(tree.get("sets"), dict) or not tree["sets"]:
        raise UserError(f"{path} holds no evaluation: it has no 'sets'")
    reports = {name: _report(report, path) for name, report in tree["sets"].items()}
    wrong = validated(tree.get("wrong_replies", {}), dict[str, float], path)
    return Evaluation(name=str(tree.get("name", path.stem)), reports=reports, wrong_replies=wrong)


def report_in(path: str | PathLike[str]) -> Report:
    """Return the report in a JSON file.

    Raises:
        UserError: there is none, or the file holds something else.
    """
    path = Path(path)
    return _report(_json(path), path)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no evaluation can be read from {path}: {error}") from None
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from None


def _report(tree: object, path: Path) -> Report:
    report: Report = validated(tree, Report, path)
    lengths = sorted({len(verdicts) for verdicts in report.correct_PK})
    if len(lengths) != 1 or not lengths[0]:
        raise UserError(f"{path} holds no Report: correct_PK: problems of {lengths} samples")
    names, problems = len(report.problem_ids), len(report.correct_PK)
    if names not in (0, problems):
        raise UserError(f"{path} holds no Report: {names} problem_ids for {problems} problems")
    return report
