"""The command line: train, evaluate, play, report, demo, pretrain; see also `cli_methods.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli_methods import add_methods
from eapo_agents.cli_options import (
    PRESET_HELP,
    add_problems,
    add_resume,
    add_runs,
    add_settings,
    begun,
    ended,
    preset_config,
    show,
)
from eapo_agents.interruption import termination

if TYPE_CHECKING:
    from eapo_agents.cli_options import Commands
    from eapo_agents.processes import Processes
    from eapo_agents.run import Run

_ENVIRONMENT = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait are slow on busy cores
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers' own, in the middle of ours
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What torch and transformers read when they are imported, unless the user has set it."""

_PLACE = {"RANK": "0", "WORLD_SIZE": "1"}
"""What launchers (accelerate, torchrun) set, and what it is without one."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit status.

    0; 1 where a part of it failed; 2 for bad input; 130 and 143 when Ctrl-C and SIGTERM ended it.
    """
    options = _parser().parse_args(arguments)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    rank, world = (int(os.environ.get(name, default)) for name, default in _PLACE.items())
    if world == 1:
        return _status(options, "eapo")
    from eapo_agents.processes import leaving

    return leaving(lambda: _status(options, f"eapo, process {rank} of {world}"))


def _status(options: argparse.Namespace, speaker: str) -> int:
    """Run the command; turn its errors into sentences."""
    with termination() as interrupted_status:
        try:
            return _told(options, speaker)
        except KeyboardInterrupt:
            return interrupted_status()


def _told(options: argparse.Namespace, speaker: str) -> int:
    try:
        status: int = options.command(options)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0].startswith("eapo"):
            raise
        print(f"{speaker}: {error}; install it with: pip install 'eapo[train]'", file=sys.stderr)
        return 2
    except (ValueError, OSError, FloatingPointError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_policys(error):
            raise
        told = ". ".join([str(error).rstrip("."), *getattr(error, "__notes__", ())])
        print(f"{speaker}: {told}", file=sys.stderr)
        return 2
    return status


def _is_policys(error: RuntimeError) -> bool:
    """Return whether it is the policy that failed; the import would slow down `eapo --help`."""
    from eapo_agents.policy import PolicyError

    return isinstance(error, PolicyError)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="eapo", description="Expert-assisted policy optimisation (arXiv 2509.23730)."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a policy, or go on with a run")
    train.add_argument("preset", nargs="?", help="embedded (the default), r1_distill_qwen_7b, ...")
    add_resume(train)
    add_settings(train)
    add_runs(train)
    train.set_defaults(command=_train)

    evaluate = commands.add_parser("evaluate", help="evaluate a model alone on held-out problems")
    evaluate.add_argument("model", help='a run folder, a model folder or hub id, or "embedded"')
    evaluate.add_argument("--preset", default="embedded", help=PRESET_HELP)
    evaluate.add_argument("--json", type=Path, metavar="FILE", help="write the whole report here")
    add_problems(evaluate)
    add_settings(evaluate)
    evaluate.set_defaults(command=_evaluate)

    play = commands.add_parser("play", help="be the policy yourself, or watch a model play")
    play.add_argument("--model", help="watch this model or run; without it, you play")
    play.add_argument("--preset", default="embedded", help=PRESET_HELP)
    play.add_argument("--problems", default="synthetic", help="a source of problems")
    play.add_argument("--turns", type=int, default=4, help="the turn budget")
    play.add_argument("--acceptance-rate", type=float, default=1.0, help="default: 1")
    play.add_argument("--episodes", type=int, default=1, help="default: 1")
    play.add_argument("--seed", type=int, help="of the problems; default: drawn")
    play.set_defaults(command=_play)

    report = commands.add_parser("report", help="tables, plots, examples of one or several runs")
    report.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    report.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: RUN/report; of several, RUN/comparison"
    )
    report.set_defaults(command=_report)

    demo = commands.add_parser("demo", help="train with and without experts; compare")
    add_settings(demo)
    add_runs(demo)
    demo.set_defaults(command=_demo)

    pretrain = commands.add_parser("pretrain", help="make the embedded model anew")
    pretrain.add_argument("folder", type=Path)
    add_settings(pretrain)
    pretrain.set_defaults(command=_pretrain)
    settings = commands.add_parser("settings", help="all settings: type, default, meaning")
    settings.set_defaults(command=_settings)
    _add_serve_expert(commands)
    _add_serve_policy(commands)
    add_methods(commands)
    return parser


