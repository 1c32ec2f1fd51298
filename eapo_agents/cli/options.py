"""What the commands have in common: options, presets, the table of finished runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_env.validation import UserError

if TYPE_CHECKING:
    from eapo_agents.training import Run, TrainConfig

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PRESET_HELP = "whose settings to take for a model; a run has its own"


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting; may be repeated; eapo settings lists all",
    )


def add_problems(parser: argparse.ArgumentParser) -> None:
    """Add `--problems`."""
    parser.add_argument(
        "--problems",
        nargs="+",
        default=[],
        metavar="[NAME=]SOURCE",
        help="sets of problems: names, files, hub ids; default: those of the settings",
    )


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add `--runs`."""
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where run folders go")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add `--resume`."""
    parser.add_argument("--resume", type=Path, metavar="RUN", help="a run folder to go on with")


def resumed(options: argparse.Namespace) -> Run | None:
    """Return the run of `--resume`; None without it.

    Raises:
        UserError: `--set` beside it.
    """
    from eapo_agents.training import Run

    if not options.resume:
        return None
    if getattr(options, "preset", None):
        raise UserError(f"--resume takes the run's own settings; not {options.preset}")
    if options.set:
        raise UserError(f"--resume takes the run's own settings; not --set {options.set}")
    return Run.open(options.resume)


@contextmanager
def begun(options: argparse.Namespace, config: Callable[[], TrainConfig]) -> Iterator[Run]:
    """Yield the run of `--resume`, or a new one of a config.

    A new one that fails before anything was computed leaves no folder.
    """
    from eapo_agents.training import Run

    run = resumed(options)
    if run is not None:
        yield run
        return
    run = Run.create(config(), options.runs)
    with run.removed_if_unused():
        yield run


def ended(*, finished: bool) -> None:
    """Raise a `KeyboardInterrupt` for work that was interrupted and has saved where it is."""
    if not finished:
        raise KeyboardInterrupt


def preset_config(preset: str, settings: Sequence[str]) -> TrainConfig:
    """Return a preset with `--set` applied."""
    from eapo_agents.training import with_settings
    from eapo_agents.training.presets import preset_named

    return with_settings(preset_named(preset), settings)


def show(runs: Sequence[Run], folder: Path | None = None) -> int:
    """Print and draw runs, and write their report; return the exit status 0."""
    from eapo_agents.cli.train import show_report

    show_report(runs, folder)
    return 0
