"""`eapo reproduce`: the paper's comparisons in miniature, and their report."""

from __future__ import annotations

import argparse
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import reproduction
from eapo_agents.cli.console import new_console, progress_bars
from eapo_agents.cli.options import INTERRUPTED, add_settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    reproduce = commands.add_parser("reproduce", help="the paper's comparisons in miniature")
    reproduce.add_argument(
        "--study", choices=["belief", "noise"], default="belief", help="default: belief"
    )
    reproduce.add_argument(
        "--table", choices=["1", "2", "3", "9", "E", "beyond"], help="default: all"
    )
    reproduce.add_argument(
        "--seeds", type=int, metavar="N", help="instead of each experiment's own number"
    )
    reproduce.add_argument(
        "--folder",
        type=Path,
        help="of everything that is written: runs, results, report; default:"
        " runs/reproduction-STUDY",
    )
    reproduce.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="how many runs in parallel"
    )
    reproduce.add_argument(
        "--report", action="store_true", help="run nothing, write the report on FOLDER/results"
    )
    reproduce.add_argument(
        "--template", type=Path, metavar="FILE", help="a custom Markdown template of the report"
    )
    add_settings(reproduce)
    reproduce.set_defaults(command=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    console = new_console()
    study = reproduction.STUDIES[options.study]
    template = reproduction.read_template(options.template)
    folder = options.folder or Path("runs", f"reproduction-{study.name}")
    if options.report:
        _show_report(console, folder, template, study)
        return 0
    reproduction.check_at_once(options.jobs)
    reproduction.check_study(study, reproduction.read_results(folder / "results"))
    jobs = reproduction.open_jobs(
        study.experiments_of(options.table),
        num_seeds=options.seeds,
        folder=folder,
        settings=options.set,
    )
    console.print(f"{len(jobs)} runs to go, {options.jobs} in parallel, in {folder}")
    with console.status("base models") as status:
        reproduction.make_base_models(
            jobs, lambda base_model: status.update(f"base model {base_model.name}")
        )
    try:
        with progress_bars(console) as progress:
            on_step = partial(_show_step, progress, progress.add_task("all", total=len(jobs)), {})
            finished = reproduction.run_jobs(jobs, at_once=options.jobs, on_step=on_step)
    finally:
        if any((folder / "results").glob("*/seed-*.json")):
            _show_report(console, folder, template, study)
    if not finished:
        console.print("interrupted; the same command resumes")
    return 0 if finished else INTERRUPTED


def _show_report(console: Console, folder: Path, template: str, study: reproduction.Study) -> None:
    """Write the report on the results in a folder, and print its path."""
    console.print(f"report: {reproduction.write_report(folder, template, study)}")


def _show_step(
    progress: Progress, total: TaskID, lines: dict[str, TaskID], job: reproduction.Job, step: int
) -> None:
    """Show a job's step, on a bar that is there while the job runs."""
    if step == reproduction.ENDED:
        if job.name in lines:
            progress.remove_task(lines.pop(job.name))
        progress.advance(total, int(job.is_done))
        return
    if job.name not in lines:
        lines[job.name] = progress.add_task(job.name, total=job.config.steps)
    progress.update(lines[job.name], completed=step)
