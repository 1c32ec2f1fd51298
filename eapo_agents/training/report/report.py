"""The report on recorded runs, one or several methods side by side: tables, pictures, examples.

report.md             all of it, for a person
accuracy.png          mean@k alone by method (the paper's Figure 3)
response-length.png   over training (Figure 4)
call-rate.png         and accuracy over training (Figure 5)
paradigms.png         shares of the three paradigms over training (section 2.3)
training.png          an overview, schedules included
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from eapo_agents.evaluation import (
    Interval,
    Sheet,
    difference_cells,
    escaped,
    paired_difference,
    seeds_difference,
)
from eapo_agents.training.report.examples import examples
from eapo_agents.training.report.plots import (
    CALLS,
    LENGTH,
    OVERVIEW,
    PARADIGMS,
    Bar,
    bars_figure,
    curves_figure,
    save,
)
from eapo_agents.training.report.runs import MethodRuns, Outcome
from eapo_agents.training.run import Run
from eapo_agents.training.settings import ProblemSettings

ALONE = (
    ("alone/variance", "variance, alone"),
    ("alone/pass_at_k", "pass@k, alone"),
    ("alone/majority_at_k", "majority@k, alone"),
    ("alone/response_tokens", "response tokens, alone"),
    ("alone/truncation_rate", "truncation rate, alone"),
)
"""What is shown of the evaluation that mean@k is of: the mean over its runs."""

LAST = (
    ("accuracy", "accuracy, last training step"),
    ("call_rate", "call rate, last training step"),
    ("response_tokens", "response tokens, last training step"),
)
"""What is shown of each method: the mean over its runs of the last recorded value."""

CURVES = (
    ("response-length.png", "Response length over training (Figure 4)", LENGTH),
    ("call-rate.png", "Call rate and accuracy over training (Figure 5)", CALLS),
    ("paradigms.png", "Shares of the paradigms over training (2.3)", PARADIGMS),
    ("training.png", "Overview", OVERVIEW),
)


def write_report(
    methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None], folder: Path
) -> Path:
    """Write the report on methods and their outcomes, and its pictures; return the report's file.

    Raises:
        ValueError: one of the runs' files is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "report.md"
    parts = [
        _introduction(methods),
        *(sheet.markdown() for sheet in sheets(methods, outcomes)),
        *_accuracy(methods, outcomes, folder),
        *_curves(methods, folder),
        *_examples([one.run for method in methods for one in method.runs]),
    ]
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def sheets(methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None]) -> list[Sheet]:
    """Return the tables of some methods: metrics, each seed, differences; only those with rows."""
    found = [
        _metrics(methods, outcomes),
        _seeds(methods, outcomes),
        _differences(methods, outcomes),
    ]
    return [sheet for sheet in found if sheet.rows]


def _metrics(methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None]) -> Sheet:
    rows = [
        ["training steps", *(_steps(method) for method in methods)],
        ["mean@k, alone", *(f"{one.mean:.3f}" if one else "-" for one in outcomes)],
        ["95% interval", *(_span(one.interval if one else None) for one in outcomes)],
    ]
    for metric, title in ALONE:
        rows.append([title, *(_number(one.metric(metric) if one else None) for one in outcomes)])
    for metric, title in LAST:
        rows.append([title, *(_number(method.last(metric)) for method in methods)])
    title = "Trained policies, evaluated alone on held-out problems, and their training"
    return Sheet(title=title, header=["", *(method.label for method in methods)], rows=rows)


def _seeds(methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None]) -> Sheet:
    """Return mean@k seed by seed, for the methods that have several."""
    rows = []
    for method, one in zip(methods, outcomes, strict=True):
        if one and len(one.runs) > 1:
            each = zip(one.runs, one.values_SP.mean(axis=1).tolist(), strict=True)
            seeds = ", ".join(f"{run.config.seed}: {value:.3f}" for run, value in each)
            rows.append(
                [method.label, str(one.step), f"{one.mean:.3f}", _span(one.interval), seeds]
            )
    header = [
        "",
        "after step",
        "mean@k, alone",
        "95% interval over seeds and problems",
        "each seed",
    ]
    return Sheet(title="Seed by seed", header=header, rows=rows)


