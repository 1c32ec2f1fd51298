"""`eapo benchmarks`: the paper's non-mathematical benchmarks, in a table like its Table 4."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from eapo_agents import evaluation, methods, policies, training
from eapo_agents.cli.console import new_console
from eapo_agents.cli.options import MODEL_HELP, add_experts, preset_config, with_pool

if TYPE_CHECKING:
    from eapo_agents.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the command."""
    benchmarks = commands.add_parser("benchmarks", help="the paper's non-mathematical benchmarks")
    benchmarks.add_argument("model", help=MODEL_HELP)
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
    settings, experts = _settings(options), _experts(options)
    config = training.model_config(options.model, training.presets.embedded())
    model = policies.model_folder(config.model.path)
    run = Path(options.model)
    place = run if training.Run.exists(run) else Path("runs")
    folder = options.out or place / "benchmarks"
    console = new_console()
    with console.status(f"{len(settings.tasks)} benchmarks, {model}"):
        results = methods.run_benchmarks(model, settings, folder, experts)
    rows = [
        [one.title, "-" if one.value is None else f"{100 * one.value:.2f}", str(one.samples)]
        for one in results
    ]
    table = evaluation.Table(
        title=_title(settings, experts), header=["benchmark", "%", "rows"], rows=rows
    )
    console.print(table.rich())
    failed = [result for result in results if result.failed]
    for result in failed:
        console.print(f"{result.title}: {result.error or result.status}", markup=False)
    graded = [one.title for one in results if one.name in ("hle", "simpleqa")]
    if settings.grader is None and graded:
        names = " and ".join(graded)
        console.print(f"{names}: graded by the policy itself; name another with --grader")
    console.print(f"results and logs: {folder}")
    return 1 if failed else 0


def _settings(options: argparse.Namespace) -> methods.BenchmarkSettings:
    own = ("tasks", "sample", "limit", "max_tokens", "temperature", "sandbox", "grader")
    given = {k: v for k in own if (v := getattr(options, k)) is not None}
    truncation = policies.Truncation(top_p=options.top_p, top_k=options.top_k, min_p=options.min_p)
    return methods.BenchmarkSettings(**given, truncation=truncation)


def _experts(options: argparse.Namespace) -> methods.BenchmarkExperts | None:
    if options.experts is None:
        if options.set or options.pool:
            from eapo_env.validation import UserError

            raise UserError("--set and --pool describe experts: name --experts too")
        return None
    config = with_pool(preset_config(options.preset or "embedded", options.set), options.pool)
    return methods.BenchmarkExperts(
        experts=config.experts if options.experts == "experts" else None,
        num_replies=options.replies,
        max_reply_tokens=config.rollout.limits.max_reply_tokens,
    )


def _title(settings: methods.BenchmarkSettings, experts: methods.BenchmarkExperts | None) -> str:
    whose = "" if experts is None else ", with experts" if experts.experts else ", with replicas"
    return f"Non-mathematical benchmarks{whose}{' (sample rows)' * settings.sample}"
