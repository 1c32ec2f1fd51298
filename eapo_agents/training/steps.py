"""A training step: the protocol of one kind of it, what it gives, and the hand-over of weights."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from eapo_agents.learning import Learner, SyncProbe
from eapo_agents.policies import Policy
from eapo_agents.rollouts import Rollout, Sampled
from eapo_agents.training.checkpoint import Progress
from eapo_agents.training.run_folder import Run
from eapo_env.types import Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a training step gives: its metrics, the progress after it, the groups it sampled."""

    metrics: dict[str, float]
    progress: Progress
    sampled: Sampled | None = None


class TrainingStep(Protocol):
    """One kind of training step, with the parts it works on."""

    @property
    def learner(self) -> Learner:
        """What is trained."""

    @property
    def rollout(self) -> Rollout:
        """How the policy plays, in training or in evaluation only."""

    @property
    def problems(self) -> Sequence[Problem]:
        """What is trained on."""

    def prepared(self, runner: asyncio.Runner, run: Run, progress: Progress) -> Self:
        """Return the step after what comes before the first one, at a start or a resumption."""

    def take(self, runner: asyncio.Runner, progress: Progress) -> StepResult:
        """Take one step."""

    def before_evaluation(self, runner: asyncio.Runner) -> dict[str, float]:
        """Make the policy the trained one, if the steps do not; return metrics of that."""

    def write_progress(self, folder: Path, progress: Progress) -> None:
        """Write into a checkpoint what `read_progress` needs."""

    def read_progress(self, folder: Path) -> Progress:
        """Return the progress in a checkpoint.

        Raises:
            UserError: a file is missing or damaged.
        """


def hand_over(
    runner: asyncio.Runner, learner: Learner, policy: Policy, probe: SyncProbe | None
) -> dict[str, float]:
    """Load the learner's weights into the policy; return how far the two then differ, `sync_gap`.

    Without a probe the policy samples from the learner's own module, and nothing is done.

    Raises:
        PolicyError: they differ by more than the probe's tolerance.
    """
    if probe is None:
        return {}
    policy.load_weights(learner.weights())
    return {"sync_gap": runner.run(probe.check(policy, learner))}
