"""The training loop: play with the current policy, learn, hand over the weights, record.

Everything drawn at random is a function of the run's seed, the training step and the problem's
number, so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from eapo_agents.evaluation import Report
from eapo_agents.learning import SINGLE_PROCESS, Learner, Processes, SyncProbe
from eapo_agents.policies import load_model
from eapo_agents.rollouts import Group, Rollout, Sampled, derive_seed
from eapo_agents.training.build import (
    evaluate_alone,
    make_rollout,
    probe_of,
    training_policy,
    without,
)
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.interruption import interruption
from eapo_agents.training.progress import Progress, peak_memory_mib
from eapo_agents.training.run import Run
from eapo_agents.training.summary import alarm, step_metrics, transcript_rows
from eapo_env.types import Problem
from eapo_env.validation import UserError

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A policy, its learner, and what they train on; `from_config` makes all of it.

    `probe` checks every hand-over of weights; None is for a policy that samples from the learner's
    own module, where nothing is handed over.

    Any part can be replaced before training: `replace(trainer, rollout=replace(trainer.rollout,
    experts=mine))`.
    """

    config: TrainConfig
    learner: Learner
    rollout: Rollout
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    probe: SyncProbe | None = None

    @classmethod
    def from_config(cls, config: TrainConfig, processes: Processes = SINGLE_PROCESS) -> Trainer:
        """Return the trainer that a config describes.

        Problems that are held out for evaluation are left out of training, and those with a prompt
        beyond the limit. Of several processes, the first one has the trainer, and the others follow
        it (`follower.py`).

        Raises:
            UserError: a setting that names nothing, or problems that cannot be read.
        """
        if config.learner.temperature != config.rollout.temperature:
            raise UserError(
                f"learner.temperature is {config.learner.temperature}, but the sampler's,"
                f" rollout.temperature, {config.rollout.temperature}: they must be equal"
            )
        if config.distillation:
            raise UserError(f"{config.name!r} has a section distillation: it is for eapo distill")
        held_out = config.evaluation.problems.load()
        problems = without(held_out, config.problems.load())
        model, tokenizer = load_model(config.model)
        sampled = processes.policy_copy(model.to(config.learner.weights_dtype))
        sampled.to(config.learner.torch_device)
        policy = training_policy(config, sampled, tokenizer, processes)
        rollout = make_rollout(config, policy)
        problems = rollout.short_enough(problems)
        processes.announce("begin", config)
        learner = Learner(
            model,
            settings=config.learner,
            algorithm=config.chosen_algorithm,
            processes=processes,
        )
        return cls(
            config=config,
            learner=learner,
            rollout=rollout,
            problems=problems,
            held_out=held_out,
            probe=probe_of(config, processes),
        )

    def train(self, run: Run, on_step: OnStep = lambda step, metrics: None) -> bool:
        """Train up to the configured number of steps; return whether it got there.

        Goes on from the newest checkpoint in the run folder. The first Ctrl-C ends the current
        step, writes a checkpoint and returns False; a second one stops at once.
        """
        with run.exclusively(), closing(run), asyncio.Runner() as runner, interruption() as came:
            return self._train(run, runner, on_step, came)

    def _train(
        self, run: Run, runner: asyncio.Runner, on_step: OnStep, interrupted: Callable[[], bool]
    ) -> bool:
        progress = self._restore(run)
        with run.annotate_errors(progress.step + 1):
            self._hand_over(runner)
        stopping = False
        while progress.step < self.config.steps and not stopping:
            with run.annotate_errors(progress.step + 1):
                metrics, sampled = self._step(runner, progress)
                progress = progress.after(sampled)
                metrics |= self._periodic(runner, run, progress.step, sampled)
                run.record(progress.step, metrics)
                alarm(progress.step, metrics["truncation_rate"], self.config.truncation_alarm)
                on_step(progress.step, metrics)
                stopping = self.learner.processes.any_interrupted(interrupted())
                stopping |= progress.step == self.config.steps
                if stopping or progress.step % self.config.checkpoint_every == 0:
                    self._save(run, progress)
        return progress.step >= self.config.steps

    def close(self) -> None:
        """Free what the policy holds, such as an engine."""
        self.rollout.policy.close()

    async def evaluate(self) -> Report:
        """Return the report of the current policy, alone, on the held-out problems."""
        player = replace(self.rollout, truncation=self.config.evaluation.truncation)
        return await evaluate_alone(self.config, player, self.held_out)

    def _step(self, runner: asyncio.Runner, progress: Progress) -> tuple[dict[str, float], Sampled]:
        start, step = time.perf_counter(), progress.step
        play = partial(self._play, step)
        sampling = self.config.rollout.sampling
        sampled = runner.run(sampling.sample(play, progress.cursor, progress.surplus))
        played = time.perf_counter()
        update = self.learner.update(sampled.kept) if sampled.kept else {}
        learned = time.perf_counter()
        handed_over = self._hand_over(runner)
        metrics = step_metrics(sampled) | {
            "acceptance_rate": self.config.annealing.acceptance_rate_at(step),
            "turn_budget": self.config.annealing.turn_budget_at(step),
            **update,
            **handed_over,
            **self.rollout.watch.metrics(),
            "groups_carried": float(len(sampled.surplus)),
            "seconds/rollout": played - start,
            "seconds/update": learned - played,
            "seconds/hand_over": time.perf_counter() - learned,
            "memory/peak_mib": peak_memory_mib(),
        }
        return metrics, sampled

    def _hand_over(self, runner: asyncio.Runner) -> dict[str, float]:
        """Give the policy the learner's weights; return how far the two then disagree."""
        self.rollout.policy.load_weights(self.learner.weights())
        if self.probe is None:
            return {}
        return {"sync_gap": runner.run(self.probe.check(self.rollout.policy, self.learner))}

    async def _play(self, step: int, number: int) -> Group:
        """Play the group of one problem, whose members or who itself draws the turn budget."""
        seed = derive_seed(self.config.seed, 1, number)
        draws = np.random.default_rng(seed).random(self.config.rollout.group_size).tolist()
        if self.config.rollout.turn_budgets == "group":
            draws = draws[:1] * len(draws)
        rules = [self.config.annealing.rules_at(step, draw) for draw in draws]
        return await self.rollout.play_group(self._problem(number), rules, seed=seed)

    def _problem(self, number: int) -> Problem:
        """Return problem `number` of an endless sequence: a fresh permutation each epoch."""
        epoch, place = divmod(number, len(self.problems))
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.problems))
        return self.problems[int(order[place])]

    def _periodic(
        self, runner: asyncio.Runner, run: Run, step: int, sampled: Sampled
    ) -> dict[str, float]:
        if step == 1 or step % self.config.transcripts_every == 0:
            run.record_transcripts(step, transcript_rows(sampled.played))
        every = self.config.evaluation.every
        if not (step == self.config.steps or (every and step % every == 0)):
            return {}
        start, report = time.perf_counter(), runner.run(self.evaluate())
        run.record_evaluation(step, asdict(report))
        found = {f"alone/{name}": number for name, number in report.metrics().items()}
        return found | {"seconds/evaluation": time.perf_counter() - start}

    def _save(self, run: Run, progress: Progress) -> None:
        def write(folder: Path) -> None:
            self.learner.save(folder)
            self.rollout.policy.tokenizer.save_pretrained(folder)
            progress.write(folder)

        run.save(progress.step, write)

    def _restore(self, run: Run) -> Progress:
        checkpoints = run.checkpoints
        progress = Progress()
        if checkpoints:
            newest = checkpoints[-1]
            try:
                self.learner.load(newest)
                progress = Progress.read(newest)
            except ValueError as error:
                raise UserError(
                    f"the checkpoint {newest} is damaged ({error}); delete it to go on from the"
                    " one before"
                ) from error
        run.rewind(progress.step)
        return progress
