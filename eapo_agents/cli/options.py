"""What several commands share: options, presets, the run that a command trains."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import methods, training

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

INTERRUPTED = 130
"""The exit status of a command that was interrupted and has saved its work: 128 + SIGINT."""

_OF_A_NEW_RUN = {
    "model": "",
    "preset": "",
    "lora": "--lora ",
    "recording": "--recording ",
    "runs": "--runs ",
}
"""What only a new run can take, and how a message names it."""

MODEL_HELP = 'a run folder, a model folder or hub id, or "embedded"'


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add `--set`."""
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a setting; may be repeated; eapo settings lists all",
    )


def add_preset(parser: argparse.ArgumentParser) -> None:
    """Add `--preset`."""
    parser.add_argument(
        "--preset",
        help="whose settings to take for a model; a run has its own; default: embedded for the"
        " embedded model and those trained from it, else local",
    )


def add_problems(parser: argparse.ArgumentParser) -> None:
    """Add `--problems`."""
    parser.add_argument(
        "--problems",
        nargs="+",
        default=[],
        metavar="[NAME=]SOURCE",
        help="sets of problems: names, files, hub ids; default: those of the settings,"
        " whose evaluation.problems.columns, split, subset and limit hold for these, too",
    )


def add_report_file(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")


def add_experts(parser: argparse.ArgumentParser) -> None:
    """Add what names experts: `--preset`, `--pool` and `--set`."""
    add_preset(parser)
    parser.add_argument("--pool", help="which served experts: 7B+14B+32B, or 32B x3")
    add_settings(parser)


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add `--runs`."""
    parser.add_argument("--runs", type=Path, help="where run folders go; default: runs")


def runs_folder(options: argparse.Namespace) -> Path:
    """Return the folder of `--runs`."""
    return options.runs or Path("runs")


def add_resume(parser: argparse.ArgumentParser) -> None:
    """Add `--resume`."""
    parser.add_argument("--resume", type=Path, metavar="RUN", help="a run folder to resume")


def distinct_runs(folders: Sequence[Path]) -> list[training.Run]:
    """Return the runs in some folders.

    Raises:
        UserError: a folder holds no run, or is named twice.
    """
    from eapo_env.validation import UserError

    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise UserError(f"the run {folder} is named twice")
    return [training.Run.open(folder) for folder in folders]


def preset_config(preset: str, settings: Sequence[str]) -> training.TrainConfig:
    """Return a preset with `--set` applied, and then what follows the model decided."""
    config = training.with_settings(training.presets.preset_named(preset), settings)
    return training.fitted_to_model(config)


def preset_of(options: argparse.Namespace) -> training.TrainConfig:
    """Return the settings of MODEL without those of `--set`: a run's own, or those of a preset.

    Raises:
        UserError: no model is named, or there is no such preset or run.
    """
    from eapo_env.validation import UserError

    if not options.model:
        raise UserError("name a model: a run folder, a model folder or a hub id")
    named = training.presets.preset_named if options.preset else training.presets.for_model
    return training.model_config(options.model, named(options.preset or options.model))


def model_config(options: argparse.Namespace) -> training.TrainConfig:
    """Return the settings of MODEL: a run's own, or those of a preset, with `--set` applied.

    Raises:
        UserError: there is no such run, and no such model where its path tells that.
    """
    config = training.fitted_to_model(training.with_settings(preset_of(options), options.set))
    training.check_model(config)
    return config


def with_pool(config: training.TrainConfig, pool: str | None) -> training.TrainConfig:
    """Return the config with the experts of `--pool`; unchanged without it."""
    return config if pool is None else methods.with_pool(config, pool)


@contextmanager
def new_or_resumed_run(
    options: argparse.Namespace, config: Callable[[], training.TrainConfig]
) -> Iterator[tuple[training.Run, training.TrainConfig]]:
    """Yield the run of `--resume`, or a new one of a config, and the config to train it with.

    A new one that fails before anything was computed leaves no folder.
    """
    if options.resume:
        yield _resumed(options)
        return
    run = training.Run.create(config(), runs_folder(options))
    with run.removed_if_unused():
        yield run, run.config


def _resumed(options: argparse.Namespace) -> tuple[training.Run, training.TrainConfig]:
    """Return the run and its settings with `--set` applied, which the training records."""
    from eapo_env.validation import UserError

    for name, option in _OF_A_NEW_RUN.items():
        if (value := getattr(options, name, None)) is not None:
            raise UserError(f"--resume takes the run's own settings; not {option}{value}")
    run = training.Run.open(options.resume)
    old = run.config
    if not options.set:
        return run, old
    new = training.lengthened(old, training.with_settings(old, options.set))
    run.changes_by(new)  # refused before a model is loaded
    return run, new
