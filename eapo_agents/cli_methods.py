"""The commands of the paper's methods and comparisons, beside those of `cli.py`.

Each command has a function that adds its options and one that runs it.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from eapo_agents.cli_options import add_resume, add_runs, add_settings, resumed, show

if TYPE_CHECKING:
    from eapo_agents.cli_options import Commands


def add_methods(commands: Commands) -> None:
    """Add the commands of the methods to those of `eapo`."""
    _add_distill(commands)


def _add_distill(commands: Commands) -> None:
    distill = commands.add_parser("distill", help="imitate the experts' right solutions")
    distill.add_argument("preset", nargs="?", default="embedded", help="embedded, ...")
    distill.add_argument(
        "--lora", type=int, default=0, metavar="RANK", help="train adapters of this rank instead"
    )
    add_resume(distill)
    add_settings(distill)
    add_runs(distill)
    distill.set_defaults(command=_distill)


def _distill(options: argparse.Namespace) -> int:
    from eapo_agents.config import with_settings
    from eapo_agents.console import distill_run
    from eapo_agents.presets import distilled, preset_named
    from eapo_agents.run import Run

    run = resumed(options)
    if run is None:
        config = distilled(preset_named(options.preset), lora_rank=options.lora)
        run = Run.create(with_settings(config, options.set), options.runs)
    return show([run]) if distill_run(run) else 1
