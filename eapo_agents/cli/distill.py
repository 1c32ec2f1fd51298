"""`eapo distill`: imitate the experts' correct solutions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import learning, methods, training
from eapo_agents.cli.console import loss_of, new_console, progress_bars, step_display
from eapo_agents.cli.options import (
    INTERRUPTED,
    add_resume,
    add_runs,
    add_settings,
    new_or_resumed_run,
)
from eapo_agents.cli.report import show_report

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    distill = commands.add_parser("distill", help="imitate the experts' right solutions")
    distill.add_argument("preset", nargs="?", help="embedded (the default), ...")
    distill.add_argument(
        "--lora", type=int, metavar="RANK", help="train adapters of this rank instead"
    )
    distill.add_argument(
        "--recording",
        type=Path,
        metavar="FILE",
        help="solutions of eapo record-experts; what they lack is asked for",
    )
    add_resume(distill)
    add_settings(distill)
    add_runs(distill)
    distill.set_defaults(command=_distill)


def _distill(options: argparse.Namespace) -> int:
    def config() -> training.TrainConfig:
        preset = training.presets.preset_named(options.preset or "embedded")
        chosen = training.presets.distilled(preset, lora_rank=options.lora)
        config = training.fitted_to_model(training.with_settings(chosen, options.set))
        training.check_model(config)  # before a run folder holds the recording
        return config

    def main(processes: learning.Processes) -> tuple[training.Run, bool]:
        with new_or_resumed_run(options, config) as (run, chosen):
            if options.recording:
                methods.add_solutions(options.recording, run)
            return run, _distilled(run, chosen, processes)

    outcome = training.lead_or_follow(main)
    if outcome is None:
        return 0
    run, finished = outcome
    return show_report([run]) if finished else INTERRUPTED


def _distilled(
    run: training.Run, config: training.TrainConfig, processes: learning.Processes
) -> bool:
    """Distil a run to its end, with a bar each for solutions and updates; return whether it did."""
    console = new_console()
    console.print(f"[bold]{run.name}[/bold]: {config.steps} updates, run folder {run.folder}")
    with progress_bars(console, "{task.fields[metrics]}") as progress:
        asked = progress.add_task("problems solved by experts", total=None, metrics="")
        show = step_display(progress, "updates", config.steps, loss_of, loss_of)

        def on_problem(done: int, total: int) -> None:
            progress.update(asked, completed=done, total=total)

        try:
            finished = methods.distill(
                run, config, on_problem=on_problem, on_step=show, processes=processes
            )
        except KeyboardInterrupt:  # while the experts were asked
            finished = False
    if not finished:
        console.print(f"interrupted; resume with: eapo distill --resume {run.folder}")
    return finished
