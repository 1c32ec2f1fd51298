"""[edge] One run of a cell: train or evaluate, and write down what was found.

FOLDER/bases/slip-0.50/     the base models
FOLDER/runs/CELL/seed-0/    a run folder per training
RESULTS/CELL/seed-0.json    what it found
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import torch

from eapo_agents.evaluation import evaluate
from eapo_agents.methods import distill, leap_of
from eapo_agents.policies import HFPolicy, load_model
from eapo_agents.reproduction.base_models import Base, CopyExperts
from eapo_agents.reproduction.experiments import (
    BaseCopies,
    Cell,
    Distilled,
    Played,
    Talking,
    Trained,
)
from eapo_agents.reproduction.results import Result, counts, curves_of, read_results, result_path
from eapo_agents.rollouts import derive_seed
from eapo_agents.training import (
    ExpertSettings,
    Run,
    TrainConfig,
    Trainer,
    interruption,
    make_rollout,
    with_settings,
)
from eapo_env.experts import ExpertPool
from eapo_env.validation import UserError

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of a cell.

    Args:
        cell: what to run.
        seed: of the run.
        folder: where run folders and base models go.
        results: where results go.
        settings: changes to the cell's config, as `section.key=value`.
    """

    cell: Cell
    seed: int
    folder: Path
    results: Path
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The cell and the seed."""
        return f"{self.cell.name} seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether its result is there."""
        return result_path(self.results, self.cell.name, self.seed).exists()

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        base = self.folder / "bases" / self.cell.base.name
        return with_settings(self.cell.config(self.seed, base.resolve()), self.settings)

    def run(self, on_step: Callable[[int], None]) -> None:
        """Run it to its end, or until Ctrl-C; write the result if it got there.

        A run that was interrupted goes on from its last checkpoint.

        Raises:
            UserError: the run folder holds a run of other settings.
        """
        torch.set_num_threads(1)  # the results do not depend on how many runs are side by side
        place = self.folder / "runs" / self.cell.name / f"seed-{self.seed}"
        place.mkdir(parents=True, exist_ok=True)
        with _only_one(place):
            match self.cell:
                case Trained() as cell:
                    found = _train(_opened(place, self.config), cell, on_step)
                case Distilled():
                    found = _distil(_opened(place, self.config), on_step)
                case Played() as cell:
                    found = _play(self.config, cell)
                case Talking() as cell:
                    found = _talk(self.config, cell)
            if found is not None:
                self._result(**found).write(self.results)

    def _result(
        self, report: Mapping[str, Any], metrics: list[dict[str, float]], seconds: float
    ) -> Result:
        return Result(
            cell=self.cell.name,
            seed=self.seed,
            settings=self.settings,
            samples_per_problem=report["samples_per_problem"],
            correct_P=counts(report["correct_PK"]),
            variance=report["variance"],
            response_tokens=report["response_tokens"],
            curves=curves_of(metrics),
            seconds=round(seconds),
            commit=commit(),
            machine=machine(),
        )


def commit() -> str:
    """Return the commit of the code, with a "+" if files have changed since; "" outside git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def machine() -> str:
    """Return what the runs are computed on: the processor and the cores, or the accelerator."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return f"{_processor()}, {os.cpu_count()} cores"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _train(run: Run, cell: Trained, on_step: Callable[[int], None]) -> dict[str, Any] | None:
    trainer = Trainer.from_config(run.config)
    rollout = replace(trainer.rollout, experts=_pool(cell, run.config))
    trainer = replace(trainer, rollout=rollout)
    if not trainer.train(run, lambda step, metrics: on_step(step)):
        return None
    seconds = sum(row["seconds/rollout"] + row["seconds/update"] for row in run.metrics)
    return {"report": run.last_evaluation, "metrics": run.metrics, "seconds": seconds}


def _distil(run: Run, on_step: Callable[[int], None]) -> dict[str, Any] | None:
    start = time.perf_counter()
    if not distill(run, on_step=lambda step, metrics: on_step(step)):
        return None
    seconds = time.perf_counter() - start
    return {"report": run.last_evaluation, "metrics": run.metrics, "seconds": seconds}


def _play(config: TrainConfig, cell: Played) -> dict[str, Any]:
    start = time.perf_counter()
    model, tokenizer = load_model(config.model)
    rollout = make_rollout(config, HFPolicy(model, tokenizer, max_batch=config.model.max_batch))
    report = asyncio.run(
        evaluate(
            replace(rollout, experts=_pool(cell, config)),
            config.evaluation.problems.load(),
            samples_per_problem=config.evaluation.samples_per_problem,
            rules=cell.rules,
            seed=derive_seed(config.seed, 2),
        )
    )
    return {"report": asdict(report), "metrics": [], "seconds": time.perf_counter() - start}


