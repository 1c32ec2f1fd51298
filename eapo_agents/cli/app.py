"""The command line: train, evaluate, play, report, demo, pretrain; see also `cli_methods.py`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli.options import (
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
from eapo_agents.cli.workflows import add_experts, add_workflows, pooled
from eapo_agents.training import termination
from eapo_env.validation import UserError

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands
    from eapo_agents.learning import Processes
    from eapo_agents.methods.benchmarks.run import BenchmarkExperts
    from eapo_agents.training import Run, TrainConfig

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
    from eapo_agents.learning import leaving

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
    from eapo_agents.policies import PolicyError

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
    from eapo_agents.learning import SeveralProcesses, joined

    with joined() as processes:
        if isinstance(processes, SeveralProcesses) and not processes.is_first:
            from eapo_agents.training import follow

            follow(processes)
            return 0
        run, finished = _lead(options, processes)
    ended(finished=finished)
    return show([run])


def _lead(options: argparse.Namespace, processes: Processes) -> tuple[Run, bool]:
    from eapo_agents.cli.train import train_run

    with begun(options, lambda: preset_config(options.preset or "embedded", options.set)) as run:
        return run, train_run(run, processes)


def _evaluate(options: argparse.Namespace) -> int:
    from eapo_agents.cli.train import evaluate_model
    from eapo_agents.training import model_config, with_settings

    config = model_config(options.model, preset_config(options.preset, ()))
    evaluate_model(with_settings(config, options.set), options.json, options.problems)
    return 0


def _play(options: argparse.Namespace) -> int:
    from eapo_agents.cli.play import play
    from eapo_agents.training import model_config
    from eapo_env.types import Rules

    rules = Rules(turn_budget=options.turns, acceptance_rate=options.acceptance_rate)
    preset = preset_config(options.preset, ())
    config = model_config(options.model, preset) if options.model else None
    play(options.problems, rules, config, options.episodes, options.seed)
    return 0


def _report(options: argparse.Namespace) -> int:
    from eapo_agents.training import Run

    folders: list[Path] = options.runs
    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise UserError(f"the run {folder} is named twice")
    return show([Run.open(folder) for folder in folders], options.out)


def _demo(options: argparse.Namespace) -> int:
    from eapo_agents.cli.train import train_run
    from eapo_agents.training import Run
    from eapo_agents.training.presets import self_exploratory

    eapo = preset_config("embedded", ["name=eapo", *options.set])
    with ExitStack() as stack:
        runs = [Run.create(c, options.runs) for c in (eapo, self_exploratory(eapo))]
        for run in runs:
            stack.enter_context(run.removed_if_unused())
        ended(finished=all(train_run(run) for run in runs))
    return show(runs)


def _pretrain(options: argparse.Namespace) -> int:
    from eapo_agents.cli.train import show_pretraining
    from eapo_agents.reproduction import Pretraining
    from eapo_agents.training import with_settings

    show_pretraining(with_settings(Pretraining(), options.set), options.folder)
    return 0


def _settings(options: argparse.Namespace) -> int:
    from eapo_agents.cli.settings_page import settings_page

    print(settings_page(), end="")
    return 0


def _serve_expert(options: argparse.Namespace) -> int:
    from eapo_agents.serving import ExpertServers, serve_expert

    given = {name: value for name, value in vars(options).items() if name != "command"}
    return serve_expert(ExpertServers(**given))


def _serve_policy(options: argparse.Namespace) -> int:
    from eapo_agents.policies import model_folder
    from eapo_agents.serving import PolicyServerProcess, serve_policy

    given = {name: value for name, value in vars(options).items() if name != "command"}
    return serve_policy(PolicyServerProcess(**given | {"model": model_folder(options.model)}))


if __name__ == "__main__":
    sys.exit(main())


def add_methods(commands: Commands) -> None:
    """Add the commands of the methods to those of `eapo`."""
    add_workflows(commands)
    _add_distill(commands)
    _add_reproduce(commands)
    _add_benchmarks(commands)
    _add_compare(commands)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="two or more evaluations on the same problems")
    compare.add_argument(
        "evaluations",
        nargs="+",
        type=Path,
        metavar="EVALUATION",
        help="files of eapo evaluate, or run folders; the first is what others are compared with",
    )
    compare.add_argument("--plot", type=Path, metavar="PNG", help="draw mean@k with intervals here")
    compare.set_defaults(command=_compare)


def _compare(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from eapo_agents.cli.evaluate import show_comparison
    from eapo_agents.evaluation import first_distinct
    from eapo_agents.training import read_evaluation

    paths: list[Path] = options.evaluations
    found = [read_evaluation(path) for path in paths]
    if len(found) < 2:
        raise UserError(f"eapo compare takes two evaluations or more, not {paths[0]} alone")
    stems, whole = [path.stem for path in paths], [str(path) for path in paths]
    names = first_distinct([one.name for one in found], stems, whole)
    named = [replace(one, name=name) for one, name in zip(found, names, strict=True)]
    show_comparison(named, options.plot)
    return 0


def _add_distill(commands: Commands) -> None:
    distill = commands.add_parser("distill", help="imitate the experts' right solutions")
    distill.add_argument("preset", nargs="?", help="embedded (the default), ...")
    distill.add_argument(
        "--lora", type=int, default=0, metavar="RANK", help="train adapters of this rank instead"
    )
    add_resume(distill)
    add_settings(distill)
    add_runs(distill)
    distill.set_defaults(command=_distill)


def _add_reproduce(commands: Commands) -> None:
    reproduce = commands.add_parser("reproduce", help="the paper's comparisons in miniature")
    reproduce.add_argument(
        "--table", choices=["1", "2", "3", "9", "E", "beyond"], help="default: all"
    )
    reproduce.add_argument(
        "--seeds", type=int, metavar="N", help="instead of each cell's own number"
    )
    reproduce.add_argument(
        "--folder", type=Path, default=Path("runs/reproduction"), help="of the runs"
    )
    reproduce.add_argument("--docs", type=Path, default=Path("docs"), help="where results.md goes")
    reproduce.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="runs side by side"
    )
    reproduce.add_argument("--report", action="store_true", help="run nothing, write the report")
    add_settings(reproduce)
    reproduce.set_defaults(command=_reproduce)


def _reproduce(options: argparse.Namespace) -> int:
    from eapo_agents.cli.reproduce import reproduce, show_results

    if options.report:
        show_results(options.docs)
        return 0
    finished = reproduce(
        key=options.table,
        num_seeds=options.seeds,
        folder=options.folder,
        docs=options.docs,
        at_once=options.jobs,
        settings=options.set,
    )
    ended(finished=finished)
    return 0


def _distill(options: argparse.Namespace) -> int:
    from eapo_agents.cli.train import distill_run
    from eapo_agents.training import with_settings
    from eapo_agents.training.presets import distilled, preset_named

    def config() -> TrainConfig:
        chosen = distilled(preset_named(options.preset or "embedded"), lora_rank=options.lora)
        return with_settings(chosen, options.set)

    with begun(options, config) as run:
        finished = distill_run(run)
    ended(finished=finished)
    return show([run])


def _add_benchmarks(commands: Commands) -> None:
    benchmarks = commands.add_parser("benchmarks", help="the paper's non-mathematical benchmarks")
    benchmarks.add_argument("model", help='a run folder, a model folder or hub id, or "embedded"')
    benchmarks.add_argument("--tasks", nargs="+", metavar="TASK", help="default: all seven")
    benchmarks.add_argument("--out", type=Path, help="results and logs; default: RUN/benchmarks")
    benchmarks.add_argument("--sample", action="store_true", help="the few rows in this package")
    benchmarks.add_argument("--limit", type=int, help="the most rows of each")
    benchmarks.add_argument("--max-tokens", type=int, help="of a response; default: 20480")
    benchmarks.add_argument("--temperature", type=float, help="default: 1")
    benchmarks.add_argument("--top-p", type=float, default=1.0, help="default: 1, all tokens")
    benchmarks.add_argument("--top-k", type=int, default=-1, help="default: -1, all tokens")
    benchmarks.add_argument("--min-p", type=float, default=0.0, help="default: 0, all tokens")
    benchmarks.add_argument(
        "--sandbox", choices=("docker", "local"), help="where generated code runs; default: docker"
    )
    benchmarks.add_argument("--grader", help="who grades HLE and SimpleQA; default: the policy")
    benchmarks.add_argument(
        "--experts", choices=("self", "experts"), help="whose replies it reads first; default: none"
    )
    benchmarks.add_argument("--replies", type=int, default=3, help="experts asked in parallel")
    add_experts(benchmarks)
    benchmarks.set_defaults(command=_benchmarks)


def _benchmarks(options: argparse.Namespace) -> int:
    from eapo_agents.cli.benchmarks import show_benchmarks
    from eapo_agents.methods.benchmarks.run import BenchmarkSettings
    from eapo_agents.policies import Truncation, model_folder
    from eapo_agents.training import model_config
    from eapo_agents.training.presets import embedded

    own = ("tasks", "sample", "limit", "max_tokens", "temperature", "sandbox", "grader")
    given = {k: v for k in own if (v := getattr(options, k)) is not None}
    truncation = Truncation(top_p=options.top_p, top_k=options.top_k, min_p=options.min_p)
    settings = BenchmarkSettings(**given, truncation=truncation)
    model = model_folder(model_config(options.model, embedded()).model.path)
    run = Path(options.model)
    folder = run if (run / "metrics.jsonl").is_file() else Path("runs")
    return show_benchmarks(
        model, settings, options.out or folder / "benchmarks", _benchmark_experts(options)
    )


def _benchmark_experts(options: argparse.Namespace) -> BenchmarkExperts | None:
    from eapo_agents.methods.benchmarks.run import BenchmarkExperts

    if options.experts is None:
        return None
    config = pooled(preset_config(options.preset, options.set), options.pool)
    return BenchmarkExperts(
        experts=config.experts if options.experts == "experts" else None,
        num_replies=options.replies,
        max_reply_tokens=config.rollout.limits.max_reply_tokens,
    )
