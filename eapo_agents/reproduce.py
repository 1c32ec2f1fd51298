"""[edge] Run the cells of the miniature reproduction: several at once, each in its own process.

A run whose result is there is not run again; one that was interrupted goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path

from eapo_agents.bases import Base
from eapo_agents.cell_results import read_results
from eapo_agents.cell_runs import Job
from eapo_agents.cells import Cell
from eapo_agents.interruption import interruption

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
        ValueError: `num_seeds` below 1, settings that fit no cell, or results that were made with
            others.
    """
    if num_seeds is not None and num_seeds < 1:
        raise ValueError(f"seeds must be at least 1, not {num_seeds}")
    found = read_results(results)
    jobs = []
    for cell in cells:
        for run in found.get(cell.name, ()):
            if run.settings != tuple(settings):
                raise ValueError(
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
    """Raise a `ValueError` for a number of runs side by side below 1."""
    if at_once < 1:
        raise ValueError(f"jobs must be at least 1, not {at_once}")


def make_bases(jobs: Iterable[Job], on_base: Callable[[Base], None]) -> None:
    """Make the base models that the jobs start from, where they are missing."""
    for base, root in {job.cell.base: job.folder / "bases" for job in jobs}.items():
        on_base(base)
        base.make(root)


def run_jobs(jobs: Sequence[Job], *, at_once: int, on_step: OnStep) -> bool:
    """Run the jobs, `at_once` side by side; return whether all of them have their result.

    At the first Ctrl-C or SIGTERM the running ones save where they are, and no new one starts.

    Raises:
        ValueError: `at_once` below 1; runs that failed, after all others have ended.
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
        raise ValueError(f"runs failed: {', '.join(failed)}; the same command tries them again")
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
