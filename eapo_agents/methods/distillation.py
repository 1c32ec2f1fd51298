"""Distillation: imitation of the experts' right solutions, the baseline of the paper's section 3.1.

Experts solve the training problems, the verifier filters their solutions, and the policy learns
them by cross-entropy, under the prompt that it is evaluated with: all parameters, or LoRA adapters
that are merged into every checkpoint. The loop and the run folder are those of `training`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from eapo_agents.learning import (
    SINGLE_PROCESS,
    Processes,
    check_leads,
)
from eapo_agents.methods.imitation import (
    ImitationStep,
    fitting,
    imitation_spec,
    with_thought,
)
from eapo_agents.methods.solutions import (
    SOLUTIONS_FILE,
    SolutionCollector,
    forget_unavailable,
    right_solutions,
)
from eapo_agents.policies import Chat, load_model
from eapo_agents.rollouts import Demonstration, Rollout, encode
from eapo_agents.training import (
    OnStep,
    Parts,
    Progress,
    Run,
    Tracker,
    TrainConfig,
    Trainer,
    check_before_loading,
    check_trains,
    fitted_to_model,
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
        experts: asked for whole solutions, in the place of the config's.
        verifier: in the place of the config's.
        problems: to learn from, in the place of the config's.
        held_out: to evaluate on, in the place of the config's.
        trackers: in the place of the config's.
        on_problem: as of `distill`.
        processes: as of `distill`.

    Raises:
        UserError: a config without the section distillation, another bad setting, or problems that
            cannot be read.
    """
    check_leads(processes)
    check_trains(config, processes)
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
    problems = problems[: settings.max_problems]
    step = ImitationStep(
        batch_size=settings.batch_size,
        seed=config.seed,
        learner=imitation_spec(config, settings.learning_rate).start(processes, model=model),
        rollout=rollout,
        teacher=SolutionTeacher(
            collection=SolutionCollector(
                solvers=experts,
                verifier=rollout.verifier,
                prompts=rollout.prompts,
                settings=settings,
                seed=config.seed,
            ),
            problems=problems,
            rollout=rollout,
            on_problem=on_problem,
        ),
        problems=problems,
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


@dataclass(frozen=True, kw_only=True)
class SolutionTeacher:
    """Teaches the experts' right solutions; asks for those that the run folder lacks.

    Args:
        collection: asks the experts, and keeps their solutions in the run folder.
        problems: what they solve.
        rollout: how the policy reads and writes.
        on_problem: called as in `distill`.
    """

    collection: SolutionCollector
    problems: Sequence[Problem]
    rollout: Rollout
    on_problem: OnProblem = _do_nothing

    def lessons(self, runner: asyncio.Runner, run: Run, progress: Progress) -> list[Demonstration]:
        """Return the right solutions that fit the token limits, as demonstrations.

        Raises:
            UserError: there are none.
        """
        path = run.folder / SOLUTIONS_FILE
        if progress.step == 0:  # later, other lessons would make another training of it
            forget_unavailable(path)
        found = runner.run(self.collection.collect(self.problems, path, self.on_problem))
        chat = Chat(self.rollout.policy.tokenizer)
        right = [
            encode_solution(problem, text, chat, self.rollout.prompts)
            for problem in self.problems
            for text in right_solutions(found[problem.id])
        ]
        lessons = fitting(right, self.rollout.policy, self.rollout.limits)
        if not lessons:
            asked = sum(map(len, found.values()))
            raise UserError(
                f"nothing to learn: of {asked} solutions of {len(found)} problems,"
                f" {len(right)} are right and none of those fits the token limits"
            )
        return lessons


def encode_solution(problem: Problem, text: str, chat: Chat, prompts: Prompts) -> Demonstration:
    """Return a solution as the policy would write it alone, in one turn.

    Where the chat template itself opens the reasoning (`<think>`), the solution does not again, and
    one without reasoning closes it at once.
    """
    episode = act(begin(problem, Rules.alone(), prompts), text, np.random.default_rng(0))
    return encode(with_thought(episode, chat), chat)
