"""What a person sees while the commands work: progress bars, tables, where the files are.

Whatever needs transformers, whose import takes seconds, is imported on use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from eapo_agents.learning import SINGLE_PROCESS, Processes
from eapo_agents.training import Run, TrainConfig, methods_of, sheets, write_report

if TYPE_CHECKING:
    from eapo_agents.reproduction import Pretraining

CONSOLE = Console()


def train_run(run: Run, processes: Processes = SINGLE_PROCESS) -> bool:
    """Train a run to its end, with a progress bar; return whether it got there."""
    from eapo_agents.training import Trainer

    config = run.config
    CONSOLE.print(f"[bold]{run.name}[/bold]: {config.steps} steps, run folder {run.folder}")
    with (
        closing(Trainer.from_config(config, processes)) as trainer,
        _progress("{task.fields[metrics]}") as progress,
    ):
        bar = progress.add_task(run.name, total=config.steps, metrics="")

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            progress.update(bar, completed=step, metrics=_in_brief(metrics))

        finished = trainer.train(run, on_step)
    if not finished:
        CONSOLE.print(f"interrupted; go on with: eapo train --resume {run.folder}")
    return finished


def distill_run(run: Run) -> bool:
    """Distil a run to its end, with a progress bar each for solutions and updates."""
    from eapo_agents.methods import distill

    CONSOLE.print(f"[bold]{run.name}[/bold]: {run.config.steps} updates, run folder {run.folder}")
    with _progress("{task.fields[metrics]}") as progress:
        asked = progress.add_task("problems solved by experts", total=None, metrics="")
        bar = progress.add_task("updates", total=run.config.steps, metrics="")

        def on_problem(done: int, total: int) -> None:
            progress.update(asked, completed=done, total=total)

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            progress.update(bar, completed=step, metrics=f"loss {metrics['loss']:.3f}")

        try:
            finished = distill(run, on_problem=on_problem, on_step=on_step)
        except KeyboardInterrupt:  # while the experts were asked
            finished = False
    if not finished:
        CONSOLE.print(f"interrupted; go on with: eapo distill --resume {run.folder}")
    return finished


def evaluate_model(
    config: TrainConfig, json_file: Path | None = None, sources: Sequence[str] = ()
) -> None:
    """Evaluate the config's model alone; print the report, and write all of it to a file.

    On the config's held-out problems, or on the sets that the sources name.
    """
    from eapo_agents.cli.evaluate import EvaluationMethod, problem_sets, show_evaluation
    from eapo_agents.methods import player_of
    from eapo_agents.training import evaluate_alone

    sets = problem_sets(config, sources)
    with player_of(config) as player:
        alone = EvaluationMethod(name="alone", evaluator=partial(evaluate_alone, config, player))
        show_evaluation(CONSOLE, config, alone, sets, json_file)


def show_report(runs: Sequence[Run], folder: Path | None) -> None:
    """Print the tables of some runs; write their report, beside the first run by default.

    Raises:
        ValueError: none of the runs has metrics, or one of their files is damaged.
    """
    methods = methods_of(runs)
    outcomes = [method.outcome() for method in methods]
    for sheet in sheets(methods, outcomes):
        CONSOLE.print(sheet.rich())
    name = "report" if len(runs) == 1 else "comparison"
    path = write_report(methods, outcomes, folder or runs[0].folder / name)
    CONSOLE.print(f"report: {path}")
    for run in runs:
        CONSOLE.print(f"run folder: {run.folder}")


def show_pretraining(pretraining: Pretraining, folder: Path) -> None:
    """Make the embedded model in a folder, with a progress bar."""
    with _progress("loss {task.fields[loss]:.3f}") as progress:
        bar = progress.add_task("pretraining", total=pretraining.steps, loss=float("nan"))
        pretraining.run(folder, lambda loss: progress.update(bar, advance=1, loss=loss))
    CONSOLE.print(f"model: {folder}")


def _progress(last_column: str) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn(last_column),
        console=CONSOLE,
    )


def _in_brief(metrics: Mapping[str, float]) -> str:
    return (
        f"accuracy {metrics['accuracy']:.2f}  calls {metrics['call_rate']:.2f}"
        f"  accepted {metrics['acceptance_rate']:.2f}  turns {metrics['turn_budget']:.1f}"
    )