def _differences(methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None]) -> Sheet:
    """Return how the first method compares with each other one on the same problems.

    One run each: over problems, by `metrics.paired_difference`. Several each: over seeds and
    problems, by `comparison.seeds_difference`. One against several has no interval: nothing is
    known about other seeds of the one. Methods evaluated on other problems have no row.
    """
    (label, first), *others = zip((one.label for one in methods), outcomes, strict=True)
    rows = []
    for name, other in others:
        if first is None or other is None or not _same_problems(first, other):
            continue
        rows.append([f"{label} - {name}", *_difference(first, other)])
    header = ["", "difference", "95% interval", "over", "p-value"]
    return Sheet(title="Differences, points of mean@k", header=header, rows=rows)


def _same_problems(a: Outcome, b: Outcome) -> bool:
    """Tell whether two outcomes can be paired; a file of problems may have changed meanwhile."""
    settings = {one.runs[0].config.evaluation.problems for one in (a, b)}
    return len(settings) == 1 and a.values_SP.shape[1] == b.values_SP.shape[1]


def _difference(a: Outcome, b: Outcome) -> list[str]:
    """Return the cells of a difference: mean, interval, over what, p-value."""
    single = [len(one.runs) == 1 for one in (a, b)]
    if all(single):
        rng = np.random.default_rng(0)
        found, over = paired_difference(a.values_SP[0], b.values_SP[0], rng), "problems only"
    elif any(single):
        return [f"{100 * (a.mean - b.mean):+.1f}", "-", "-", "-"]
    else:
        found, over = seeds_difference(a.values_SP, b.values_SP), "seeds and problems"
    mean, interval, p_value = difference_cells(found)
    return [mean, interval, over, p_value]


def _introduction(methods: Sequence[MethodRuns]) -> str:
    lines = ["# Report\n"]
    for method in methods:
        folders = ", ".join(escaped(str(run.run.folder)) for run in method.runs)
        lines.append(f"- {escaped(method.label)}: {folders}")
    return "\n".join(lines) + (
        "\n\nRuns whose settings differ in the seed alone are one method: its curves are means over"
        " the seeds, at the steps that all have reached, with 95% intervals (Student's t over the"
        " seeds) and a thin line a seed. mean@k is what the paper prints as Pass@k; its interval is"
        " over problems for one run, over seeds and problems for several.\n"
    )


def _accuracy(
    methods: Sequence[MethodRuns], outcomes: Sequence[Outcome | None], folder: Path
) -> Iterator[str]:
    yield "## mean@k, alone (Figure 3)\n"
    names = _set_names(methods)
    bars = {
        method.label: {names[method.problems]: Bar(value=one.mean, interval=one.interval)}
        for method, one in zip(methods, outcomes, strict=True)
        if one
    }
    if bars:
        save(bars_figure(bars), folder / "accuracy.png")
        yield "![Bars of mean@k with 95% intervals](accuracy.png)\n"
        yield f"Problems: {', '.join(map(escaped, names.values()))}.\n"
    missing = [escaped(m.label) for m, one in zip(methods, outcomes, strict=True) if not one]
    if missing:
        yield f"Not evaluated yet: {', '.join(missing)}.\n"


def _set_names(methods: Sequence[MethodRuns]) -> dict[ProblemSettings, str]:
    """Return a name for each set of problems; sets that share a label are numbered."""
    names: dict[ProblemSettings, str] = {}
    for problems in dict.fromkeys(method.problems for method in methods):
        before = sum(other.label == problems.label for other in names)
        names[problems] = problems.label + (f" ({before + 1})" if before else "")
    return names


def _curves(methods: Sequence[MethodRuns], folder: Path) -> Iterator[str]:
    for name, title, panels in CURVES:
        yield f"## {title}\n"
        if any(run.points(metric) for m in methods for run in m.runs for metric, _ in panels):
            save(curves_figure(methods, panels), folder / name)
            yield f"![{title}]({name})\n"
        else:
            yield "Not recorded by these runs.\n"


def _examples(runs: Sequence[Run]) -> Iterator[str]:
    yield "## An example of each paradigm (Appendix L)\n"
    yield (
        "The newest recorded right answer of each paradigm; where none was right, the newest wrong"
        " one. An episode alone resolves by itself whatever it would rather do.\n"
    )
    found = examples(runs)
    for paradigm, example in found.items():
        yield f"### {paradigm.replace('_', ' ').capitalize()}\n"
        yield example.markdown()
    if not found:
        yield "No transcripts with paradigms are recorded.\n"


def _steps(method: MethodRuns) -> str:
    counts = sorted({len(run.metrics) for run in method.runs})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _span(interval: Interval | None) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
