"""A training step by imitation: one update by cross-entropy on demonstrations of a teacher.

The loop and the run folder are those of `training`. Distillation teaches the experts' solutions,
the cold start a whole format.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from eapo_agents.learning import (
    DAPO,
    Learner,
    LearnerSpec,
    LoRA,
    SyncProbe,
    check_layout,
    check_policy,
    check_saves,
)
from eapo_agents.policies import Chat, Policy
from eapo_agents.rollouts import Demonstration, Rollout, TokenLimits
from eapo_agents.training import Progress, Run, StepResult, TrainConfig, hand_over
from eapo_env.episode import Episode
from eapo_env.types import Problem
from eapo_env.validation import UserError


class Teacher(Protocol):
    """What an imitation learns from."""

    def lessons(self, runner: asyncio.Runner, run: Run, progress: Progress) -> list[Demonstration]:
        """Return all demonstrations, the same ones at a start and at a resumption.

        Raises:
            UserError: there are none.
        """


@dataclass(frozen=True, kw_only=True)
class ImitationStep:
    """A step of imitation.

    Args:
        batch_size: demonstrations of a step.
        seed: of their order.
        teacher: makes the demonstrations, as the policy would have written them.
        lessons: these; set by `prepared`.
        probe: checks each hand-over of weights; None where the policy samples from the learner's
            own module.
    """

    batch_size: int
    seed: int
    learner: Learner
    rollout: Rollout
    teacher: Teacher
    problems: Sequence[Problem]
    lessons: Sequence[Demonstration] = ()
    probe: SyncProbe | None = None

    def prepared(self, runner: asyncio.Runner, run: Run, progress: Progress) -> Self:
        """Return the step with its lessons.

        Before that, the learner's layout and the policy are checked.

        Raises:
            UserError: no demonstration, or the layout suits this model not.
        """
        with run.annotate_errors(progress.step + 1):
            check_saves(self.learner)
            gaps = {"layout": check_layout(self.learner)}
            check = check_policy(self.rollout.policy, self.learner.settings.rounding)
            run.record_check(progress.step, gaps, runner.run(check))
        return replace(self, lessons=self.teacher.lessons(runner, run, progress))

    def take(self, runner: asyncio.Runner, progress: Progress) -> StepResult:
        """Take one step."""
        start = time.perf_counter()
        metrics = self.learner.sft_update(self._batch(progress.step))
        metrics = {**metrics, "seconds/update": time.perf_counter() - start}
        return StepResult(metrics=metrics, progress=replace(progress, step=progress.step + 1))

    def before_evaluation(self, runner: asyncio.Runner) -> dict[str, float]:
        """Hand the weights over to a policy that has its own."""
        return hand_over(runner, self.learner, self.rollout.policy, self.probe)

    def write_progress(self, folder: Path, progress: Progress) -> None:
        """Write the number of steps."""
        (folder / "state.json").write_text(json.dumps({"step": progress.step}), encoding="utf-8")

    def read_progress(self, folder: Path) -> Progress:
        """Return the progress in a checkpoint.

        Raises:
            UserError: its file is missing or damaged.
        """
        path = folder / "state.json"
        try:
            return Progress(step=int(json.loads(path.read_text(encoding="utf-8"))["step"]))
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise UserError(f"{path}: {error!r}") from error

    def _batch(self, step: int) -> list[Demonstration]:
        """Return the lessons of a step, from an endless sequence of permutations of all lessons."""
        first = step * self.batch_size
        numbers = range(first, first + self.batch_size)
        count = len(self.lessons)
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(count)
            for epoch in {number // count for number in numbers}
        }
        return [self.lessons[orders[n // count][n % count]] for n in numbers]


def imitation_spec(config: TrainConfig, learning_rate: float | None) -> LearnerSpec:
    """Return the learner of a config for imitation at this learning rate."""
    return LearnerSpec(
        model=config.model,
        algorithm=DAPO(),  # of the updates by rewards, of which there are none
        settings=replace(config.learner, learning_rate=learning_rate),
        lora=LoRA.of(config.model.lora, config.seed),
    )


def fitting(
    lessons: Sequence[Demonstration], policy: Policy, limits: TokenLimits
) -> list[Demonstration]:
    """Return the demonstrations that the policy could have written within its limits."""
    return [
        lesson
        for lesson in lessons
        if lesson.num_policy_tokens <= limits.max_response_tokens
        and lesson.num_tokens <= policy.max_context_tokens
    ]


def with_thought(episode: Episode, chat: Chat) -> Episode:
    """Return the episode as a model writes it whose template opens the reasoning of each turn."""
    if not chat.opened:
        return episode
    messages = tuple(
        replace(message, content=_closed_thought(message.content))
        if message.role == "assistant"
        else message
        for message in episode.messages
    )
    return replace(episode, messages=messages)


def _closed_thought(text: str) -> str:
    """Return a turn that goes on in an open thought: its own, or one that is closed at once."""
    if "</think>" in text:
        return text.removeprefix("<think>").lstrip("\n")
    return f"</think>\n\n{text}"
