"""`eapo leap`: a model whose parallel paths learn from each other (LeaP)."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from eapo_agents import methods
from eapo_agents.cli.console import new_console
from eapo_agents.cli.evaluate import (
    EvaluationFiles,
    EvaluationMethod,
    problem_sets,
    show_evaluation,
)
from eapo_agents.cli.options import (
    add_preset,
    add_problems,
    add_report_file,
    add_settings,
    model_config,
)
from eapo_agents.cli.transcripts import add_transcripts

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    leap = commands.add_parser("leap", help="parallel paths that learn from each other")
    leap.add_argument("model", help="as of eapo evaluate")
    add_preset(leap)
    leap.add_argument("--paths", type=int, default=16, help="side by side; default: 16")
    leap.add_argument(
        "--block", type=int, default=4096, help="tokens between exchanges; default: 4096"
    )
    leap.add_argument("--summary", type=int, default=256, help="the most tokens of a summary")
    leap.add_argument(
        "--peers", type=int, help="summaries that a path reads; default: 4, or all of fewer peers"
    )
    leap.add_argument("--router", choices=("dispersed", "clustered", "hybrid"), default="dispersed")
    add_report_file(leap)
    add_transcripts(leap)
    add_problems(leap)
    add_settings(leap)
    leap.set_defaults(command=_leap)


def _leap(options: argparse.Namespace) -> int:
    settings = methods.LeapSettings(
        paths=options.paths,
        block_tokens=options.block,
        summary_tokens=options.summary,
        peers=max(1, min(4, options.paths - 1)) if options.peers is None else options.peers,
        router=options.router,
    )
    config = model_config(options)
    sets = problem_sets(config, options.problems)
    with methods.leap_of(config, settings) as leap:
        evaluator = partial(
            leap.evaluate,
            samples_per_problem=config.evaluation.samples_per_problem,
            seed=config.evaluation_seed,
        )
        method = EvaluationMethod(name="LeaP", evaluator=evaluator, subject=asdict(settings))
        files = EvaluationFiles(report=options.json, transcripts=options.transcripts)
        show_evaluation(new_console(), config, method, sets, files)
    return 0
