"""`eapo export-verl`: the problems of a preset as verl's data files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import adapters, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import add_settings, preset_config

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    export = commands.add_parser("export-verl", help="write problems as data files for verl")
    export.add_argument("preset", help="whose problems, those of its evaluations included")
    export.add_argument("folder", type=Path, help="for train.parquet and val.parquet")
    add_settings(export)
    export.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from datasets import Dataset, disable_progress_bars

    from eapo_agents.files import writing
    from eapo_env.types import Rules

    config = preset_config(options.preset, options.set)
    held_out = config.evaluation.problems.load()
    problems = training.without(held_out, config.problems.load())
    console = new_console()
    disable_progress_bars()  # they take a moment here
    with writing(options.folder):
        options.folder.mkdir(parents=True, exist_ok=True)
    for name, chosen, rules in (
        ("train.parquet", problems, Rules()),
        ("val.parquet", held_out, Rules.alone()),
    ):
        path = options.folder / name
        Dataset.from_list(adapters.verl_rows(chosen, config, rules=rules)).to_parquet(path)
        console.print(f"{path}: {len(chosen)} problems", markup=False)
    return 0
