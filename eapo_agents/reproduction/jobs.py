"""[edge] Runs of experiments, several in parallel, each in its own process.

FOLDER/bases/slip-0.50/                  the base models
FOLDER/runs/EXPERIMENT/seed-0/           a run folder per training
FOLDER/results/EXPERIMENT/seed-0.json    what it measured
"""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from os import PathLike
from pathlib import Path

import torch

from eapo_agents.files import writing
from eapo_agents.reproduction.base_models import BaseModel
from eapo_agents.reproduction.experiment_kinds import Experiment, OnStep
from eapo_agents.reproduction.results import Measurement, Result, read_results, result_path
from eapo_agents.training import TrainConfig, interruption, with_settings
from eapo_env.validation import UserError

_PACKAGE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One run of an experiment.

    Args:
        experiment: what to run.
        seed: of the run.
        folder: of base models, run folders and results.
        settings: changes to the experiment's config, as `section.key=value`.
    """

    experiment: Experiment
    seed: int
    folder: Path
    settings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The experiment and the seed."""
        return f"{self.experiment.name} seed {self.seed}"

    @property
    def is_done(self) -> bool:
        """Whether its result exists."""
        return result_path(self.folder / "results", self.experiment.name, self.seed).exists()

    @property
    def config(self) -> TrainConfig:
        """The settings of the run."""
        model = (self.folder / "bases" / self.experiment.base_model.name).resolve()
        return with_settings(self.experiment.config(self.seed, model), self.settings)

    def run(self, on_step: OnStep) -> None:
        """Run to the end or until Ctrl-C, and write the result if the end was reached.

        An interrupted training resumes from its last checkpoint.

        Raises:
            UserError: the run folder holds a run of other settings.
        """
        torch.set_num_threads(1)  # so that results do not depend on how many runs are in parallel
        folder = self.folder / "runs" / self.experiment.name / f"seed-{self.seed}"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        with _locked(folder):
            measurement = self.experiment.run(self.config, folder, on_step)
            if measurement is not None:
                self._result(measurement).write(self.folder / "results")

    def _result(self, measurement: Measurement) -> Result:
        return Result(
            experiment=self.experiment.name,
            seed=self.seed,
            settings=self.settings,
            samples_per_problem=measurement.samples_per_problem,
            correct_P=measurement.correct_P,
            greedy_P=measurement.greedy_P,
            variance=measurement.variance,
            response_tokens=measurement.response_tokens,
            curves=measurement.curves,
            seconds=measurement.seconds,
            commit=commit(),
            machine=machine(),
        )


def commit() -> str:
    """Return the commit of the code, with "+" if files have changed since; "" outside git."""
    command = ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"]
    try:
        found = subprocess.run(command, cwd=_PACKAGE, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return found.stdout.strip()


def machine() -> str:
    """Return the hardware of the runs: the processor and its cores, or the accelerator."""
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


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Wait until no other process works in a folder, and keep others out."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


OnJobStep = Callable[[Job, int], None]
"""Called with every training step of a job, and with `ENDED` when its process has ended."""

ENDED = -1

Running = dict[Connection, tuple[Job, ForkServerProcess]]


def open_jobs(
    experiments: Iterable[Experiment],
    *,
    num_seeds: int | None,
    folder: str | PathLike[str],
    settings: Sequence[str] = (),
) -> list[Job]:
    """Return the runs whose results are missing in a folder, the first seed of each first.

    `num_seeds` None takes each experiment's own number.

    Raises:
        UserError: `num_seeds` below 1, settings that do not fit an experiment, or results that
            were made with others.
    """
    if num_seeds is not None and num_seeds < 1:
        raise UserError(f"seeds must be at least 1, not {num_seeds}")
    folder = Path(folder)
    found = read_results(folder / "results")
    jobs = []
    for experiment in experiments:
        for run in found.get(experiment.name, ()):
            if run.settings != tuple(settings):
                raise UserError(
                    f"the results of {experiment.name} in {folder / 'results'} were made with the"
                    f" settings {list(run.settings)}, not {list(settings)}"
                )
        jobs += [
            Job(experiment=experiment, seed=seed, folder=folder, settings=tuple(settings))
            for seed in range(experiment.num_seeds if num_seeds is None else num_seeds)
        ]
    missing = [job for job in sorted(jobs, key=lambda job: job.seed) if not job.is_done]
    for job in missing:
        _ = job.config  # bad settings are reported before anything is made
    return missing


def check_at_once(at_once: int) -> None:
    """Raise a `UserError` if the number of parallel runs is below 1."""
    if at_once < 1:
        raise UserError(f"jobs must be at least 1, not {at_once}")


def make_base_models(jobs: Iterable[Job], on_base_model: Callable[[BaseModel], None]) -> None:
    """Make the missing base models that the jobs start from."""
    roots = {job.experiment.base_model: job.folder / "bases" for job in jobs}
    for base_model, root in roots.items():
        on_base_model(base_model)
        base_model.make(root)


def run_jobs(jobs: Sequence[Job], *, at_once: int, on_step: OnJobStep) -> bool:
    """Run the jobs, `at_once` in parallel; return whether all of them have their result.

    At the first Ctrl-C or SIGTERM the running ones save a checkpoint, and no other one starts.

    Raises:
        UserError: `at_once` below 1; runs that failed, once all others have ended.
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
        raise UserError(f"runs failed: {', '.join(failed)}; the same command retries them")
    return all(job.is_done for job in jobs)


def _start(job: Job, running: Running) -> None:
    context = get_context("forkserver")  # its server imports torch, once for all jobs
    context.set_forkserver_preload([__name__, "eapo_agents.training.trainer"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, theirs), name=job.name)
    process.start()
    theirs.close()  # so that the end of the process ends the connection
    running[ours] = job, process


def _work(job: Job, connection: Connection) -> None:
    """Run a job in this process; if the parent has died, sending a step ends it.

    A Ctrl-C in the terminal is for the parent alone, which passes it on: as a second signal here it
    would end the run without a checkpoint.
    """
    os.setsid()
    try:
        job.run(connection.send)
    except (KeyboardInterrupt, BrokenPipeError):
        raise SystemExit(1) from None


def _listen(running: Running, on_step: OnJobStep) -> list[tuple[Job, int]]:
    """Report the jobs' steps for up to a second; return those that ended, with exit status."""
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


def _terminate(running: Mapping[Connection, tuple[Job, ForkServerProcess]]) -> None:
    for _, process in running.values():
        process.terminate()
