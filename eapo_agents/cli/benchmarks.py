"""What a person sees of the benchmarks: a table like the paper's Table 4."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from eapo_agents.methods.benchmarks.run import BenchmarkExperts, BenchmarkSettings, run_benchmarks

CONSOLE = Console()


def show_benchmarks(
    model: str, settings: BenchmarkSettings, folder: Path, experts: BenchmarkExperts | None
) -> int:
    """Run the benchmarks, print their table; return 1 if anything failed, else 0."""
    with CONSOLE.status(f"{len(settings.tasks)} benchmarks, {model}"):
        results = run_benchmarks(model, settings, folder, experts)
    drawn = Table(title=_title(settings, experts))
    for column in ("benchmark", "%", "rows"):
        drawn.add_column(column, justify="left" if column == "benchmark" else "right")
    for result in results:
        shown = "-" if result.value is None else f"{100 * result.value:.2f}"
        drawn.add_row(result.title, shown, str(result.samples))
    CONSOLE.print(drawn)
    failed = [result for result in results if result.error or result.status != "success"]
    for result in failed:
        CONSOLE.print(f"{result.title}: {result.error}", markup=False)
    if settings.grader is None:
        CONSOLE.print("HLE and SimpleQA were graded by the policy itself: name a --grader")
    CONSOLE.print(f"results and logs: {folder}")
    return 1 if failed else 0


def _title(settings: BenchmarkSettings, experts: BenchmarkExperts | None) -> str:
    whose = "" if experts is None else ", with experts" if experts.experts else ", with replicas"
    return f"Non-mathematical benchmarks{whose}{' (sample rows)' * settings.sample}"
