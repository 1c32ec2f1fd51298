"""A cold start for any model: imitation of demonstrations in the run's own wording.

They consult, use a reply, go on without one where none comes, and answer, with experts and alone:
what reinforcement learning needs to find rewards at all. On procedural problems an error-free
demonstrator writes them; on others the experts' recorded right solutions are what it says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from eapo_agents.learning import SINGLE_PROCESS, Processes, check_leads
from eapo_agents.methods.imitation import (
    ImitationStep,
    fitting,
    imitation_spec,
    with_thought,
)
from eapo_agents.methods.solutions import (
    SOLUTIONS_FILE,
    Solution,
    read_solutions,
    right_solutions,
)
from eapo_agents.policies import Chat, load_model
from eapo_agents.rollouts import Demonstration, Rollout, derive_seed, encode
from eapo_agents.training import (
    ColdStartSettings,
    OnStep,
    Parts,
    Progress,
    Run,
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
from eapo_env.actions import Consult, render_consult
from eapo_env.demonstrator import NoisyDemonstrator
from eapo_env.episode import Episode, act, begin, receive
from eapo_env.experts import SilentExperts
from eapo_env.openai_experts import without_reasoning
from eapo_env.prompts import Prompts, neutralise
from eapo_env.synthetic import read_sum
from eapo_env.types import Problem, Reply, Rules
from eapo_env.validation import UserError


def cold_start(
    run: Run,
    config: TrainConfig | None = None,
    *,
    on_step: OnStep = lambda step, metrics: None,
    processes: Processes = SINGLE_PROCESS,
) -> bool:
    """Cold-start a model in a run folder, from its newest checkpoint; return whether it was done.

    Recorded solutions are in the folder before (`add_solutions`).

    Args:
        config: by default the run's own.
        on_step: called with the step and the metrics of each update.
        processes: those that share the updates.

    Raises:
        UserError: a config without the section cold_start, or no problem to demonstrate.
    """
    with closing(cold_start_trainer(config or run.config, processes=processes)) as trainer:
        return trainer.train(run, on_step)


def cold_start_trainer(config: TrainConfig, *, processes: Processes = SINGLE_PROCESS) -> Trainer:
    """Return the trainer of the cold start that a config describes.

    Raises:
        UserError: a config without the section cold_start, or another bad setting.
    """
    check_leads(processes)
    check_trains(config, processes)
    config = fitted_to_model(config)
    settings = config.cold_start
    if settings is None:
        raise UserError(f"{config.name!r} has no section cold_start: it is for eapo train")
    check_before_loading(config, None)
    held_out = config.evaluation.problems.load()
    problems = without(held_out, config.problems.load())
    model, tokenizer = load_model(config.model)
    policy = training_policy(config, model, tokenizer, processes)
    rollout = make_rollout(config, policy, experts=SilentExperts())
    problems = rollout.short_enough(problems)
    step = ImitationStep(
        batch_size=settings.batch_size,
        seed=config.seed,
        learner=imitation_spec(config, settings.learning_rate).start(processes, model=model),
        rollout=rollout,
        teacher=Demonstrator(config=config, settings=settings, rollout=rollout, problems=problems),
        problems=problems,
        probe=probe_of(config, processes),
    )
    made = Parts.of(rollout, step.learner, step.problems, held_out)
    return Trainer(config=config, step=step, held_out=held_out, made=made)


@dataclass(frozen=True, kw_only=True)
class Demonstrator:
    """Plays a run's problems as the policy should."""

    config: TrainConfig
    settings: ColdStartSettings
    rollout: Rollout
    problems: Sequence[Problem]

    def lessons(self, runner: asyncio.Runner, run: Run, progress: Progress) -> list[Demonstration]:
        """Return a demonstration for each place in a batch of the training.

        Raises:
            UserError: no problem is procedural or has a recorded solution, or nothing fits the
                token limits.
        """
        chat = Chat(self.rollout.policy.tokenizer)
        recorded = read_solutions(run.folder / SOLUTIONS_FILE)
        playable = [p for p in self.problems if read_sum(p.statement) or _right(recorded, p)]
        if not playable:
            raise UserError(
                f"none of {len(self.problems)} problems is procedural or has a recorded right"
                " solution: record some with eapo record-experts, and name the file by --recording;"
                " or teach the format alone, with problems.source=synthetic"
            )
        rng = np.random.default_rng(derive_seed(self.config.seed, 4))
        count = self.config.steps * self.settings.batch_size
        chosen = [playable[int(number)] for number in rng.integers(len(playable), size=count)]
        played = [self._episode(problem, _right(recorded, problem), rng) for problem in chosen]
        all_lessons = [encode(with_thought(episode, chat), chat) for episode in played]
        lessons = fitting(all_lessons, self.rollout.policy, self.rollout.limits)
        if not lessons:
            raise UserError(f"none of {count} demonstrations fits the token limits")
        return lessons

    def _episode(
        self, problem: Problem, solutions: Sequence[str], rng: np.random.Generator
    ) -> Episode:
        student = NoisyDemonstrator(
            step_error_rate=0.0,
            alone=self.settings.alone,
            consult=self.settings.consult,
            queries_per_turn=self.config.annealing.queries_per_turn,
        )
        prompts, rules = self.rollout.prompts, student.rules(rng)
        if total := read_sum(problem.statement):
            return student.demonstrate_on(total, rules, prompts, rng)
        solution = solutions[int(rng.integers(len(solutions)))]
        return recorded_episode(problem, solution, rules, prompts, rng)


def recorded_episode(
    problem: Problem,
    solution: str,
    rules: Rules,
    prompts: Prompts,
    rng: np.random.Generator,
) -> Episode:
    """Return an episode that consults about the whole problem, if it may, and answers.

    The reply, if the gate lets it pass, is the solution, and the policy states its answer; without
    one the policy writes the solution itself.
    """
    episode = begin(problem, rules, prompts)
    if not rules.is_alone:
        asked = render_consult(Consult((neutralise(problem.statement),)))
        episode = act(episode, f"I ask an expert first.\n{asked}", rng)
        episode = receive(episode, [Reply("expert", without_reasoning(solution))])
    read = episode.num_accepted > 0
    answer = f"The expert's answer holds: \\boxed{{{problem.answer}}}"
    return act(episode, answer if read else solution, rng)


def _right(recorded: Mapping[str, Sequence[Solution]], problem: Problem) -> list[str]:
    """Return the recorded right solutions of a problem."""
    solutions = recorded.get(problem.id, ())
    for solution in solutions:
        solution.check_is_of(problem)
    return right_solutions(solutions)
