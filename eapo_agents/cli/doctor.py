"""`eapo doctor`: one page on whether a model can be a policy here."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from eapo_agents import evaluation, methods, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import MODEL_HELP, add_preset, add_settings, model_config
from eapo_agents.cli.transcripts import show_episode

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands

_MARKS = {"good": "[green]good[/green]", "look": "[yellow]LOOK[/yellow]", "bad": "[red]BAD[/red] "}


def add(commands: Commands) -> None:
    """Add the command."""
    doctor = commands.add_parser("doctor", help="whether a model can be a policy here, on one page")
    doctor.add_argument("model", help=MODEL_HELP)
    doctor.add_argument(
        "--experts",
        nargs="+",
        default=[],
        metavar="URL",
        help="servers of experts without a key: all models that they list",
    )
    add_preset(doctor)
    add_settings(doctor)
    doctor.set_defaults(command=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from rich.markup import escape

    console, episodes, worst = new_console(), [], "good"
    for finding in _findings(model_config(options), options.experts):
        part, text = escape(finding.part), escape(evaluation.visible(finding.text))
        console.print(f"{_MARKS[finding.verdict]} [bold]{part}[/bold]: {text}", highlight=False)
        episodes += [finding.episode] if finding.episode else []
        worst = max(worst, finding.verdict, key=list(_MARKS).index)
    for episode in episodes:
        show_episode(console, episode)
    console.print(_SUMMARY[worst], markup=False)
    return 1 if worst == "bad" else 0


_SUMMARY = {
    "good": "This model can be a policy here.",
    "look": "This model can be a policy here; see the lines marked LOOK first.",
    "bad": "This model cannot be a policy with these settings; see the lines marked BAD.",
}


def _findings(config: training.TrainConfig, urls: list[str]) -> Iterator[methods.Finding]:
    """Yield what is found with the experts at some addresses; with the config's without any."""
    if urls:
        endpoints = yield from methods.experts_at(urls)
        silent = training.ExpertSettings(kind="silent")
        served = training.ExpertSettings(kind="openai", endpoints=endpoints)
        config = replace(config, experts=served if endpoints else silent)
    yield from methods.examine(config)
