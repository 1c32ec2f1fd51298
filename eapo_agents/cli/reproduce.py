"""What a person sees of the miniature reproduction: a line a job, and where the report is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from eapo_agents.cli.train import CONSOLE
from eapo_agents.reproduction import (
    ENDED,
    Job,
    cells_of,
    check_at_once,
    make_bases,
    open_jobs,
    run_jobs,
    write_report,
)


def reproduce(
    *,
    key: str | None,
    num_seeds: int | None,
    folder: Path,
    docs: Path,
    at_once: int,
    settings: Sequence[str],
) -> bool:
    """Run what is missing of a table, or of all, and write the report; return whether it is all.

    Raises:
        ValueError: bad input, or runs that failed.
    """
    check_at_once(at_once)
    results = docs / "results"
    jobs = open_jobs(
        cells_of(key), num_seeds=num_seeds, folder=folder, results=results, settings=settings
    )
    CONSOLE.print(f"{len(jobs)} runs to go, {at_once} at once, in {folder}")
    with CONSOLE.status("base models") as status:
        make_bases(jobs, lambda base: status.update(f"base model {base.name}"))
    try:
        with _progress() as progress:
            on_step = partial(_show, progress, progress.add_task("all", total=len(jobs)), {})
            finished = run_jobs(jobs, at_once=at_once, on_step=on_step)
    finally:
        if any(results.glob("*/seed-*.json")):
            show_results(docs)
    if not finished:
        CONSOLE.print("interrupted; the same command goes on")
    return finished


def show_results(docs: Path) -> None:
    """Write the report from the results in a folder of documents."""
    CONSOLE.print(f"report: {write_report(docs)}")


def _show(progress: Progress, total: TaskID, lines: dict[str, TaskID], job: Job, step: int) -> None:
    """Show a job's step, on a line that is there while it runs."""
    if step == ENDED:
        if job.name in lines:
            progress.remove_task(lines.pop(job.name))
        progress.advance(total, int(job.is_done))
        return
    if job.name not in lines:
        lines[job.name] = progress.add_task(job.name, total=job.config.steps)
    progress.update(lines[job.name], completed=step)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=CONSOLE,
    )
