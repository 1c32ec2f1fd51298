"""The report on the miniature reproduction: results -> `results.md` and its pictures.

The page is a Markdown template, in which `{{ claims }}` and the like become tables. Everything that
this module writes follows from the results; conclusions that hold for certain results alone belong
in a template beside those results.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from eapo_agents.evaluation import PairedDifference, seeds_difference, seeds_interval
from eapo_agents.files import write_text
from eapo_agents.reproduction.base_models import BaseModel
from eapo_agents.reproduction.experiment_kinds import Distill, Evaluate, Train
from eapo_agents.reproduction.plots import draw_gain, draw_training
from eapo_agents.reproduction.results import (
    Result,
    Results,
    Shares,
    greedy_SP,
    means_SP,
    read_results,
)
from eapo_agents.reproduction.study import Claim, PaperTable, Study, TableRow
from eapo_env.validation import UserError

_DEFAULT_TEMPLATE = Path(__file__).with_name("report_template.md")
"""A page without conclusions, for any results."""

_NOTABLE = 10.0
"""Points from which on a change is named; the sampling of 64 problems moves a share by some."""

_PLACEHOLDER = re.compile(r"\{\{ *(\w*) *\}\}")


def read_template(path: str | PathLike[str] | None = None) -> str:
    """Return the page's template in a file; by default one without conclusions, for any results.

    Raises:
        UserError: a file that cannot be read, or an unknown placeholder in it.
    """
    try:
        template = Path(path or _DEFAULT_TEMPLATE).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the template {path}: {error}") from None
    for placeholder in _PLACEHOLDER.finditer(template):
        if placeholder[1] not in _TABLES:
            raise UserError(
                f"{path} has the unknown placeholder {placeholder[0]!r}; known are"
                f" {', '.join(_TABLES)}"
            )
    return template


def write_report(folder: str | PathLike[str], template: str, study: Study) -> Path:
    """Write `results.md` and its pictures into a folder, from the results in its `results/`.

    Args:
        folder: nothing is written outside of it.
        template: of the page; see `read_template`.
        study: whose results they are.

    Raises:
        UserError: no results there, an invalid file among them, or one of another study.
    """
    folder = Path(folder)
    results = read_results(folder / "results")
    if not results:
        raise UserError(f"{folder / 'results'} holds no results: run `eapo reproduce` first")
    check_study(study, results)
    draw_training(study, results, folder / "images" / "results-training.png")
    draw_gain(study, results, folder / "images" / "results-gain.png")
    path = folder / "results.md"
    write_text(path, page(template, study, results))
    return path


def check_study(study: Study, results: Results) -> None:
    """Raise a `UserError` if some results are of other experiments than the study's.

    Studies have experiments of one name that differ, so those of two cannot be in one folder.
    """
    if strange := sorted(results.keys() - study.experiments.keys()):
        raise UserError(
            f"these results are of another study than {study.name!r}: {', '.join(strange)};"
            " choose another --folder or --study"
        )


def page(template: str, study: Study, results: Results) -> str:
    """Return a template with the tables of some results in the place of its placeholders."""
    return _PLACEHOLDER.sub(lambda found: "\n".join(_TABLES[found[1]](study, results)), template)


def _provenance(study: Study, results: Results) -> Iterator[str]:
    runs = [run for of_experiment in results.values() for run in of_experiment]
    commits = sorted({run.commit or "unknown" for run in runs})
    machines = sorted({run.machine for run in runs})
    settings = sorted({setting for run in runs for setting in run.settings})
    hours = sum(run.seconds for run in runs) / 3600
    yield f"| runs | {len(runs)}, {hours:.1f} hours of computing in all |"
    yield f"| commit | {', '.join(commits)} |"
    yield f"| machine | {'; '.join(machines)}; one thread a run |"
    if settings:
        yield f"| changed settings | {' '.join(f'`{setting}`' for setting in settings)} |"


def _missing_seeds(study: Study, results: Results) -> Iterator[str]:
    short = [
        f"{experiment.name} ({_num_seeds(experiment.name, results)} of {experiment.num_seeds})"
        for experiment in study.experiments_of(None)
        if _num_seeds(experiment.name, results) < experiment.num_seeds
    ]
    if short:
        yield f"**Not finished**: seeds run so far, of those planned: {', '.join(short)}."
        yield "`eapo reproduce` runs the rest. An experiment that has not run has no number below."
    else:
        yield "Every experiment has all of its seeds."


def _main_claim(study: Study, results: Results) -> Iterator[str]:
    found = _difference(study, study.main_claim, results)
    if found is None:
        yield "Not run yet."
        return
    names = (study.main_claim.better, study.main_claim.worse)
    if min(_num_seeds(name, results) for name in names) < 2:
        yield "**Not decided: one seed.**"
    elif found.mean < study.aim:
        yield "**The aim is not reached.**"
    elif found.interval.low > study.aim_low:
        yield "**The aim is reached.**"
    else:
        points = f"{100 * study.aim:g} points"
        yield f"**Ahead by {points} or more, but the interval is not high enough.**"
    yield from (
        "",
        "| seeds | EAPO - self-exploratory RL, mean@k, points | p | greedy, points | p |",
        "|---|---|---|---|---|",
    )
    for label, seeds, level in _looks(study):
        a, b = (_of_seeds(results.get(name, ()), seeds) for name in names)
        numbers = " | ".join(
            _difference_and_p(shares_SP(a), shares_SP(b), level) if a and b else "not run | "
            for shares_SP in (means_SP, greedy_SP)
        )
        yield f"| {label}: {len(a)} and {len(b)} | {numbers} |"


def _difference_and_p(a_SP: Shares, b_SP: Shares, level: float) -> str:
    fewest_seeds = min(len(a_SP), len(b_SP))
    if not fewest_seeds:
        return "- | -"
    found = seeds_difference(a_SP, b_SP, level=level)
    p_value = f"{found.p_value:.4f}" if fewest_seeds > 1 else "-"
    return f"{_points(found, fewest_seeds)} | {p_value}"


def _looks(study: Study) -> Iterator[tuple[str, range, float]]:
    """Yield the seeds of each look, those after the first one by themselves, and all."""
    *_, last = study.looks
    if len(study.looks) > 1:
        first = study.looks[0]
        yield f"the first {first}, 95%", range(first), 0.95
        yield f"the later {last - first} alone, 95%", range(first, last), 0.95
    yield f"all, {100 * study.level:g}%", range(last), study.level


def _of_seeds(runs: Sequence[Result], seeds: range) -> list[Result]:
    return [run for run in runs if run.seed in seeds]


def _claims(study: Study, results: Results) -> Iterator[str]:
    yield "| claim | paper, points | here, points (95% interval) | seeds | verdict |"
    yield "|---|---|---|---|---|"
    for claim in (claim for table in study.tables for claim in table.claims):
        found = _difference(study, claim, results)
        seeds = f"{_num_seeds(claim.better, results)}/{_num_seeds(claim.worse, results)}"
        fewest = min(_num_seeds(name, results) for name in (claim.better, claim.worse))
        here = _points(found, fewest) if found else "-"
        verdict = _verdict(found, claim, results)
        yield f"| {claim.text} | {claim.paper_points:+.2f} | {here} | {seeds} | {verdict} |"


def _verdict(found: PairedDifference | None, claim: Claim, results: Results) -> str:
    if found is None:
        return "not run"
    if min(_num_seeds(name, results) for name in (claim.better, claim.worse)) < 2:
        return "not decided: one seed"
    if found.interval.low > 0:
        return "holds"
    return "does not hold" if found.interval.high < 0 else "not decided"


def _paper_tables(study: Study, results: Results) -> Iterator[str]:
    for number, table in enumerate(study.tables):
        yield from ("",) if number else ()
        yield from (f"## {table.title}", "", *_table(study, table, results))
        yield from _moved(study, table, results)


def _table(study: Study, table: PaperTable, results: Results) -> Iterator[str]:
    yield (
        "| | greedy | mean@k | 95% interval | each seed | pass@32 | pass@256 | half-time | Var"
        " | tokens | seeds | paper |"
    )
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for row in table.rows:
        paper = "-" if row.paper_score is None else f"{row.paper_score:.2f}"
        yield f"| {row.label} | {_numbers(study, row, results)} | {paper} |"


def _moved(study: Study, table: PaperTable, results: Results) -> Iterator[str]:
    """Yield a sentence on what each training of a table moved, against its base: see `_changes`."""
    told = []
    for row in table.rows:
        experiment, runs = study.experiments[row.experiment], results.get(row.experiment, ())
        if isinstance(experiment, Train | Distill):
            base = _untrained(experiment.base_model, study, results)
            if base and runs and (changes := _changes(base, runs)):
                told.append(f"{row.label}: {changes}")
    if told:
        yield from ("", f"Moved, against its base: {'; '.join(told)}.")


def _untrained(base_model: BaseModel, study: Study, results: Results) -> Sequence[Result]:
    """Return the results of the base model alone; none if it was not evaluated."""
    for one in study.experiments.values():
        if isinstance(one, Evaluate) and one.rules.is_alone and one.base_model == base_model:
            return results.get(one.name, ())
    return ()


def _changes(base: Sequence[Result], runs: Sequence[Result]) -> str:
    """Return which of mode, noise and support changed by ten points or more; "" if unmeasured.

    The mode is greedy accuracy, the support pass@256, and the noise what sampling loses of the
    greedy accuracy.
    """
    shares = {"mode": _greedy, "support": _support, "noise": _noise}
    changes = {name: 100 * (share(runs) - share(base)) for name, share in shares.items()}
    if all(map(math.isnan, changes.values())):
        return ""
    found = [f"the {name} ({by:+.0f})" for name, by in changes.items() if abs(by) >= _NOTABLE]
    return " and ".join(found) or "nothing"


def _greedy(runs: Sequence[Result]) -> float:
    shares_SP = greedy_SP(runs)
    return float(shares_SP.mean()) if len(shares_SP) else math.nan


def _support(runs: Sequence[Result]) -> float:
    return _mean([run.pass_at(256) for run in runs])


def _noise(runs: Sequence[Result]) -> float:
    return _greedy(runs) - float(means_SP(runs).mean())


def _base(study: Study, results: Results) -> Iterator[str]:
    """Yield what the untrained base can do."""
    runs = results.get(study.base, ())
    yield "| greedy | mean@k | pass@32 | pass@256 | pass@1024 | seeds |"
    yield "|---|---|---|---|---|---|"
    if runs:
        passed = " | ".join(_share([run.pass_at(k) for run in runs]) for k in (32, 256, 1024))
        yield f"| {_share([_greedy(runs)])} | {_percent(runs)} | {passed} | {len(runs)} |"
    else:
        yield "| not run | | | | | |"


def _numbers(study: Study, row: TableRow, results: Results) -> str:
    runs = results.get(row.experiment, ())
    num_seeds = study.experiments[row.experiment].num_seeds
    if not runs:
        return f"not run | | | | | | | | | 0 of {num_seeds}"
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in seeds_interval(means_SP(runs)))
    each = " ".join(f"{100 * run.means_P.mean():.1f}" for run in runs)
    return (
        f"{_percents(greedy_SP(runs).mean(1))}"
        f" | {100 * means_SP(runs).mean():.1f} | {low:.1f} to {high:.1f} | {each}"
        f" | {_share([run.pass_at(32) for run in runs])}"
        f" | {_share([run.pass_at(256) for run in runs])}"
        f" | {_at_half_training(runs)}"
        f" | {_mean([run.variance for run in runs]):.4f}"
        f" | {_mean([run.response_tokens for run in runs]):.0f}"
        f" | {len(runs)} of {num_seeds}"
    )


def _at_half_training(runs: Sequence[Result]) -> str:
    """Return each policy's mean@k, alone, after half of its training; "-" without training."""
    found = [dict(run.curves.get("alone/mean_at_k", ())).get(_steps(run) // 2) for run in runs]
    return " ".join(f"{100 * mean:.1f}" for mean in found if mean is not None) or "-"


def _gains(study: Study, results: Results) -> Iterator[str]:
    yield "| slip | base, mean@k | self-exploratory RL | EAPO | gain (95% interval) | seeds |"
    yield "|---|---|---|---|---|---|"
    for point in study.gain_curve:
        names = (point.base, point.self_exploratory, point.eapo)
        numbers = [_percent(results.get(name, ())) for name in names]
        found = _difference_of(study, point.eapo, point.self_exploratory, results)
        fewest = min(_num_seeds(name, results) for name in names[1:])
        gain = _points(found, fewest) if found else "-"
        seeds = "/".join(str(_num_seeds(name, results)) for name in names)
        yield f"| {point.step_error_rate} | {' | '.join(numbers)} | {gain} | {seeds} |"


def _call_rates(study: Study, results: Results) -> Iterator[str]:
    yield "| | first | second | third | last |"
    yield "|---|---|---|---|---|"
    for curve, label in (
        ("call_rate", "call rate"),
        ("acceptance_rate", "acceptance rate"),
        ("accuracy", "accuracy in training"),
    ):
        runs = results.get(study.main_claim.better, ())
        quarters = [_mean([v for run in runs for v in _quarter(run, curve, q)]) for q in range(4)]
        yield f"| {label} | {' | '.join(f'{value:.2f}' for value in quarters)} |"


def _trainings(study: Study, results: Results) -> Iterator[str]:
    """Yield a row for each training of the main claim, a method's best seed first."""
    yield "| | mean@k at the end | entropy, by quarters | groups all wrong | response tokens |"
    yield "|---|---|---|---|---|"
    for experiment, label in (
        (study.main_claim.better, "EAPO"),
        (study.main_claim.worse, "self-exploratory RL"),
    ):
        for run in sorted(results.get(experiment, ()), key=lambda run: -run.means_P.mean()):
            columns = (
                _by_quarters(run, "entropy", 2),
                _by_quarters(run, "groups_all_wrong", 2),
                _by_quarters(run, "response_tokens", 0),
            )
            yield (
                f"| {label}, seed {run.seed} | {100 * run.means_P.mean():.1f}"
                f" | {' | '.join(columns)} |"
            )


def _by_quarters(run: Result, curve: str, digits: int) -> str:
    if not run.curves.get(curve):
        return "-"
    quarters = (_quarter(run, curve, quarter) for quarter in range(4))
    return " ".join(f"{_mean(values):.{digits}f}" if values else "-" for values in quarters)


def _quarter(run: Result, curve: str, quarter: int) -> Sequence[float]:
    """Return a curve's values in a quarter of the training; a step may have none."""
    steps = _steps(run)
    points = run.curves.get(curve, ())
    return [value for step, value in points if 4 * (step - 1) // steps == quarter]


def _steps(run: Result) -> int:
    """Return the number of training steps; 0 without training."""
    return max((step for points in run.curves.values() for step, _ in points), default=0)


def _difference(study: Study, claim: Claim, results: Results) -> PairedDifference | None:
    return _difference_of(study, claim.better, claim.worse, results)


def _difference_of(
    study: Study, better: str, worse: str, results: Results
) -> PairedDifference | None:
    """Return the difference of two experiments in mean@k; None until both have run."""
    a, b = results.get(better, ()), results.get(worse, ())
    is_main = (better, worse) == (study.main_claim.better, study.main_claim.worse)
    level = study.level if is_main else 0.95
    return seeds_difference(means_SP(a), means_SP(b), level=level) if a and b else None


def _points(found: PairedDifference, fewest_seeds: int) -> str:
    """Return a difference in points; without its interval if it does not count one side's seeds."""
    if fewest_seeds < 2:
        return f"{100 * found.mean:+.1f}"
    low, high = found.interval
    return f"{100 * found.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _percent(runs: Sequence[Result]) -> str:
    return f"{100 * means_SP(runs).mean():.1f}" if runs else "-"


def _percents(shares: Iterable[float]) -> str:
    return " ".join(f"{100 * share:.1f}" for share in shares) or "-"


def _share(values: Sequence[float]) -> str:
    """Return the mean in percent; "-" if a run lacks it."""
    mean = _mean(values)
    return "-" if math.isnan(mean) else f"{100 * mean:.1f}"


def _num_seeds(experiment: str, results: Results) -> int:
    return len(results.get(experiment, ()))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


_TABLES: Mapping[str, Callable[[Study, Results], Iterator[str]]] = {
    "provenance": _provenance,
    "missing_seeds": _missing_seeds,
    "base": _base,
    "main_claim": _main_claim,
    "claims": _claims,
    "paper_tables": _paper_tables,
    "gains": _gains,
    "call_rates": _call_rates,
    "trainings": _trainings,
}
"""What a template can have, by the name of its placeholder."""