def _add_serve_expert(commands: Commands) -> None:
    serve = commands.add_parser("serve-expert", help="serve an expert model with vLLM")
    serve.add_argument("model", help="a model folder or hub id, with a chat template")
    serve.add_argument("--name", help="under which it is served; default: MODEL")
    serve.add_argument("--replicas", type=int, default=1)
    serve.add_argument("--port", type=int, default=8000, help="of the first replica")
    serve.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs a replica")
    serve.add_argument("--max-model-len", type=int, default=None)
    serve.add_argument("--max-num-seqs", type=int, default=64)
    serve.add_argument("options", nargs="*", help="after --: options of vLLM's own server")
    serve.set_defaults(command=_serve_expert)


def _add_serve_policy(commands: Commands) -> None:
    serve = commands.add_parser("serve-policy", help="serve the policy with vLLM, for training")
    serve.add_argument("model", help="the model that training starts from")
    serve.add_argument("--port", type=int, default=8100)
    serve.add_argument("--transfer", choices=("file", "nccl"), default="file", help="of weights")
    serve.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="bfloat16")
    serve.add_argument("--tensor-parallel-size", type=int, default=1, help="GPUs")
    serve.add_argument("--max-model-len", type=int, default=None)
    serve.add_argument("--max-num-seqs", type=int, default=256)
    serve.add_argument("options", nargs="*", help="after --: options of vLLM's own server")
    serve.set_defaults(command=_serve_policy)


def _train(options: argparse.Namespace) -> int:
    from eapo_agents.processes import SeveralProcesses, joined

    with joined() as processes:
        if isinstance(processes, SeveralProcesses) and not processes.is_first:
            from eapo_agents.follower import follow

            follow(processes)
            return 0
        run, finished = _lead(options, processes)
    ended(finished=finished)
    return show([run])


def _lead(options: argparse.Namespace, processes: Processes) -> tuple[Run, bool]:
    from eapo_agents.console import train_run

    with begun(options, lambda: preset_config(options.preset or "embedded", options.set)) as run:
        return run, train_run(run, processes)


def _evaluate(options: argparse.Namespace) -> int:
    from eapo_agents.config import with_settings
    from eapo_agents.console import evaluate_model
    from eapo_agents.run import model_config

    config = model_config(options.model, preset_config(options.preset, ()))
    evaluate_model(with_settings(config, options.set), options.json, options.problems)
    return 0


def _play(options: argparse.Namespace) -> int:
    from eapo_agents.play import play
    from eapo_agents.run import model_config
    from eapo_env.types import Rules

    rules = Rules(turn_budget=options.turns, acceptance_rate=options.acceptance_rate)
    preset = preset_config(options.preset, ())
    config = model_config(options.model, preset) if options.model else None
    play(options.problems, rules, config, options.episodes, options.seed)
    return 0


def _report(options: argparse.Namespace) -> int:
    from eapo_agents.run import Run

    folders: list[Path] = options.runs
    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise ValueError(f"the run {folder} is named twice")
    return show([Run.open(folder) for folder in folders], options.out)


def _demo(options: argparse.Namespace) -> int:
    from eapo_agents.console import train_run
    from eapo_agents.presets import self_exploratory
    from eapo_agents.run import Run

    eapo = preset_config("embedded", ["name=eapo", *options.set])
    with ExitStack() as stack:
        runs = [Run.create(c, options.runs) for c in (eapo, self_exploratory(eapo))]
        for run in runs:
            stack.enter_context(run.or_nothing())
        ended(finished=all(train_run(run) for run in runs))
    return show(runs)


def _pretrain(options: argparse.Namespace) -> int:
    from eapo_agents.config import with_settings
    from eapo_agents.console import show_pretraining
    from eapo_agents.pretrain import Pretraining

    show_pretraining(with_settings(Pretraining(), options.set), options.folder)
    return 0


def _settings(options: argparse.Namespace) -> int:
    from eapo_agents.settings_page import settings_page

    print(settings_page(), end="")
    return 0


def _serve_expert(options: argparse.Namespace) -> int:
    from eapo_agents.serve_expert import ExpertServers, serve_expert

    given = {name: value for name, value in vars(options).items() if name != "command"}
    return serve_expert(ExpertServers(**given))


def _serve_policy(options: argparse.Namespace) -> int:
    from eapo_agents.models import model_folder
    from eapo_agents.serve_policy import ServedPolicy, serve_policy

    given = {name: value for name, value in vars(options).items() if name != "command"}
    return serve_policy(ServedPolicy(**given | {"model": model_folder(options.model)}))


if __name__ == "__main__":
    sys.exit(main())
