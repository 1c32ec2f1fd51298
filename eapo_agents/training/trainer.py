"""The training loop.

It takes one kind of step again and again: `RewardStep`, or `ImitationStep` in
`methods/imitation.py`. It holds the run folder's lock, resumes from the newest checkpoint,
evaluates, records metrics, writes checkpoints, and stops in order when it is interrupted. All
random numbers derive from the run's seed, the training step and the problem's number, so that a
resumed run equals one that was never interrupted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

from eapo_agents.evaluation import Graded, OnAttempts, Report, check_evaluable
from eapo_agents.learning import (
    SINGLE_PROCESS,
    Algorithm,
    Learner,
    LearnerSpec,
    LoRA,
    Processes,
    SyncProbe,
    check_leads,
)
from eapo_agents.policies import Policy, load_model
from eapo_agents.rollouts import Rollout, Sampled
from eapo_agents.training.build import (
    check_before_loading,
    check_plays_ahead,
    check_trains,
    evaluate_alone,
    probe_of,
    training_policy,
    warn_of_foreign_evaluation,
    warn_of_strangers,
    warn_of_untaught_model,
)
from eapo_agents.training.checkpoint import Progress
from eapo_agents.training.config import TrainConfig
from eapo_agents.training.model_defaults import fitted_to_model
from eapo_agents.training.parts import Parts
from eapo_agents.training.problem_sets import without
from eapo_agents.training.reward_step import RewardStep
from eapo_agents.training.run_folder import Run
from eapo_agents.training.scheduled_rollout import make_rollout
from eapo_agents.training.signals import interruption, report_all_but_ctrl_c
from eapo_agents.training.steps import TrainingStep
from eapo_agents.training.summary import (
    evaluation_rows,
    experts_are_silent,
    latency_rows,
    transcript_rows,
    warn_of_standstill,
)
from eapo_agents.training.trackers import Tracker
from eapo_env.event_loop import check_no_loop_runs
from eapo_env.experts import ExpertPool, SilentExperts
from eapo_env.reward import Reward
from eapo_env.types import Problem
from eapo_env.validation import UserError
from eapo_env.verifier import Grader

_LOG = logging.getLogger(__name__)

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """Trains a policy in a run folder; `from_config` makes one for reinforcement learning.

    Args:
        config: how often to evaluate, to record and to write checkpoints, and how long to train.
        step: the kind of training step, with policy, learner and problems.
        held_out: the problems of the evaluations.
        trackers: where metrics go beside the run folder; None for those of the config. They are
            closed when `train` returns.
        made: the parts that the config made; a run records all others.
    """

    config: TrainConfig
    step: TrainingStep
    held_out: Sequence[Problem]
    trackers: Sequence[Tracker] | None = None
    made: Parts = Parts()

    def __post_init__(self) -> None:
        check_evaluable(self.held_out)
        _ = self.recorded_config  # as the parts are before any training

    @classmethod
    def from_config(
        cls,
        config: TrainConfig,
        *,
        policy: Policy | None = None,
        experts: ExpertPool | None = None,
        algorithm: Algorithm | None = None,
        reward: Reward | None = None,
        verifier: Grader | None = None,
        problems: Sequence[Problem] | None = None,
        held_out: Sequence[Problem] | None = None,
        trackers: Sequence[Tracker] | None = None,
        processes: Processes = SINGLE_PROCESS,
    ) -> Trainer:
        """Return the trainer that a config describes; each argument replaces one of its parts.

        Held-out problems are left out of training, and so are those whose prompt is too long.

        Args:
            policy: has weights of its own: every update is handed over by `load_weights`, and
                checked (`config.sync`).
            processes: those that share the updates; `lead(main)` gives them to `main`.

        Raises:
            UserError: a bad setting, problems that cannot be read, an algorithm that cannot be sent
                to the other processes, or `processes` missing where a launcher started several.
        """
        check_leads(processes)
        if config.distillation:
            raise UserError(f"{config.name!r} has a section distillation: it is for eapo distill")
        if config.cold_start:
            raise UserError(f"{config.name!r} has a section cold_start: it is for eapo cold-start")
        given = Parts(
            policy=policy,
            experts=experts,
            algorithm=algorithm,
            reward=reward,
            verifier=verifier,
            problems=problems,
            held_out=held_out,
        )
        given.check()
        if policy is None:
            check_trains(config, processes)
            check_plays_ahead(config)
        config = fitted_to_model(config)
        check_before_loading(config, trackers)
        if experts is None and not config.is_alone:
            config.experts.check()
        spec = LearnerSpec(
            model=config.model,
            algorithm=config.algorithm.build() if algorithm is None else algorithm,
            settings=config.learner,
            temperature=config.rollout.temperature,
            lora=LoRA.of(config.model.lora, config.seed),
        )
        spec.check_picklable(processes)
        if experts is None:
            experts = SilentExperts() if config.is_alone else config.experts.build()
        reward = config.reward.build() if reward is None else reward
        verifier = config.verifier.build() if verifier is None else verifier
        if problems is None and held_out is None:
            warn_of_foreign_evaluation(config)
        if held_out is None:
            held_out = config.evaluation.problems.load()
        problems = without(held_out, config.problems.load() if problems is None else problems)
        if given.experts is None:
            warn_of_strangers(config, problems)
        warn_of_untaught_model(config, problems)
        model, tokenizer = load_model(config.model)
        probe: SyncProbe | None = config.sync
        if policy is None:
            policy = training_policy(config, model, tokenizer, processes)
            probe = probe_of(config, processes)
        rollout = make_rollout(config, policy, experts=experts, reward=reward, verifier=verifier)
        problems = rollout.short_enough(problems)
        step = RewardStep(
            config=config,
            learner=spec.start(processes, model=model),
            rollout=rollout,
            problems=problems,
            probe=probe,
        )
        parts = Parts.of(rollout, step.learner, problems, held_out)
        return cls(
            config=config,
            step=step,
            held_out=held_out,
            trackers=trackers,
            made=parts.except_for(given),
        )

    @property
    def learner(self) -> Learner:
        """What is trained."""
        return self.step.learner

    @property
    def rollout(self) -> Rollout:
        """How the policy plays."""
        return self.step.rollout

    @property
    def problems(self) -> Sequence[Problem]:
        """What is trained on."""
        return self.step.problems

    def train(self, run: Run, on_step: OnStep = lambda step, metrics: None) -> bool:
        """Train up to the configured number of steps; return whether that number was reached.

        Resumes from the newest checkpoint in the run folder. The first Ctrl-C ends the current
        step, writes a checkpoint and returns False; a second one stops at once, as does one before
        the first step. The folder's config.json becomes this trainer's config, with the parts that
        were handed over in Python in their places.

        Args:
            on_step: called with the step and its metrics after each step, once they are recorded
                and the checkpoint, if one is due, is written. If it raises, the training ends with
                a checkpoint.

        Raises:
            UserError: the folder is in use by another process, its checkpoint is damaged, or its
                run was made with other parts or settings (`resumption.py`); the experts have not
                answered (`stop_without_experts`); an event loop runs here, as in a notebook.
        """
        check_no_loop_runs("trainer.train, run")
        with run.exclusively():
            run.adopt(self.recorded_config)
            with self._open_trackers(run) as trackers, asyncio.Runner() as runner:
                runner.get_loop().set_exception_handler(report_all_but_ctrl_c)
                progress = self._restore(run)
                trainer = replace(self, step=self.step.prepared(runner, run, progress))
                with interruption(self._waiting) as interrupted:
                    return trainer._train(run, runner, progress, trackers, on_step, interrupted)

    @cached_property
    def recorded_config(self) -> TrainConfig:
        """The config with the parts that it did not make in their places.

        It has no trackers where others were handed over.
        """
        parts = Parts.of(self.rollout, self.learner, self.problems, self.held_out)
        config = self.config if self.trackers is None else replace(self.config, trackers=())
        return parts.without(self.made).recorded_in(config)

    def _waiting(self) -> str:
        """Return what an interruption says: what is still done, and how to do without it."""
        number, seconds = self.rollout.monitor.waiting
        awaited = f" (waiting for {number} expert replies, {seconds:.0f} s)" if number else ""
        return f"finishing this step{awaited}; Ctrl-C again stops at once"

    def close(self) -> None:
        """Free what the policy holds, such as an engine."""
        self.rollout.policy.close()

    async def evaluate(self, on_attempts: OnAttempts = lambda attempts: None) -> Report:
        """Return the report of the current policy, alone, on the held-out problems."""
        player = replace(self.rollout, truncation=self.config.evaluation.truncation)
        return await evaluate_alone(self.config, player, self.held_out, on_attempts=on_attempts)

    def _train(
        self,
        run: Run,
        runner: asyncio.Runner,
        progress: Progress,
        trackers: Sequence[Tracker],
        on_step: OnStep,
        interrupted: Callable[[], bool],
    ) -> bool:
        stopping, silent_steps, idle_steps = False, 0, 0
        if self._baseline_is_due(run, progress):
            with run.annotate_errors(progress.step):
                self._record_baseline(runner, run, trackers)
            stopping = self.learner.processes.any_interrupted(interrupted())
        while progress.step < self.config.steps and not stopping:
            with run.annotate_errors(progress.step + 1):
                result = self.step.take(runner, progress)
                progress, step = result.progress, result.progress.step
                silent = experts_are_silent(step, result.sampled, self.config.expert_alarm)
                silent_steps = silent_steps + 1 if silent else 0
                ends = step in (1, self.config.steps)
                shown = silent or ends or step % self.config.transcripts_every == 0
                if result.sampled and shown:
                    self._record_episodes(run, step, result.sampled)
                every = self.config.evaluation.every
                evaluated = step == self.config.steps or (every and step % every == 0)
                found = self._evaluation_metrics(runner, run, step) if evaluated else {}
                metrics = result.metrics | found
                run.record(step, metrics)
                idle_steps = idle_steps + 1 if metrics.get("groups_kept") == 0 else 0
                if idle_steps and idle_steps % self.config.standstill_alarm == 0:
                    warn_of_standstill(step, metrics, idle_steps)
                last = step == self.config.steps
                alone = not last and silent_steps == self.config.stop_without_experts
                stopping = alone or last
                due = stopping or step % self.config.checkpoint_every == 0
                if due:
                    self._save(run, progress)
                try:
                    for tracker in trackers:
                        tracker.log(step, metrics)
                    on_step(step, metrics)
                    stopping |= self.learner.processes.any_interrupted(interrupted())
                except Exception:
                    stopping = True
                    raise
                finally:
                    if stopping and not due:
                        self._save(run, progress)
                if alone:
                    raise UserError(f"the experts have not answered for {silent_steps} steps")
        finished = progress.step >= self.config.steps
        if stopping or (finished and not run.has_finished(progress.step)):
            run.record_event("finished" if finished else "interrupted", progress.step)
        return finished

    def _record_episodes(self, run: Run, step: int, sampled: Sampled) -> None:
        advantages = self.learner.advantages if sampled.kept else ()
        run.record_latencies(step, latency_rows(sampled))  # first: who sees transcripts sees them
        run.record_transcripts(step, transcript_rows(sampled, advantages))

    def _baseline_is_due(self, run: Run, progress: Progress) -> bool:
        """Return whether the model is to be evaluated as it was given, and has not been yet."""
        wanted = self.config.evaluation.baseline == "evaluated"
        return wanted and progress.step == 0 and not any(row["step"] == 0 for row in run.metrics)

    def _record_baseline(
        self, runner: asyncio.Runner, run: Run, trackers: Sequence[Tracker]
    ) -> None:
        """Evaluate before the first step; the metrics of step 0 are those of the evaluation."""
        metrics = self._evaluation_metrics(runner, run, 0)
        run.record(0, metrics)
        for tracker in trackers:
            tracker.log(0, metrics)

    def _evaluation_metrics(self, runner: asyncio.Runner, run: Run, step: int) -> dict[str, float]:
        """Evaluate after a step; return the metrics of it."""
        before = self.step.before_evaluation(runner)
        kept: list[Graded] = []
        start = time.perf_counter()
        report = runner.run(self.evaluate(lambda attempts: kept.append(attempts[0])))
        run.record_evaluated(step, evaluation_rows(kept, report.problem_ids))
        run.record_evaluation(step, asdict(report))
        found = {f"alone/{name}": number for name, number in report.metrics().items()}
        return found | before | {"seconds/evaluation": time.perf_counter() - start}

    @contextmanager
    def _open_trackers(self, run: Run) -> Iterator[Sequence[Tracker]]:
        with ExitStack() as stack:
            trackers = self.trackers
            if trackers is None:
                trackers = [settings.build(run.folder) for settings in self.config.trackers]
            for tracker in trackers:
                stack.callback(tracker.close)
            yield trackers

    def _save(self, run: Run, progress: Progress) -> None:
        def write(folder: Path) -> None:
            self.learner.save(folder)
            self.rollout.policy.tokenizer.save_pretrained(folder)
            self.step.write_progress(folder, progress)

        run.save(progress.step, write)

    def _restore(self, run: Run) -> Progress:
        checkpoints, has_begun = run.checkpoints, run.has_begun
        progress = Progress()
        if checkpoints:
            newest = checkpoints[-1]
            try:
                self.learner.load(newest)
                progress = self.step.read_progress(newest)
            except UserError as error:
                before = "the one before" if len(checkpoints) > 1 else "step 0"
                raise UserError(
                    f"the checkpoint {newest} is damaged ({error}); delete it to resume from"
                    f" {before}"
                ) from error
        elif self.learner.step:
            raise UserError(
                f"this trainer has trained already, and {run.folder} starts from step 0: make"
                " another trainer"
            )
        superseded = run.rewind(progress.step)
        if superseded and not checkpoints:
            _LOG.warning(
                "%s has no checkpoint: it starts from step 0, and the records of its %d steps are"
                " now in %s",
                run.folder,
                superseded,
                run.folder / "superseded",
            )
        if progress.step < self.config.steps and has_begun:
            run.record_event("resumed", progress.step, superseded=superseded)
        elif progress.step < self.config.steps:
            run.record_event("started", progress.step)
        return progress
