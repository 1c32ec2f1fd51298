"""Distillation: imitation of the experts' right solutions, the baseline of the paper's section 3.1.

Experts solve the training problems, the verifier filters their solutions, and the policy learns
them by cross-entropy, under the prompt that it is evaluated with: all parameters, or LoRA adapters
that are merged into every checkpoint. The loop and the run folder are those of `training`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np

from eapo_agents.learning import (
    DAPO,
    SINGLE_PROCESS,
    Learner,
    LearnerSpec,
    LoRA,
    Processes,
    SyncProbe,
    check_layout,
    check_leads,
    check_policy,
    check_saves,
)
from eapo_agents.methods.solutions import (
    SOLUTIONS_FILE,
    Solution,
    SolutionCollector,
    forget_unavailable,
    right_solutions,
)
from eapo_agents.policies import Chat, load_model
from eapo_agents.rollouts import Demonstration, Rollout, encode
from eapo_agents.training import (
    DistillationSettings,
    OnStep,
    Parts,
    Progress,
    Run,
    StepResult,
    Tracker,
    TrainConfig,
    Trainer,
    check_before_loading,
    fitted_to_model,
    hand_over,
    make_rollout,
    probe_of,
    training_policy,
    without,
)
from eapo_env.episode import act, begin
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader

OnProblem = Callable[[int, int], None]


def _do_nothing(*_: object) -> None:
    """Default callback."""


def distill(
    run: Run,
    config: TrainConfig | None = None,
    *,
    on_problem: OnProblem = _do_nothing,
    on_step: OnStep = _do_nothing,
    processes: Processes = SINGLE_PROCESS,
) -> bool:
    """Distil in a run folder, from its newest checkpoint; return whether it was completed.

    Args:
        config: by default the run's own.
        on_problem: called with the number of problems that the experts have solved, and of all.
        on_step: called with the step and the metrics of each update.
        processes: those that share the updates.

    Raises:
        UserError: as `distillation_trainer`, or no right solution of any problem.
    """
    trainer = distillation_trainer(config or run.config, on_problem=on_problem, processes=processes)
    with closing(trainer):
        return trainer.train(run, on_step)


def distillation_trainer(
    config: TrainConfig,
    *,
    experts: ExpertPool | None = None,
    verifier: Grader | None = None,
    problems: Sequence[Problem] | None = None,
    held_out: Sequence[Problem] | None = None,
    trackers: Sequence[Tracker] | None = None,
    on_problem: OnProblem = _do_nothing,
    processes: Processes = SINGLE_PROCESS,
) -> Trainer:
    """Return the trainer of the distillation that a config describes.

    Args:
        experts, verifier, problems, held_out, trackers: each replaces the part of the config; the
            experts are asked for whole solutions.
        on_problem, processes: as of `distill`.

    Raises:
        UserError: a config without the section distillation, another bad setting, or problems that
            cannot be read.
    """
    check_leads(processes)
    config = fitted_to_model(config)
    settings = config.distillation
    if settings is None:
        raise UserError(f"{config.name!r} has no section distillation: it is for eapo train")
    given = Parts(experts=experts, verifier=verifier, problems=problems, held_out=held_out)
    check_before_loading(config, trackers)
    if experts is None:
        config.experts.check()
        max_tokens = config.rollout.limits.max_response_tokens
        experts = config.experts.solvers(max_tokens=max_tokens, timeout_s=settings.timeout_s)
    if held_out is None:
        held_out = config.evaluation.problems.load()
    problems = without(held_out, config.problems.load() if problems is None else problems)
    model, tokenizer = load_model(config.model)
    policy = training_policy(config, model, tokenizer, processes)
    rollout = make_rollout(config, policy, experts=experts, verifier=verifier)
    step = ImitationStep(
        settings=settings,
        seed=config.seed,
        learner=_spec(config, settings).start(processes, model=model),
        rollout=rollout,
        collection=SolutionCollector(
            solvers=experts,
            verifier=rollout.verifier,
            prompts=rollout.prompts,
            settings=settings,
            seed=config.seed,
        ),
        problems=problems[: settings.max_problems],
        on_problem=on_problem,
        probe=probe_of(config, processes),
    )
    parts = Parts.of(rollout, step.learner, step.problems, held_out)
    return Trainer(
        config=config,
        step=step,
        held_out=held_out,
        trackers=trackers,
        made=parts.except_for(given),
    )


def _spec(config: TrainConfig, settings: DistillationSettings) -> LearnerSpec:
    return LearnerSpec(
        model=config.model,
        algorithm=DAPO(),  # of the updates by rewards, of which there are none
        settings=replace(config.learner, learning_rate=settings.learning_rate),
        lora=LoRA.of(config.model.lora, config.seed),
    )


@dataclass(frozen=True, kw_only=True)
class ImitationStep:
    """A step of imitation: one update by cross-entropy on right solutions of the experts.

    Args:
        collection: asks the experts, and keeps their solutions in the run folder.
        on_problem: called as in `distill`.
        lessons: the right solutions, as the policy would have written them; set by `prepared`.
        probe: checks each hand-over of weights; None where the policy samples from the learner's
            own module.
    """

    settings: DistillationSettings
    seed: int
    learner: Learner
    rollout: Rollout
    collection: SolutionCollector
    problems: Sequence[Problem]
    on_problem: OnProblem = _do_nothing
    lessons: Sequence[Demonstration] = ()
    probe: SyncProbe | None = None

    def prepared(self, runner: asyncio.Runner, run: Run, progress: Progress) -> Self:
        """Return the step with its lessons; ask the experts for solutions the run folder lacks.

        Before that, the learner's layout and the policy are checked.

        Raises:
            UserError: no right solution fits the token limits, or the layout suits this model not.
        """
        with run.annotate_errors(progress.step + 1):
            check_saves(self.learner)
            gaps = {"layout": check_layout(self.learner)}
            check = check_policy(self.rollout.policy, self.learner.settings.rounding)
            run.record_check(progress.step, gaps, runner.run(check))
        path = run.folder / SOLUTIONS_FILE
        if progress.step == 0:  # later, other lessons would make another training of it
            forget_unavailable(path)
        found = runner.run(self.collection.collect(self.problems, path, self.on_problem))
        return replace(self, lessons=self._lessons(found))

    def take(self, runner: asyncio.Runner, progress: Progress) -> StepResult:
        """Take one step."""
        metrics = self.learner.sft_update(self._batch(progress.step))
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

    def _lessons(self, found: Mapping[str, Sequence[Solution]]) -> list[Demonstration]:
        """Return the right solutions that fit the limits, as demonstrations."""
        policy, limits = self.rollout.policy, self.rollout.limits
        chat = Chat(policy.tokenizer)
        lessons = [
            encode_solution(problem, text, chat, self.rollout.prompts)
            for problem in self.problems
            for text in right_solutions(found[problem.id])
        ]
        fitting = [
            lesson
            for lesson in lessons
            if lesson.num_policy_tokens <= limits.max_response_tokens
            and lesson.num_tokens <= policy.max_context_tokens
        ]
        if not fitting:
            asked = sum(map(len, found.values()))
            raise UserError(
                f"nothing to learn: of {asked} solutions of {len(found)} problems,"
                f" {len(lessons)} are right and none of those fits the token limits"
            )
        return fitting

    def _batch(self, step: int) -> list[Demonstration]:
        """Return the lessons of a step, from an endless sequence of permutations of all lessons."""
        first = step * self.settings.batch_size
        numbers = range(first, first + self.settings.batch_size)
        count = len(self.lessons)
        orders = {
            epoch: np.random.default_rng([self.seed, epoch]).permutation(count)
            for epoch in {number // count for number in numbers}
        }
        return [self.lessons[orders[n // count][n % count]] for n in numbers]


def encode_solution(problem: Problem, text: str, chat: Chat, prompts: Prompts) -> Demonstration:
    """Return a solution as the policy would write it alone, in one turn.

    Where the chat template itself opens the reasoning (`<think>`), the solution does not again.
    """
    if chat.opened:
        text = text.removeprefix("<think>").lstrip("\n")
    episode = act(begin(problem, Rules.alone(), prompts), text, np.random.default_rng(0))
    return encode(episode, chat)
