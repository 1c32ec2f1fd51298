"""The report on one or several runs: tables, pictures and example transcripts, by method.

report.md             the page
accuracy.png          mean@k, alone, by method (the paper's Figure 3)
response-length.png   over training (Figure 4)
call-rate.png         and accuracy over training (Figure 5)
paradigms.png         shares of the three paradigms over training (section 2.3)
training.png          an overview, schedules included
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path

import numpy as np

from eapo_agents.evaluation import (
    Interval,
    Table,
    difference_cells,
    escaped,
    paired_difference,
    seeds_difference,
)
from eapo_agents.files import write_text
from eapo_agents.training.report.examples import examples
from eapo_agents.training.report.plots import (
    CALL_RATE_PANELS,
    OVERVIEW_PANELS,
    PARADIGM_PANELS,
    RESPONSE_LENGTH_PANELS,
    Bar,
    bars_figure,
    curves_figure,
    save_figure,
)
from eapo_agents.training.report.runs import LatestEvaluation, MethodRuns
from eapo_agents.training.run_folder import Run
from eapo_agents.training.settings import ProblemSettings

EVALUATION_METRICS = (
    ("alone/variance", "variance, alone"),
    ("alone/pass_at_k", "pass@k, alone"),
    ("alone/majority_at_k", "majority@k, alone"),
    ("alone/response_tokens", "response tokens, alone"),
    ("alone/truncation_rate", "truncation rate, alone"),
)
"""Metrics of the latest evaluation that the table shows beside mean@k, averaged over the runs."""

TRAINING_METRICS = (
    ("accuracy", "accuracy, last training step"),
    ("call_rate", "call rate, last training step"),
    ("response_tokens", "response tokens, last training step"),
)
"""Metrics of training that the table shows: the last recorded value, averaged over the runs."""

CURVE_PICTURES = (
    ("response-length.png", "Response length over training (Figure 4)", RESPONSE_LENGTH_PANELS),
    ("call-rate.png", "Call rate and accuracy over training (Figure 5)", CALL_RATE_PANELS),
    ("paradigms.png", "Shares of the paradigms over training (2.3)", PARADIGM_PANELS),
    ("training.png", "Overview", OVERVIEW_PANELS),
)


def write_report(
    methods: Sequence[MethodRuns],
    evaluations: Sequence[LatestEvaluation | None],
    folder: str | PathLike[str],
) -> Path:
    """Write the report on some methods, with its pictures, into a folder; return `report.md`.

    Args:
        methods: from `methods_of`.
        evaluations: the methods' `latest_evaluation()`.
        folder: made if it is missing.

    Raises:
        UserError: a file of the runs is invalid, or the report cannot be written.
    """
    folder = Path(folder)
    path = folder / "report.md"
    parts = [
        _introduction(methods),
        *(table.markdown() for table in report_tables(methods, evaluations)),
        *_accuracy(methods, evaluations, folder),
        *_curves(methods, folder),
        *_examples([one.run for method in methods for one in method.runs]),
    ]
    write_text(path, "\n".join(parts))
    return path


def report_tables(
    methods: Sequence[MethodRuns], evaluations: Sequence[LatestEvaluation | None]
) -> list[Table]:
    """Return the non-empty tables on some methods: metrics, each seed, differences."""
    found = [
        _metrics(methods, evaluations),
        _seeds(methods, evaluations),
        _differences(methods, evaluations),
    ]
    return [table for table in found if table.rows]


def _metrics(
    methods: Sequence[MethodRuns], evaluations: Sequence[LatestEvaluation | None]
) -> Table:
    rows = [
        ["training steps", *(_steps(method) for method in methods)],
        ["evaluated after step", *(str(one.step) if one else "-" for one in evaluations)],
        ["mean@k, alone", *(f"{one.mean:.3f}" if one else "-" for one in evaluations)],
        ["95% interval", *(_span(one.interval if one else None) for one in evaluations)],
        ["k, problems", *(_sizes(one) for one in evaluations)],
    ]
    for metric, title in EVALUATION_METRICS:
        rows.append([title, *(_number(one.metric(metric) if one else None) for one in evaluations)])
    for metric, title in TRAINING_METRICS:
        rows.append([title, *(_number(method.last(metric)) for method in methods)])
    title = "Trained policies, evaluated alone on held-out problems, and their training"
    return Table(title=title, header=["", *(method.label for method in methods)], rows=rows)


def _sizes(evaluation: LatestEvaluation | None) -> str:
    """Return the samples per problem and the number of problems of an evaluation."""
    if evaluation is None:
        return "-"
    sizes = {run.correct_PK(evaluation.step).shape[1] for run in evaluation.runs}
    return f"{' or '.join(map(str, sorted(sizes)))}, {evaluation.values_SP.shape[1]}"


def _seeds(methods: Sequence[MethodRuns], evaluations: Sequence[LatestEvaluation | None]) -> Table:
    """Return mean@k seed by seed, of the methods that have several seeds."""
    rows = []
    for method, one in zip(methods, evaluations, strict=True):
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
    return Table(title="Seed by seed", header=header, rows=rows)


def _differences(
    methods: Sequence[MethodRuns], evaluations: Sequence[LatestEvaluation | None]
) -> Table:
    """Return the differences between the first method and each other one, on the same problems.

    With one run each, the interval is over problems (`paired_difference`); with several each, over
    seeds and problems (`seeds_difference`). One run against several has no interval, because its
    variance over seeds is unknown. Methods evaluated on other problems have no row.
    """
    (label, first), *others = zip((one.label for one in methods), evaluations, strict=True)
    rows = []
    for name, other in others:
        if first is None or other is None or not _same_problems(first, other):
            continue
        rows.append([f"{label} - {name}", *_difference(first, other)])
    header = ["", "difference", "95% interval", "over", "p-value"]
    return Table(title="Differences, points of mean@k", header=header, rows=rows)


def _same_problems(a: LatestEvaluation, b: LatestEvaluation) -> bool:
    """Return whether two can be paired; a file of problems may have changed between them."""
    settings = {one.runs[0].config.evaluation.problems for one in (a, b)}
    return len(settings) == 1 and a.values_SP.shape[1] == b.values_SP.shape[1]


def _difference(a: LatestEvaluation, b: LatestEvaluation) -> list[str]:
    """Return the cells of a row: difference, interval, over what, p-value."""
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
        "\n\nRuns whose settings differ only in the seed are one method: its curves are means over"
        " the seeds, at the steps that all have reached, with 95% intervals (Student's t over the"
        " seeds) and a thin line per seed. mean@k is what the paper prints as Pass@k; its interval"
        " is over problems for one run, over seeds and problems for several.\n"
    )


def _accuracy(
    methods: Sequence[MethodRuns], evaluations: Sequence[LatestEvaluation | None], folder: Path
) -> Iterator[str]:
    yield "## mean@k, alone (Figure 3)\n"
    names = _set_names(methods)
    bars = {
        method.label: {names[method.problems]: Bar(value=one.mean, interval=one.interval)}
        for method, one in zip(methods, evaluations, strict=True)
        if one
    }
    if bars:
        save_figure(bars_figure(bars), folder / "accuracy.png")
        yield "![Bars of mean@k with 95% intervals](accuracy.png)\n"
        yield f"Problems: {', '.join(map(escaped, names.values()))}.\n"
    missing = [escaped(m.label) for m, one in zip(methods, evaluations, strict=True) if not one]
    if missing:
        yield f"Not evaluated yet: {', '.join(missing)}.\n"


def _set_names(methods: Sequence[MethodRuns]) -> dict[ProblemSettings, str]:
    """Return a name per set of problems; sets with the same label are numbered."""
    names: dict[ProblemSettings, str] = {}
    for problems in dict.fromkeys(method.problems for method in methods):
        before = sum(other.label == problems.label for other in names)
        names[problems] = problems.label + (f" ({before + 1})" if before else "")
    return names


def _curves(methods: Sequence[MethodRuns], folder: Path) -> Iterator[str]:
    for name, title, panels in CURVE_PICTURES:
        yield f"## {title}\n"
        if any(run.points(metric) for m in methods for run in m.runs for metric, _ in panels):
            save_figure(curves_figure(methods, panels), folder / name)
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
    counts = sorted({run.num_steps for run in method.runs})
    return f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"


def _span(interval: Interval | None) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}" if interval else "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
