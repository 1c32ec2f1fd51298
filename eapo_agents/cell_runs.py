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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from eapo_agents.cell_results import Result, counts, curves_of, result_path
from eapo_agents.cells import BaseCopies, Cell, Distilled, Played, Talking, Trained
from eapo_agents.chat_models import leap_of
from eapo_agents.config import TrainConfig, with_settings
from eapo_agents.copies import CopyExperts
from eapo_agents.distill import distill
from eapo_agents.evaluate import evaluate
from eapo_agents.hf_policy import HFPolicy
from eapo_agents.models import load_model
from eapo_agents.rollout import derive_seed
from eapo_agents.run import Run
from eapo_agents.settings import ExpertSettings
from eapo_agents.trainer import Trainer, make_rollout
from eapo_env.experts import ExpertPool

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
            ValueError: the run folder holds a run of other settings.
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
        raise ValueError(f"{place} holds a run of other settings; delete it to start anew")
    return run


@contextmanager
def _only_one(place: Path) -> Iterator[None]:
    """Wait until no other process works on the run in a folder, and let no other one start."""
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
