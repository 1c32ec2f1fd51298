"""The report on the miniature reproduction: results -> `results.md` and its pictures.

What stands in it is computed from the committed results alone, so it can be made anew without
running anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eapo_agents.cell_results import Result, read_results
from eapo_agents.cells import (
    EAPO,
    FIRST_SEEDS,
    SELF_EXPLORATORY,
    SLIPS,
    STEPS,
    Cell,
    gain_cells,
)
from eapo_agents.claims import TABLES, Claim, Line, PaperTable
from eapo_agents.comparison import seeds_difference, seeds_interval
from eapo_agents.metrics import PairedDifference
from eapo_agents.results_plots import Results, draw_gain, draw_training, means
from eapo_agents.results_text import (
    AIM,
    BEYOND,
    CALLS,
    CURVE,
    DISAGREEMENT,
    INTRODUCTION,
    NOT_TESTED,
    READING,
    TUNING,
)

TWO_LOOKS = 0.975
"""The level of the aim's interval: its seeds were looked at twice, so each look has half of 5%."""


def write_report(docs: Path) -> Path:
    """Write `results.md` and its pictures in a folder of documents, from its `results/`.

    Raises:
        ValueError: no results there, or a file that holds none.
    """
    results = read_results(docs / "results")
    if not results:
        raise ValueError(f"{docs / 'results'} holds no results: run `eapo reproduce` first")
    draw_training(results, docs / "images" / "results-training.png")
    draw_gain(results, docs / "images" / "results-gain.png")
    path = docs / "results.md"
    path.write_text("\n".join(_lines(results)) + "\n", encoding="utf-8")
    return path


def _lines(results: Results) -> Iterator[str]:
    yield from INTRODUCTION.splitlines()
    yield from _provenance(results)
    yield from _missing(results)
    yield from ("", "## The aim", "", *AIM.splitlines(), "")
    yield from (*_headline(results), "")
    yield "![Training curves, a line a seed](images/results-training.png)"
    yield from ("", "## What the paper claims, and what came out", "", *_claims(results))
    yield from ("", "## Where it disagrees with the paper", "", *DISAGREEMENT.splitlines())
    for table in TABLES:
        yield from ("", f"## {table.title}", "", *_table(table, results))
    yield from ("", "## Where expert help pays", "", *CURVE.splitlines(), "")
    yield from _gains(results)
    yield from ("", "![Gain against the base's success](images/results-gain.png)")
    yield from ("", "## Appendix B: the call rate falls", "", *CALLS.splitlines(), "")
    yield from _call_rates(results)
    yield from ("", "## What it hangs on", "", *BEYOND.splitlines(), "")
    yield from _outcomes(results)
    yield from ("", "## Tuning", "", *TUNING.splitlines())
    yield from ("", "## How to read the intervals", "", *READING.splitlines())
    yield from ("", "## What could not be tested here", "", *NOT_TESTED.splitlines())


def _provenance(results: Results) -> Iterator[str]:
    runs = [run for cell in results.values() for run in cell]
    commits = sorted({run.commit or "unknown" for run in runs})
    machines = sorted({run.machine for run in runs})
    settings = sorted({setting for run in runs for setting in run.settings})
    hours = sum(run.seconds for run in runs) / 3600
    yield from ("", "| | |", "|---|---|")
    yield "| command | `eapo reproduce`; this text alone: `eapo reproduce --report` |"
    yield f"| runs | {len(runs)}, {hours:.1f} hours of computing in all |"
    yield f"| commit | {', '.join(commits)} |"
    yield f"| machine | {'; '.join(machines)}; one thread a run, on a machine with other work |"
    if settings:
        yield f"| changed settings | {' '.join(f'`{setting}`' for setting in settings)} |"


def _missing(results: Results) -> Iterator[str]:
    cells = dict.fromkeys(cell for table in TABLES for cell in table.cells)
    short = [
        f"{cell.name} ({len(results.get(cell.name, ()))} of {cell.num_seeds})"
        for cell in cells
        if len(results.get(cell.name, ())) < cell.num_seeds
    ]
    yield ""
    if short:
        yield f"**Not finished**: seeds run so far, of those planned: {', '.join(short)}."
        yield "`eapo reproduce` goes on with these. A cell that has not run has no number below."
    else:
        yield "Every cell has all of its seeds."


def _headline(results: Results) -> Iterator[str]:
    found = _difference(EAPO, SELF_EXPLORATORY, results)
    if found is None:
        yield "Not run yet."
        return
    if min(len(results[cell.name]) for cell in (EAPO, SELF_EXPLORATORY)) < 2:
        yield "**Not decided: one seed.**"
    elif found.mean < 0.05:
        yield "**The aim is not reached.**"
    elif found.interval.low > 0:
        yield "**The aim is reached.**"
    else:
        yield "**Ahead by more than five points, but not beyond chance.**"
    yield from (
        "",
        "| seeds | EAPO - self-exploratory RL, points (interval) | p |",
        "|---|---|---|",
    )
    for label, seeds, level in (
        ("the first five, 95%", range(FIRST_SEEDS), 0.95),
        ("the later five alone, 95%", range(FIRST_SEEDS, EAPO.num_seeds), 0.95),
        ("all, 97.5%", range(EAPO.num_seeds), TWO_LOOKS),
    ):
        a, b = (_of(results.get(cell.name, ()), seeds) for cell in (EAPO, SELF_EXPLORATORY))
        part = seeds_difference(means(a), means(b), level=level) if a and b else None
        numbers = f"{_points(part)} | {part.p_value:.4f}" if part else "not run | "
        yield f"| {label}: {len(a)} and {len(b)} | {numbers} |"


