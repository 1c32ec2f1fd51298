"""[edge] The training step of reinforcement learning.

With `rollout.steps_ahead=1` the rollout of step s+1 runs in the background while step s is learned,
within `RewardStep.take`: between two steps nothing is under way. New weights are handed over
between rollouts, so all tokens of a rollout have one version of them. What was played ahead is part
of the progress, and of a checkpoint, so that a resumed run does not play it again with other
weights.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from eapo_agents.learning import (
    Learner,
    StatefulAlgorithm,
    SyncProbe,
    check_layout,
    check_policy,
    check_sampler,
    check_saves,
)
from eapo_agents.rollouts import Group, Rollout, derive_seed
from eapo_agents.training.background import in_background
from eapo_agents.training.checkpoint import Played, Progress, peak_memory_mib
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.run_folder import Run
from eapo_agents.training.scheduled_rollout import ScheduledRollout
from eapo_agents.training.steps import StepResult, hand_over
from eapo_agents.training.summary import staleness, step_metrics, warn_of_truncation
from eapo_env.spending import budget_of
from eapo_env.types import Problem
from eapo_env.validation import UserError


@dataclass(frozen=True, kw_only=True)
class RewardStep:
    """A step of reinforcement learning: play problems, update on the groups, hand over weights.

    Args:
        probe: checks each hand-over; None where the policy samples from the learner's own module
            and nothing is handed over.

    Raises:
        UserError: an algorithm whose choice of groups may change while the next step is played.
    """

    config: TrainConfig
    learner: Learner
    rollout: Rollout
    problems: Sequence[Problem]
    probe: SyncProbe | None = None

    def __post_init__(self) -> None:
        algorithm = self.learner.algorithm
        chooses = hasattr(algorithm, "keeps") and isinstance(algorithm, StatefulAlgorithm)
        if self.config.rollout.steps_ahead and chooses:
            raise UserError(
                f"rollout.steps_ahead=1: the algorithm {algorithm.name!r} has a state, which may"
                " change while its method keeps chooses the groups of the next step"
            )

    def prepared(self, runner: asyncio.Runner, run: Run, progress: Progress) -> Self:
        """Hand the first weights over, check that sampler and learner agree, count on the costs."""
        budget_of(self.rollout.experts).spent = progress.spent
        with run.annotate_errors(progress.step + 1):
            check_saves(self.learner)
            hand_over(runner, self.learner, self.rollout.policy, self.probe)
            policy, rounding = self.rollout.policy, self.learner.settings.rounding
            if self.probe and self.probe.tolerance:
                rounding = self.probe.tolerance
            gaps = {
                "layout": check_layout(self.learner),
                "sampler": runner.run(check_sampler(policy, self.learner, rounding)),
            }
            run.record_check(progress.step, gaps, runner.run(check_policy(policy, rounding)))
        return self

    def take(self, runner: asyncio.Runner, progress: Progress) -> StepResult:
        """Take one step; without a group that has signal, the model stays as it is."""
        step, success, version = progress.step + 1, progress.alone.best, progress.step
        played = progress.ahead or runner.run(self._play(progress, version))
        sampled, after = played.sampled, progress.after(played.sampled)
        with self._playing_ahead(runner, after, version) as ahead:
            start = time.perf_counter()
            update = self.learner.update(sampled.kept) if sampled.kept else {}
            updated = time.perf_counter()
            after = replace(after, ahead=ahead())
        after = replace(after, spent=budget_of(self.rollout.experts).spent)
        waited = time.perf_counter()
        handed_over = hand_over(runner, self.learner, self.rollout.policy, self.probe)
        metrics = step_metrics(sampled) | {
            "acceptance_rate": self.config.schedule.acceptance_rate_at(step, success),
            "turn_budget": self.config.schedule.turn_budget_at(step, success),
            **handed_over,
            **staleness(sampled, version),
            **played.metrics,
            "groups_carried": float(len(sampled.surplus)),
            "seconds/update": updated - start,
            "seconds/hand_over": time.perf_counter() - waited,
            "memory/peak_mib": peak_memory_mib(),
        }
        if taken := sorted(metrics.keys() & update.keys()):
            raise UserError(
                f"a loss cannot name a metric {taken[0]!r}: the step has one of that name"
            )
        metrics |= update
        warn_of_truncation(step, metrics["truncation_rate"], self.config.truncation_alarm)
        return StepResult(metrics=metrics, progress=after, sampled=sampled)

    def before_evaluation(self, runner: asyncio.Runner) -> dict[str, float]:
        """Do nothing: every step hands its weights over."""
        return {}

    def write_progress(self, folder: Path, progress: Progress) -> None:
        """See `Progress.write`."""
        progress.write(folder)

    def read_progress(self, folder: Path) -> Progress:
        """See `Progress.read`."""
        return Progress.read(folder)

    def _playing_ahead(
        self, runner: asyncio.Runner, progress: Progress, version: int
    ) -> AbstractContextManager[Callable[[], Played | None]]:
        """Play in the background, if the settings say so and there is a next step."""
        if not self.config.rollout.steps_ahead or progress.step >= self.config.steps:
            return nullcontext(lambda: None)
        return in_background(runner, self._play(progress, version))

    async def _play(self, progress: Progress, version: int) -> Played:
        """Play the step after this progress, with weights of this version."""
        start = time.perf_counter()
        rollout = replace(self.rollout, version=version)
        scheduled = ScheduledRollout(config=self.config, rollout=rollout)

        async def play(number: int) -> Group:
            return await scheduled.play_group(
                self._problem(number),
                step=progress.step + 1,
                seed=derive_seed(self.config.seed, 1, number),
                success=progress.alone.best,
            )

        keeps = getattr(self.learner.algorithm, "keeps", None)
        sampling = self.config.rollout.sampling
        sampled = await sampling.sample(play, progress.cursor, progress.surplus, keeps)
        metrics = {
            **self.rollout.monitor.metrics(),
            **budget_of(self.rollout.experts).metrics(),
            "seconds/rollout": time.perf_counter() - start,
        }
        return Played(sampled=sampled, metrics=metrics)

    def _problem(self, number: int) -> Problem:
        """Return problem `number` of an endless sequence: a new permutation each epoch."""
        epoch, place = divmod(number, len(self.problems))
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.problems))
        return self.problems[int(order[place])]
