"""`eapo cold-start`: teach a model to consult, to use replies, to do without, and to answer."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import learning, methods, training
from eapo_agents.cli.console import loss_of, new_console, progress_bars, step_display
from eapo_agents.cli.options import (
    INTERRUPTED,
    MODEL_HELP,
    add_preset,
    add_resume,
    add_runs,
    add_settings,
    new_or_resumed_run,
    preset_of,
)

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    start = commands.add_parser("cold-start", help="teach a model the format of consulting")
    start.add_argument("model", nargs="?", help=MODEL_HELP)
    start.add_argument(
        "--lora", type=int, metavar="RANK", help="train adapters of this rank instead"
    )
    start.add_argument(
        "--recording",
        type=Path,
        metavar="FILE",
        help="solutions of eapo record-experts, for problems that are not procedural",
    )
    add_preset(start)
    add_resume(start)
    add_settings(start)
    add_runs(start)
    start.set_defaults(command=_cold_start)


def _cold_start(options: argparse.Namespace) -> int:
    def config() -> training.TrainConfig:
        chosen = training.presets.cold_started(preset_of(options), lora_rank=options.lora)
        config = training.fitted_to_model(training.with_settings(chosen, options.set))
        training.check_model(config)  # before a run folder holds the recording
        return config

    def main(processes: learning.Processes) -> tuple[training.Run, bool]:
        with new_or_resumed_run(options, config) as (run, chosen):
            if options.recording:
                methods.add_solutions(options.recording, run)
            return run, _started(run, chosen, processes)

    outcome = training.lead_or_follow(main)
    if outcome is None:
        return 0
    run, finished = outcome
    return _show(run) if finished else INTERRUPTED


def _started(
    run: training.Run, config: training.TrainConfig, processes: learning.Processes
) -> bool:
    console = new_console()
    console.print(f"[bold]{run.name}[/bold]: {config.steps} updates, run folder {run.folder}")
    with progress_bars(console, "{task.fields[metrics]}") as progress:
        show = step_display(progress, "updates", config.steps, loss_of, loss_of)
        finished = methods.cold_start(run, config, on_step=show, processes=processes)
    if not finished:
        console.print(f"interrupted; resume with: eapo cold-start --resume {run.folder}")
    return finished


def _show(run: training.Run) -> int:
    """Print what was learned, and how to go on."""
    console, losses = new_console(), [row["loss"] for row in run.metrics if "loss" in row]
    alone = run.metrics[-1]["alone/mean_at_k"]
    model = run.checkpoints[-1]
    console.print(
        f"loss {losses[0]:.3f} at first, {losses[-1]:.3f} at last; alone {alone:.3f} right on the"
        f" held-out problems\nmodel: {model}\nlook at it: eapo doctor {model}\ntrain it: eapo"
        f" train local --set model.path={model}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 0
