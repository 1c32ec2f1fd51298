"""`eapo train`, `eapo demo` and `eapo pretrain`: trainings, each with a progress bar."""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from eapo_agents import evaluation, learning, methods, reproduction, serving, training
from eapo_agents.cli.console import duration, new_console, progress_bars, step_display
from eapo_agents.cli.options import (
    INTERRUPTED,
    add_resume,
    add_runs,
    add_settings,
    new_or_resumed_run,
    preset_config,
    runs_folder,
)
from eapo_agents.cli.report import show_report
from eapo_agents.cli.transcripts import show_episode

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel

    from eapo_agents.cli.options import Commands


_FEW_ANSWERED = 0.5
_SHOWN_FROM = 0.005  # what rounds to 0.01
_SMALL = 8_000_000  # weights
_LAST_CHARS = 2000

_WHERE_IT_PAYS = (
    "Help pays where right answers are too rare to be found reliably. From a base taught with"
    " errors in 80% of the steps, as here, self-exploratory RL succeeds on four of ten seeds, EAPO"
    " on all; at 65% both succeed on all, and no difference was found; at 90% EAPO succeeds on"
    " one of five (docs/results.md)."
)


def add(commands: Commands) -> None:
    """Add the commands."""
    train = commands.add_parser(
        "train",
        help="train a policy, or resume a run",
        epilog="docs/metrics.md says what is measured",
    )
    train.add_argument("preset", nargs="?", help="embedded (the default), r1_distill_qwen_7b, ...")
    add_resume(train)
    add_settings(train)
    add_runs(train)
    train.set_defaults(command=_train)

    demo = commands.add_parser("demo", help="train with and without experts; compare")
    add_settings(demo)
    add_runs(demo)
    demo.set_defaults(command=_demo)

    pretrain = commands.add_parser("pretrain", help="make the embedded model from scratch")
    pretrain.add_argument("folder", type=Path)
    add_settings(pretrain)
    pretrain.set_defaults(command=_pretrain)


def _train(options: argparse.Namespace) -> int:
    def main(processes: learning.Processes) -> tuple[training.Run, bool]:
        with new_or_resumed_run(
            options, lambda: preset_config(options.preset or "embedded", options.set)
        ) as (run, config):
            return run, _trained(run, config, processes)

    outcome = training.lead_or_follow(main)
    if outcome is None:
        return 0
    run, finished = outcome
    return show_report([run]) if finished else INTERRUPTED


def _demo(options: argparse.Namespace) -> int:
    eapo = preset_config("demo", options.set)
    runs = [
        training.Run.create(config, runs_folder(options))
        for config in (eapo, training.presets.self_exploratory(eapo))
    ]
    with runs[0].removed_if_unused(), runs[1].removed_if_unused():
        if not _trained_side_by_side(*runs):
            return INTERRUPTED
    status, console = show_report(runs), new_console()
    _show_before_and_after(console, eapo, runs[0])
    console.print(_WHERE_IT_PAYS)
    return status


def _trained_side_by_side(run: training.Run, beside: training.Run) -> bool:
    """Train two runs at once, the second in a process of its own; return whether both have ended.

    Raises:
        UserError: the second failed, with the end of what it printed.
    """
    from eapo_env.validation import UserError

    console = new_console()
    console.print(f"[bold]{beside.name}[/bold]: in another process, run folder {beside.folder}")
    with _resumed_in_a_process(beside) as (process, output):
        if not _trained(run, run.config, learning.SINGLE_PROCESS):
            console.print(f"and with: eapo train --resume {beside.folder}")
            return False
        if process.poll() is None:
            console.print(f"{beside.name} has not ended yet: step {len(beside.metrics)}")
        if process.wait():
            output.seek(0)
            told = output.read().decode(errors="replace")[-_LAST_CHARS:]
            raise UserError(f"{beside.name} stopped (status {process.returncode}):\n{told}")
    return True


