"""`eapo report`: tables, plots and examples of one or several runs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import distinct_runs

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    report = commands.add_parser("report", help="tables, plots, examples of one or several runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    report.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: RUN/report; of several, RUN/comparison"
    )
    report.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    return show_report(distinct_runs(options.runs), options.out)


def show_report(runs: Sequence[training.Run], folder: Path | None = None) -> int:
    """Print the tables of some runs, write their report, beside the first run by default; return 0.

    Raises:
        UserError: none of the runs has metrics, or one of their files is damaged.
    """
    console = new_console()
    methods = training.methods_of(runs)
    evaluations = [method.latest_evaluation() for method in methods]
    for table in training.report_tables(methods, evaluations):
        console.print(table.rich())
    name = "report" if len(runs) == 1 else "comparison"
    path = training.write_report(methods, evaluations, folder or runs[0].folder / name)
    console.print(f"report: {path}")
    console.print(f"page: {training.write_page(runs, path.with_suffix('.html'))}")
    for run in runs:
        console.print(f"run folder: {run.folder}")
    return 0