def _of(runs: Sequence[Result], seeds: range) -> list[Result]:
    return [run for run in runs if run.seed in seeds]


def _claims(results: Results) -> Iterator[str]:
    yield "| claim | paper, points | here, points (95% interval) | seeds | verdict |"
    yield "|---|---|---|---|---|"
    for claim in (claim for table in TABLES for claim in table.claims):
        found = _difference(claim.better, claim.worse, results)
        seeds = _seeds(claim, results)
        here = _points(found) if found else "-"
        verdict = _verdict(found, claim, results)
        yield f"| {claim.text} | {claim.points:+.2f} | {here} | {seeds} | {verdict} |"


def _verdict(found: PairedDifference | None, claim: Claim, results: Results) -> str:
    if found is None:
        return "not run"
    if min(len(results[cell.name]) for cell in (claim.better, claim.worse)) < 2:
        return "not decided: one seed"
    if found.interval.low > 0:
        return "holds"
    return "does not hold" if found.interval.high < 0 else "not decided"


def _table(table: PaperTable, results: Results) -> Iterator[str]:
    yield "| | mean@k | 95% interval | each seed | half-time | Var | tokens | seeds | paper |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for line in table.lines:
        paper = "-" if line.paper is None else f"{line.paper:.2f}"
        yield f"| {line.label} | {_numbers(line, results)} | {paper} |"


def _numbers(line: Line, results: Results) -> str:
    runs = results.get(line.cell.name, ())
    if not runs:
        return f"not run | | | | | | 0 of {line.cell.num_seeds}"
    low, high = (100 * min(max(bound, 0.0), 1.0) for bound in seeds_interval(means(runs)))
    each = " ".join(f"{100 * run.means_P.mean():.1f}" for run in runs)
    return (
        f"{100 * means(runs).mean():.1f} | {low:.1f} to {high:.1f} | {each}"
        f" | {_at_half_time(runs)}"
        f" | {_mean([run.variance for run in runs]):.4f}"
        f" | {_mean([run.response_tokens for run in runs]):.0f}"
        f" | {len(runs)} of {line.cell.num_seeds}"
    )


def _at_half_time(runs: Sequence[Result]) -> str:
    """Return what each policy could do alone after half of its training; "-" without training."""
    found = [dict(run.curves.get("alone/mean_at_k", ())).get(STEPS // 2) for run in runs]
    return " ".join(f"{100 * mean:.1f}" for mean in found if mean is not None) or "-"


def _gains(results: Results) -> Iterator[str]:
    yield "| slip | base, mean@k | self-exploratory RL | EAPO | gain (95% interval) | seeds |"
    yield "|---|---|---|---|---|---|"
    for slip in SLIPS:
        cells = gain_cells(slip)
        numbers = [_percent(results.get(cell.name, ())) for cell in cells]
        found = _difference(cells[2], cells[1], results)
        gain = _points(found) if found else "-"
        seeds = "/".join(str(len(results.get(cell.name, ()))) for cell in cells)
        yield f"| {slip} | {' | '.join(numbers)} | {gain} | {seeds} |"


def _call_rates(results: Results) -> Iterator[str]:
    yield "EAPO, means over seeds and over each quarter of training:"
    yield ""
    yield "| | first | second | third | last |"
    yield "|---|---|---|---|---|"
    for curve, label in (
        ("call_rate", "call rate"),
        ("acceptance_rate", "acceptance rate"),
        ("accuracy", "accuracy in training"),
    ):
        runs = [[v for _, v in run.curves.get(curve, ())] for run in results.get(EAPO.name, ())]
        quarters = [_mean([v for run in runs for v in _quarter(run, q)]) for q in range(4)]
        yield f"| {label} | {' | '.join(f'{value:.2f}' for value in quarters)} |"


def _outcomes(results: Results) -> Iterator[str]:
    """Yield what the trainings of the aim looked like, each seed on its line, the best first."""
    yield "| | mean@k at the end | entropy, by quarters | groups all wrong | response tokens |"
    yield "|---|---|---|---|---|"
    for cell, name in ((EAPO, "EAPO"), (SELF_EXPLORATORY, "self-exploratory RL")):
        for run in sorted(results.get(cell.name, ()), key=lambda run: -run.means_P.mean()):
            columns = (
                _by_quarters(run, "entropy", 2),
                _by_quarters(run, "groups_all_wrong", 2),
                _by_quarters(run, "response_tokens", 0),
            )
            yield (
                f"| {name}, seed {run.seed} | {100 * run.means_P.mean():.1f}"
                f" | {' | '.join(columns)} |"
            )


def _by_quarters(run: Result, curve: str, digits: int) -> str:
    values = [value for _, value in run.curves.get(curve, ())]
    return " ".join(f"{_mean(_quarter(values, q)):.{digits}f}" for q in range(4)) if values else "-"


def _quarter(values: Sequence[float], quarter: int) -> Sequence[float]:
    return values[len(values) * quarter // 4 : len(values) * (quarter + 1) // 4]


def _difference(better: Cell, worse: Cell, results: Results) -> PairedDifference | None:
    """Return the difference of two cells in mean@k; None until both have run."""
    a, b = results.get(better.name, ()), results.get(worse.name, ())
    level = TWO_LOOKS if (better, worse) == (EAPO, SELF_EXPLORATORY) else 0.95
    return seeds_difference(means(a), means(b), level=level) if a and b else None


def _points(found: PairedDifference) -> str:
    low, high = found.interval
    return f"{100 * found.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def _percent(runs: Sequence[Result]) -> str:
    return f"{100 * means(runs).mean():.1f}" if runs else "-"


def _seeds(claim: Claim, results: Results) -> str:
    return "/".join(str(len(results.get(c.name, ()))) for c in (claim.better, claim.worse))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