@contextmanager
def _resumed_in_a_process(
    run: training.Run,
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
    """Yield the process of `eapo train --resume`, and its output.

    It saves a checkpoint and ends with the context or this process: Ctrl-C does not reach it.
    """
    command = [sys.executable, "-m", "eapo_agents.cli", "train", "--resume", str(run.folder)]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            serving.ending_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield process, output
        finally:
            process.terminate()
            process.wait()


def _show_before_and_after(
    console: Console, config: training.TrainConfig, run: training.Run
) -> None:
    """Print a problem that the model gets wrong before the training and right after it, if any."""
    from eapo_env.json_lines import JsonLines

    rows = JsonLines(list(run.evaluated.values())[-1]).read()
    right = {row["problem_id"]: row for row in rows if row["status"] == "correct"}
    problems = [one for one in config.evaluation.problems.load() if one.id in right]
    if not problems:
        return
    once = replace(config, evaluation=replace(config.evaluation, samples_per_problem=1))
    attempts: list[evaluation.Graded] = []
    with methods.player_of(once) as player:
        asyncio.run(
            training.evaluate_alone(
                once, player, problems, on_attempts=lambda one: attempts.append(one[0])
            )
        )
    before = (evaluation.episode_row(one) for one in attempts)
    if wrong := next((row for row in before if row["status"] != "correct"), None):
        console.print("[bold]the same problem, alone, before and after the training[/bold]")
        show_episode(console, wrong)
        show_episode(console, right[wrong["problem_id"]])


def _trained(
    run: training.Run, config: training.TrainConfig, processes: learning.Processes
) -> bool:
    """Train a run to its end; return whether it got there."""
    console = new_console()
    console.print(f"[bold]{run.name}[/bold]: {config.steps} steps")
    console.print(_help_offered(config))
    with (
        closing(training.Trainer.from_config(config, processes=processes)) as trainer,
        progress_bars(console, "{task.fields[metrics]}") as progress,
    ):
        console.print(f"run folder {run.folder}")
        _fit_threads(config, trainer.step.learner.model)
        show = step_display(progress, run.name, config.steps, _in_brief, _in_full)

        def on_step(step: int, metrics: Mapping[str, float]) -> None:
            show(step, metrics)
            if step == 1:
                _show_first_episodes(console, run)

        finished = trainer.train(run, on_step)
    if not finished:
        console.print(f"interrupted; resume with: eapo train --resume {run.folder}")
    return finished


def _fit_threads(config: training.TrainConfig, model: PreTrainedModel) -> None:
    """Have a small model computed by one thread, unless the variable of OpenMP says how many.

    Its operations are too small to be divided: with two threads on two idle cores a step of the
    embedded model takes 1.24 times as long (benchmarks/README.md).
    """
    import torch

    number = sum(weight.numel() for weight in model.parameters())
    is_small = number < _SMALL and config.learner.torch_device.type == "cpu"
    if is_small and "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def _help_offered(config: training.TrainConfig) -> str:
    """Return what experts are for in this training, in the first and in the last step."""
    annealing = config.schedule
    first, last = (annealing.rules_at(step) for step in (1, config.steps))
    if first.is_alone:
        return "alone, without experts"
    rate = f"{first.acceptance_rate:.2g} to {last.acceptance_rate:.2g}"
    turns = f"{first.turn_budget} to {last.turn_budget}"
    draws = {"group": "the same draws for a group", "member": "draws by member"}
    return (
        f"acceptance rate {rate} ({annealing.schedule}, {draws[config.rollout.gate_draws]}),"
        f" turns {turns}"
    )


def _show_first_episodes(console: Console, run: training.Run) -> None:
    """Print two episodes of the first step: what the policy reads and writes."""
    from eapo_env.json_lines import JsonLines

    for row in evaluation.two_examples(JsonLines(run.transcripts[1]).read()):
        show_episode(console, row)


def _in_brief(metrics: Mapping[str, float]) -> str:
    answered = 1 - metrics["failed_reply_rate"]
    shown = f"answered {answered:.2f}"
    return (
        f"accuracy {metrics['accuracy']:.2f}  calls {metrics['call_rate']:.2f}"
        f"  accepted {metrics['acceptance_rate_realised']:.2f}"
        f"  {f'[red]{shown}[/red]' if answered < _FEW_ANSWERED else shown}"
        f"  turns {metrics['turn_budget']:.1f}"
        f"{''.join(f'  {trouble}' for trouble in _troubles(metrics))}"
    )


def _in_full(metrics: Mapping[str, float]) -> str:
    kinds = {"alone": "accuracy/alone", "with help": "accuracy/helped"}
    accuracy = [f"{metrics[key]:.2f} {kind}" for kind, key in kinds.items() if key in metrics]
    parts = [
        f"accuracy {', '.join(accuracy)}",
        f"reward {metrics['reward']:.2f}",
        f"groups with signal {metrics['groups_kept']:.0f} of {metrics['problems_used']:.0f}",
    ]
    if "seconds/evaluation" in metrics:
        spent = duration(metrics["seconds/evaluation"])
        parts.append(f"alone {metrics['alone/mean_at_k']:.2f} (evaluation {spent})")
    failed = metrics["failed_reply_rate"]
    parts += [f"unanswered {failed:.2f}"] if failed >= _SHOWN_FROM else []
    return "; ".join([*parts, *_troubles(metrics)])


def _troubles(metrics: Mapping[str, float]) -> list[str]:
    """Return the shares of episodes and turns that came to nothing, as far as there are any."""
    rates = {
        "no final answer": metrics["no_answer_rate"],
        "malformed": metrics["malformed_rate"],
        "cut": metrics["truncation_rate"],
    }
    return [f"{name} {rate:.2f}" for name, rate in rates.items() if rate >= _SHOWN_FROM]


def _pretrain(options: argparse.Namespace) -> int:
    pretraining = training.with_settings(reproduction.Pretraining(), options.set)
    console = new_console()
    with progress_bars(console, "loss {task.fields[loss]:.3f}") as progress:
        bar = progress.add_task("pretraining", total=pretraining.steps, loss=float("nan"))
        pretraining.run(options.folder, lambda loss: progress.update(bar, advance=1, loss=loss))
    console.print(f"model: {options.folder}")
    return 0
