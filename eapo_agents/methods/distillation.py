"""Distillation: the experts' right solutions, imitated (the baseline of the paper's section 3.1).

Experts solve the training problems, the verifier filters their solutions, and the policy learns
them by cross-entropy, under the prompt that it will be evaluated with: all parameters, or LoRA
adapters that are merged into every checkpoint. A run folder like a training's is what it leaves.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from eapo_agents.learning import Adapters, Learner, SyncProbe
from eapo_agents.methods.solutions import Collection, Solution, forget_unavailable, right_solutions
from eapo_agents.policies import Chat, load_model
from eapo_agents.rollouts import Demonstration, Rollout, encode
from eapo_agents.training import (
    DistillationSettings,
    Run,
    TrainConfig,
    evaluate_alone,
    interruption,
    make_rollout,
    probe_of,
    training_policy,
    without,
)
from eapo_env.episode import act, begin
from eapo_env.prompts import Prompts
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError

OnStep = Callable[[int, Mapping[str, float]], None]
OnProblem = Callable[[int, int], None]


def _nothing(*_: object) -> None:
    """Tell nobody."""


def distill(run: Run, *, on_problem: OnProblem = _nothing, on_step: OnStep = _nothing) -> bool:
    """Distil as the run's config says, from where its folder is; return whether it got to the end.

    `on_problem` is told how many problems the experts have solved, of how many; `on_step` the
    metrics of each update.

    Raises:
        UserError: a run that is none of distillation, or no right solution of any problem.
    """
    with closing(Distillation.from_config(run.config)) as distillation:
        return distillation.run(run, on_problem, on_step)


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """A policy, its learner, and the experts it learns from; `from_config` makes all of it."""

    config: TrainConfig
    settings: DistillationSettings
    learner: Learner
    adapters: Adapters | None
    rollout: Rollout
    collection: Collection
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    probe: SyncProbe | None = None

    @classmethod
    def from_config(cls, config: TrainConfig) -> Distillation:
        """Return the distillation that a config describes.

        Raises:
            UserError: a config without the section distillation, a setting that names nothing,
                problems that cannot be read.
        """
        settings = config.distillation
        if settings is None:
            raise UserError(f"{config.name!r} has no section distillation: it is for eapo train")
        held_out = config.evaluation.problems.load()
        problems = without(held_out, config.problems.load())[: settings.max_problems]
        model, tokenizer = load_model(config.model)
        policy = training_policy(config, model, tokenizer)
        adapters = None
        if settings.lora_rank:
            adapters = Adapters.attach(
                model,
                config.model,
                rank=settings.lora_rank,
                alpha=settings.lora_alpha,
                seed=config.seed,
            )
        learner_settings = replace(
            config.learner, learning_rate=settings.learning_rate, temperature=1.0
        )
        rollout = replace(make_rollout(config, policy), truncation=config.evaluation.truncation)
        max_tokens = config.rollout.limits.max_response_tokens
        return cls(
            config=config,
            settings=settings,
            learner=Learner(model, settings=learner_settings),
            adapters=adapters,
            rollout=rollout,
            collection=Collection(
                solvers=config.experts.solvers(max_tokens=max_tokens, timeout_s=settings.timeout_s),
                verifier=rollout.verifier,
                prompts=rollout.prompts,
                settings=settings,
                seed=config.seed,
            ),
            problems=problems,
            held_out=held_out,
            probe=probe_of(config),
        )

    def run(self, run: Run, on_problem: OnProblem, on_step: OnStep) -> bool:
        """Collect solutions, then learn them; return whether the last update was reached.

        Both go on from what the run folder holds. While it learns, the first Ctrl-C ends the
        current step, writes a checkpoint and returns False; a second one stops at once.
        """
        step = self._restore(run)
        with closing(run), asyncio.Runner() as runner:
            path = run.folder / "solutions.jsonl"
            if step == 0:  # later, other lessons would be another training
                forget_unavailable(path)
            found = runner.run(self.collection.collect(self.problems, path, on_problem))
            lessons = self._lessons(found)
            stopping = False
            with interruption() as interrupted:
                while step < self.config.steps and not stopping:
                    with run.annotate_errors(step + 1):
                        metrics = self.learner.sft_update(self._batch(lessons, step))
                        step += 1
                        metrics |= self._evaluation(runner, run, step)
                        run.record(step, metrics)
                        on_step(step, metrics)
                        stopping = interrupted() or step == self.config.steps
                        if stopping or step % self.config.checkpoint_every == 0:
                            self._save(run, step)
        return step >= self.config.steps

    def close(self) -> None:
        """Free what the policy holds, such as an engine."""
        self.rollout.policy.close()

    def _lessons(self, found: Mapping[str, Sequence[Solution]]) -> list[Demonstration]:
        """Return what is learned: the right solutions that fit the limits, as the policy's own."""
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

    def _batch(self, lessons: Sequence[Demonstration], step: int) -> list[Demonstration]:
        """Return the lessons of an update, from an endless sequence of permutations of them all."""
        first = step * self.settings.batch_size
        numbers = range(first, first + self.settings.batch_size)
        orders = {
            epoch: np.random.default_rng([self.config.seed, epoch]).permutation(len(lessons))
            for epoch in {number // len(lessons) for number in numbers}
        }
        return [lessons[orders[n // len(lessons)][n % len(lessons)]] for n in numbers]

    def _evaluation(self, runner: asyncio.Runner, run: Run, step: int) -> dict[str, float]:
        every = self.config.evaluation.every
        if not (step == self.config.steps or (every and step % every == 0)):
            return {}
        handed_over = self._hand_over(runner)
        report = runner.run(evaluate_alone(self.config, self.rollout, self.held_out))
        run.record_evaluation(step, asdict(report))
        alone = {f"alone/{name}": number for name, number in report.metrics().items()}
        return alone | handed_over

    def _hand_over(self, runner: asyncio.Runner) -> dict[str, float]:
        """Give the weights to a policy that has its own; return how far the two then disagree."""
        if self.probe is None:
            return {}
        model = self.learner.model
        weights = self.adapters.merged() if self.adapters else model.state_dict()
        self.rollout.policy.load_weights(weights)
        return {"sync_gap": runner.run(self.probe.check(self.rollout.policy, self.learner))}

    def _save(self, run: Run, step: int) -> None:
        def write(folder: Path) -> None:
            if self.adapters:
                self.adapters.save(self.learner, folder)
            else:
                self.learner.save(folder)
            self.rollout.policy.tokenizer.save_pretrained(folder)
            (folder / "state.json").write_text(json.dumps({"step": step}), encoding="utf-8")

        run.save(step, write)

    def _restore(self, run: Run) -> int:
        step = 0
        if run.checkpoints:
            newest = run.checkpoints[-1]
            if self.adapters:
                self.adapters.load(self.learner, newest)
            else:
                self.learner.load(newest)
            state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
            step = int(state["step"])
        run.rewind(step)
        return step


def encode_solution(problem: Problem, text: str, chat: Chat, prompts: Prompts) -> Demonstration:
    """Return a solution as the policy would write it alone, in one turn.

    Where the chat template itself opens the reasoning (`<think>`), the solution does not again.
    """
    opening = prompts.opening(problem, Rules.alone())
    start = chat.tokenizer.decode(chat.opening([opening])[-8:])
    if str(start).rstrip().endswith("<think>"):
        text = text.removeprefix("<think>").lstrip("\n")
    episode = act(begin(problem, Rules.alone(), prompts), text, np.random.default_rng(0))
    return encode(episode, chat)
