"""The commands of what is done without training: workflow, record-experts, leap."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli_options import PRESET_HELP, add_problems, add_settings, preset_config

if TYPE_CHECKING:
    from eapo_agents.cli_options import Commands
    from eapo_agents.config import TrainConfig

CONDITIONS = ("alone", "self", "experts", "recorded", "erroneous", "meaningless")


def add_workflows(commands: Commands) -> None:
    """Add the commands."""
    workflow = commands.add_parser("workflow", help="a model with experts, without training")
    workflow.add_argument("model", help="as of eapo evaluate")
    workflow.add_argument(
        "conditions",
        nargs="+",
        choices=CONDITIONS,
        metavar="CONDITION",
        help=f"one or several of {', '.join(CONDITIONS)}",
    )
    workflow.add_argument(
        "--replies",
        type=int,
        help="experts asked about the whole problem, in parallel; default: 3, or the 1 that"
        " the embedded model knows",
    )
    workflow.add_argument("--turns", type=int, help="let the model consult as it likes, so long")
    workflow.add_argument("--recording", type=Path, help="what eapo record-experts wrote")
    workflow.add_argument("--out", type=Path, metavar="FOLDER", help="an evaluation a condition")
    add_problems(workflow)
    add_experts(workflow)
    workflow.set_defaults(command=_workflow)

    record = commands.add_parser("record-experts", help="record experts' solutions, verified")
    record.add_argument(
        "file", type=Path, help="JSONL; answers that stand there are not asked again"
    )
    record.add_argument("--samples", type=int, default=32, help="solutions a problem")
    record.add_argument("--timeout", type=float, default=1800.0, help="seconds for one solution")
    add_problems(record)
    add_experts(record)
    record.set_defaults(command=_record)
    _add_leap(commands)


def _add_leap(commands: Commands) -> None:
    leap = commands.add_parser("leap", help="parallel paths that learn from each other")
    leap.add_argument("model", help="as of eapo evaluate")
    leap.add_argument("--preset", default="embedded", help=PRESET_HELP)
    leap.add_argument("--paths", type=int, default=16, help="side by side; default: 16")
    leap.add_argument(
        "--block", type=int, default=4096, help="tokens between exchanges; default: 4096"
    )
    leap.add_argument("--summary", type=int, default=256, help="the most tokens of a summary")
    leap.add_argument(
        "--peers", type=int, help="summaries that a path reads; default: 4, or all of fewer peers"
    )
    leap.add_argument("--router", choices=("dispersed", "clustered", "hybrid"), default="dispersed")
    leap.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
    add_problems(leap)
    add_settings(leap)
    leap.set_defaults(command=_leap)


def add_experts(parser: argparse.ArgumentParser) -> None:
    """Add what names experts: `--preset`, `--pool` and `--set`."""
    parser.add_argument("--preset", default="embedded", help=PRESET_HELP)
    parser.add_argument("--pool", help="which served experts: 7B+14B+32B, or 32B x3")
    add_settings(parser)


def _workflow(options: argparse.Namespace) -> int:
    from eapo_agents.config import with_settings
    from eapo_agents.console_workflows import show_workflow
    from eapo_agents.run import model_config
    from eapo_agents.solutions import read_solutions
    from eapo_agents.workflows import Workflow, usual_replies

    config = model_config(options.model, preset_config(options.preset, ()))
    config = pooled(with_settings(config, options.set), options.pool)
    usual = usual_replies(config, options.turns)
    workflow = Workflow(
        num_replies=usual if options.replies is None else options.replies,
        turn_budget=options.turns,
        solutions=read_solutions(_there(options.recording)) if options.recording else None,
    )
    conditions = list(dict.fromkeys(options.conditions))
    show_workflow(config, workflow, conditions, options.problems, options.out)
    return 0


def _there(recording: Path) -> Path:
    if not recording.is_file():
        raise ValueError(f"there is no recording {recording}: make it with eapo record-experts")
    return recording


def _record(options: argparse.Namespace) -> int:
    from eapo_agents.console_workflows import record_experts

    config = pooled(preset_config(options.preset, options.set), options.pool)
    record_experts(config, options.problems, options.file, options.samples, options.timeout)
    return 0


def _leap(options: argparse.Namespace) -> int:
    from eapo_agents.config import with_settings
    from eapo_agents.console_workflows import show_leap
    from eapo_agents.leap import LeapSettings
    from eapo_agents.run import model_config

    settings = LeapSettings(
        paths=options.paths,
        block_tokens=options.block,
        summary_tokens=options.summary,
        peers=max(1, min(4, options.paths - 1)) if options.peers is None else options.peers,
        router=options.router,
    )
    config = model_config(options.model, preset_config(options.preset, ()))
    show_leap(with_settings(config, options.set), settings, options.problems, options.json)
    return 0


def pooled(config: TrainConfig, pool: str | None) -> TrainConfig:
    """Return the config with the experts of `--pool`; unchanged without it."""
    from eapo_agents.workflows import with_pool

    return config if pool is None else with_pool(config, pool)