def _talk(config: TrainConfig, cell: Talking) -> dict[str, Any]:
    start = time.perf_counter()
    with leap_of(config, cell.leap) as leap:
        report = asyncio.run(
            leap.evaluate(
                config.evaluation.problems.load(),
                samples_per_problem=config.evaluation.samples_per_problem,
                seed=derive_seed(config.seed, 2),
            )
        )
    return {"report": asdict(report), "metrics": [], "seconds": time.perf_counter() - start}


def _pool(cell: Trained | Played, config: TrainConfig) -> ExpertPool:
    match cell.experts:
        case BaseCopies():
            return CopyExperts(config.model)
        case ExpertSettings():
            return config.experts.pool()


def _opened(place: Path, config: TrainConfig) -> Run:
    if not (place / "config.json").exists():
        (place / "config.json").write_text(config.to_json(), encoding="utf-8")
    run = Run.open(place)
    if run.config != config:
        raise UserError(f"{place} holds a run of other settings; delete it to start anew")
    return run


@contextmanager
def _only_one(place: Path) -> Iterator[None]:
    """Wait until no other process works on the run in a folder, and let no other one start."""
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


OnStep = Callable[[Job, int], None]
"""Told of every training step of a job, and of `ENDED` when its process has ended."""

ENDED = -1

Running = dict[Connection, tuple[Job, SpawnProcess]]


def open_jobs(
    cells: Iterable[Cell],
    *,
    num_seeds: int | None,
    folder: Path,
    results: Path,
    settings: Sequence[str] = (),
) -> list[Job]:
    """Return the runs of the cells whose results are missing, all cells' first seeds first.

    `num_seeds` None takes each cell's own number.

    Raises:
        UserError: `num_seeds` below 1, settings that fit no cell, or results that were made with
            others.
    """
    if num_seeds is not None and num_seeds < 1:
        raise UserError(f"seeds must be at least 1, not {num_seeds}")
    found = read_results(results)
    jobs = []
    for cell in cells:
        for run in found.get(cell.name, ()):
            if run.settings != tuple(settings):
                raise UserError(
                    f"the results of {cell.name} in {results} were made with the settings"
                    f" {list(run.settings)}, not {list(settings)}"
                )
        jobs += [
            Job(cell=cell, seed=seed, folder=folder, results=results, settings=tuple(settings))
            for seed in range(cell.num_seeds if num_seeds is None else num_seeds)
        ]
    missing = [job for job in sorted(jobs, key=lambda job: job.seed) if not job.is_done]
    for job in missing:
        _ = job.config  # bad settings are told before anything is made
    return missing


def check_at_once(at_once: int) -> None:
    """Raise a `UserError` for a number of runs side by side below 1."""
    if at_once < 1:
        raise UserError(f"jobs must be at least 1, not {at_once}")


def make_bases(jobs: Iterable[Job], on_base: Callable[[Base], None]) -> None:
    """Make the base models that the jobs start from, where they are missing."""
    for base, root in {job.cell.base: job.folder / "bases" for job in jobs}.items():
        on_base(base)
        base.make(root)


def run_jobs(jobs: Sequence[Job], *, at_once: int, on_step: OnStep) -> bool:
    """Run the jobs, `at_once` side by side; return whether all of them have their result.

    At the first Ctrl-C or SIGTERM the running ones save where they are, and no new one starts.

    Raises:
        UserError: `at_once` below 1; runs that failed, after all others have ended.
    """
    check_at_once(at_once)
    waiting, running, failed, stopping = list(jobs), Running(), list[str](), False
    with interruption() as interrupted:
        while waiting or running:
            if interrupted() and not stopping:
                stopping = True
                waiting.clear()
                _terminate(running)
            while waiting and len(running) < at_once:
                _start(waiting.pop(0), running)
            for job, status in _listen(running, on_step):
                if status and not stopping:
                    failed.append(f"{job.name} (exit status {status})")
    if failed:
        raise UserError(f"runs failed: {', '.join(failed)}; the same command tries them again")
    return all(job.is_done for job in jobs)


def _start(job: Job, running: Running) -> None:
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), name=job.name)
    process.start()
    theirs.close()  # so that the end of the process ends the connection
    running[ours] = job, process


def _work(job: Job, connection: Connection) -> None:
    """Run a job in this process; where the parent has died, sending ends it."""
    try:
        job.run(connection.send)
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(1) from None


def _listen(running: Running, on_step: OnStep) -> list[tuple[Job, int]]:
    """Pass on what the jobs say, for a second at most; return those that ended, with status."""
    ended = []
    for connection in wait(list(running), timeout=1.0):
        assert isinstance(connection, Connection)
        job, process = running[connection]
        try:
            on_step(job, connection.recv())
        except EOFError:
            del running[connection]
            process.join()
            on_step(job, ENDED)
            ended.append((job, process.exitcode or 0))
    return ended


def _terminate(running: Mapping[Connection, tuple[Job, SpawnProcess]]) -> None:
    for _, process in running.values():
        process.terminate()
