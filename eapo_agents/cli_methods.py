"""The commands of the paper's methods and comparisons, beside those of `cli.py`.

Each command has a function that adds its options and one that runs it.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents.cli_options import (
    add_resume,
    add_runs,
    add_settings,
    begun,
    ended,
    preset_config,
    show,
)
from eapo_agents.cli_workflows import add_experts, add_workflows, pooled

if TYPE_CHECKING:
    from eapo_agents.benchmarks import BenchmarkExperts
    from eapo_agents.cli_options import Commands
    from eapo_agents.config import TrainConfig


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

    from eapo_agents.console_comparison import show_comparison
    from eapo_agents.evaluations import read_evaluation
    from eapo_agents.sheets import first_distinct

    paths: list[Path] = options.evaluations
    found = [read_evaluation(path) for path in paths]
    if len(found) < 2:
        raise ValueError(f"eapo compare takes two evaluations or more, not {paths[0]} alone")
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
    from eapo_agents.console_reproduce import reproduce, show_results

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
    from eapo_agents.config import with_settings
    from eapo_agents.console import distill_run
    from eapo_agents.presets import distilled, preset_named

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
    from eapo_agents.benchmarks import BenchmarkSettings
    from eapo_agents.console_benchmarks import show_benchmarks
    from eapo_agents.models import model_folder
    from eapo_agents.presets import embedded
    from eapo_agents.run import model_config
    from eapo_agents.truncation import Truncation

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
    from eapo_agents.benchmarks import BenchmarkExperts

    if options.experts is None:
        return None
    config = pooled(preset_config(options.preset, options.set), options.pool)
    return BenchmarkExperts(
        experts=config.experts if options.experts == "experts" else None,
        num_replies=options.replies,
        max_reply_tokens=config.rollout.limits.max_reply_tokens,
    )
