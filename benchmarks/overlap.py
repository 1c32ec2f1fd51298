"""Wall time of training steps on a policy server: an earlier build, this one, and this one ahead.

    git worktree add --detach ../earlier 92b7088
    OMP_WAIT_POLICY=PASSIVE python benchmarks/overlap.py ../earlier

Each of the three trains the preset `embedded` from the same weights with the same seed, in a
process on one core, with a vLLM server of its own on another core; the third plays each step while
the one before is learned (`rollout.steps_ahead=1`). Steps alternate, so that other load on the
machine affects all alike, and nothing of the others is under way meanwhile. Records are included,
the start, evaluations and checkpoints are not. Prints each round's seconds as they come, then the
sums and the medians over the steps. Needs vLLM, and taskset.
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
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from builds import HERE, imported, processor

LEARNER_CORE, SERVER_CORE = "0", "1"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
PHASES = ("rollout", "update", "hand_over", "step")
PATIENCE_S = 900.0
SERVE = "import sys; from eapo_agents.cli import main; sys.exit(main(sys.argv[1:]))"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A build and its settings; `model` is where it keeps the embedded model."""

    name: str
    folder: Path
    model: Path
    settings: Sequence[str]
    port: int

    @contextmanager
    def served(self) -> Iterator[None]:
        """Have its server start during the context, and end after it."""
        command = ["taskset", "-c", SERVER_CORE, sys.executable, "-c", SERVE, "serve-policy"]
        options = [str(self.model), "--port", str(self.port), "--dtype", "float32"]
        environment = {**os.environ, **ONE_THREAD, "PYTHONPATH": str(self.folder)}
        with tempfile.TemporaryFile() as output:
            server = subprocess.Popen(
                [*command, *options],
                cwd=self.folder,
                env=environment,
                stdout=output,
                stderr=output,
            )
            try:
                yield
            finally:
                server.terminate()
                server.wait()

    def wait_for_server(self) -> None:
        """Return once the server answers."""
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health").close()
                return
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    @contextmanager
    def training(self, steps: int) -> Iterator[subprocess.Popen[str]]:
        """Yield a process that trains, one step for each line that it reads."""
        command = ["taskset", "-c", LEARNER_CORE, sys.executable, __file__, str(self.folder)]
        options = ["--train", "--steps", str(steps), "--settings", *self.settings]
        process = subprocess.Popen(
            [*command, *options],
            env={**os.environ, **ONE_THREAD},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def contenders(earlier: Path) -> list[Contender]:
    """Return the three: the earlier build, this one, and this one a step ahead."""
    urls = [f"http://127.0.0.1:{port}" for port in (8471, 8472, 8473)]
    before = ["model.engine=vllm-server", f"policy_server.base_url={urls[0]}"]
    now, ahead = (["engine=vllm-server", f'engine.base_urls=["{url}"]'] for url in urls[1:])
    model = HERE / "eapo_agents/policies/embedded"
    return [
        Contender(
            name=earlier.name,
            folder=earlier,
            model=earlier / "eapo_agents/embedded",
            settings=before,
            port=8471,
        ),
        Contender(name="this build", folder=HERE, model=model, settings=now, port=8472),
        Contender(
            name="this build, a step ahead",
            folder=HERE,
            model=model,
            settings=[*ahead, "rollout.steps_ahead=1"],
            port=8473,
        ),
    ]


def train(folder: Path, settings: Sequence[str], steps: int) -> None:
    """Train the build in the folder; print each step's seconds once a line on stdin asks for it."""
    sys.path.insert(0, str(folder))
    from eapo_agents import presets

    assert Path(presets.__file__).is_relative_to(folder), presets.__file__
    with_settings = imported("with_settings", "eapo_agents", "eapo_agents.config")
    config: Any = with_settings(presets.embedded(), settings)
    config = replace(
        config, checkpoint_every=steps + 1, evaluation=replace(config.evaluation, every=0)
    )
    trainer = imported("Trainer", "eapo_agents", "eapo_agents.trainer").from_config(config)
    create_run = imported("Run", "eapo_agents", "eapo_agents.run").create
    asked = 0.0

    def wait() -> None:
        nonlocal asked
        sys.stdin.readline()
        asked = time.perf_counter()

    def on_step(_step: int, metrics: Mapping[str, float]) -> None:
        seconds = {"step": time.perf_counter() - asked}
        seconds |= {name: metrics[f"seconds/{name}"] for name in PHASES if name not in seconds}
        print(json.dumps(seconds | {"accuracy": metrics["accuracy"]}), flush=True)
        wait()

    with tempfile.TemporaryDirectory() as runs:
        wait()
        trainer.train(create_run(config, Path(runs)), on_step)


def compare(earlier: Path, steps: int, warm: int) -> list[str]:
    """Return the table of the three."""
    them = contenders(earlier)
    seconds: list[list[Mapping[str, float]]] = [[] for _ in them]
    with ExitStack() as stack:
        for one in them:
            stack.enter_context(one.served())
        for one in them:
            one.wait_for_server()
        processes = [stack.enter_context(one.training(warm + steps)) for one in them]
        for _ in range(warm + steps):
            for process, rows in zip(processes, seconds, strict=True):
                assert process.stdin
                assert process.stdout
                print(file=process.stdin, flush=True)
                rows.append(json.loads(process.stdout.readline()))
            print(*(f"{rows[-1]['step']:.2f}" for rows in seconds), file=sys.stderr, flush=True)
    return table([one.name for one in them], [rows[warm:] for rows in seconds])


def table(names: Sequence[str], seconds: Sequence[Sequence[Mapping[str, float]]]) -> list[str]:
    """Return a row for each, compared with the first one."""
    heads = ["build", "all steps s", "ratio", *(f"{phase} s" for phase in PHASES), "accuracy"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    whole = [sum(row["step"] for row in rows) for rows in seconds]
    for name, rows, total in zip(names, seconds, whole, strict=True):
        medians = [statistics.median(row[phase] for row in rows) for phase in PHASES]
        accuracy = statistics.mean(row["accuracy"] for row in rows[-10:])
        cells = [f"{total:.1f}", f"{total / whole[0]:.2f}", *(f"{one:.2f}" for one in medians)]
        lines.append(f"| {' | '.join([name, *cells, f'{accuracy:.2f}'])} |")
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the earlier build's worktree")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--warm", type=int, default=0, help="steps before, which do not count")
    parser.add_argument("--train", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--settings", nargs="*", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        train(options.folder, options.settings, options.steps)
    else:
        print("\n".join(compare(options.folder.resolve(), options.steps, options.warm)))
        print(processor())


if __name__ == "__main__":
    main()
