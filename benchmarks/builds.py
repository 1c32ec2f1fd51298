"""A training step of the preset `embedded`, beside that of an earlier build of this project.

    git worktree add --detach ../earlier 92b7088
    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python benchmarks/builds.py ../earlier

Each build trains in a process of its own, from the same weights with the same seed. Steps
alternate, so that other load on the machine affects all alike. Evaluations, records and the start
are left out. Both builds run with both kinds of linear layers (`policies/linear.py`), whichever
they choose for this processor. Prints medians over the steps, and medians of the ratios of single
steps to the first build's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parents[1]
LINEARS = ("onednn", "torch")
PHASES = ("rollout", "update", "step", "CPU")


class Build:
    """A build that trains in another process, one step whenever it is asked."""

    def __init__(self, folder: Path, linears: str, steps: int) -> None:
        command = [
            sys.executable,
            __file__,
            str(folder),
            "--linears",
            linears,
            "--steps",
            str(steps),
        ]
        self._process = subprocess.Popen(
            [*command, "--train"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.steps: list[Mapping[str, float]] = []

    def step(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        print(file=self._process.stdin, flush=True)
        self.steps.append(json.loads(self._process.stdout.readline()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()


def train(folder: Path, linears: str, steps: int) -> None:
    """Train the build in the folder; print each step's seconds once a line on stdin asks for it."""
    sys.path.insert(0, str(folder))
    import torch

    from eapo_agents import presets

    assert Path(presets.__file__).is_relative_to(folder), presets.__file__
    config: Any = presets.embedded()
    config = replace(
        config,
        checkpoint_every=steps + 1,
        transcripts_every=steps + 1,
        evaluation=replace(config.evaluation, every=0),
    )
    trainer = imported("Trainer", "eapo_agents", "eapo_agents.trainer").from_config(config)
    create_run = imported("Run", "eapo_agents", "eapo_agents.run").create
    set_linears(trainer.learner.model, linears)
    asked = [0.0, 0.0]

    def wait() -> None:
        sys.stdin.readline()
        asked[:] = time.perf_counter(), time.process_time()

    def on_step(_step: int, metrics: Mapping[str, float]) -> None:
        step = {"step": time.perf_counter() - asked[0], "CPU": time.process_time() - asked[1]}
        step |= {name: metrics[f"seconds/{name}"] for name in ("rollout", "update")}
        print(json.dumps(step | {"tokens": metrics["response_tokens"]}), flush=True)
        wait()

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    with tempfile.TemporaryDirectory() as runs:
        wait()
        trainer.train(create_run(config, Path(runs)), on_step)


def set_linears(model: Any, linears: str) -> None:
    """Make the linear layers oneDNN's or torch's."""
    from torch import nn

    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = nn.Linear
    if linears == "onednn":
        imported("with_fast_linears", "eapo_agents.policies", "eapo_agents.linear")(model)


def imported(name: str, *modules: str) -> Any:
    """Return what the first module that has it calls so: at 92b7088, names had other modules."""
    for module in modules:
        with suppress(ImportError, AttributeError):
            return getattr(import_module(module), name)
    raise SystemExit(f"no {name} in {modules}")


def table(builds: Mapping[str, Build], warm: int) -> list[str]:
    """Return a row for each build, compared with the first one."""
    lines = ["| build | " + " | ".join(f"{phase} s | ratio" for phase in PHASES) + " |"]
    lines.append("|---|" + "---|" * 2 * len(PHASES))
    first = next(iter(builds.values())).steps[warm:]
    for name, build in builds.items():
        cells = []
        for phase in PHASES:
            ratios = [a[phase] / b[phase] for a, b in zip(build.steps[warm:], first, strict=True)]
            seconds = statistics.median(step[phase] for step in build.steps[warm:])
            cells.append(f"{seconds:.2f} | {statistics.median(ratios):.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def compare(folder: Path, steps: int, warm: int) -> list[str]:
    """Return the table of the build in the folder and of this one, each with both layers."""
    with ExitStack() as stack:
        builds = {
            f"{name}, {linears}": stack.enter_context(Build(root, linears, warm + steps))
            for name, root in ((folder.name, folder.resolve()), ("this one", HERE))
            for linears in LINEARS
        }
        for _ in range(warm + steps):
            for build in builds.values():
                build.step()
    return table(builds, warm)


def processor() -> str:
    """Return the processor's name and the load of the last minute."""
    import torch

    name = torch.cpu.get_capabilities()["cpu_name"]
    return f"{name}, {torch.__version__}, load {os.getloadavg()[0]:.1f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the earlier build's worktree")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--warm", type=int, default=1, help="steps before, which do not count")
    parser.add_argument("--linears", choices=LINEARS, default="torch", help=argparse.SUPPRESS)
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.folder, options.linears, options.steps)
    else:
        print("\n".join(compare(options.folder, options.steps, options.warm)))
        print(processor())


if __name__ == "__main__":
    main()
