"""The training loop: play with the current policy, learn, hand over the weights, record.

Everything drawn at random is a function of the run's seed, the training step and the problem's
number, so a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

import numpy as np

from eapo_agents.config import TrainConfig
from eapo_agents.dynamic_sampling import Sampled
from eapo_agents.evaluate import Player, Report, evaluate
from eapo_agents.hf_policy import HFPolicy
from eapo_agents.learner import Learner
from eapo_agents.models import load_model
from eapo_agents.policy import Policy
from eapo_agents.rollout import Rollout, derive_seed
from eapo_agents.run import Run
from eapo_agents.summary import step_metrics, transcript_rows
from eapo_agents.trajectory import Group
from eapo_env.types import Problem
from eapo_env.verifier import Verifier

OnStep = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True, kw_only=True)
class Trainer:
    """A policy, its learner, and what they train on; `from_config` makes all of it.

    Any part can be replaced before training: `replace(trainer, rollout=replace(trainer.rollout,
    experts=mine))`.
    """

    config: TrainConfig
    learner: Learner
    rollout: Rollout
    problems: Sequence[Problem]
    held_out: Sequence[Problem]

    @classmethod
    def from_config(cls, config: TrainConfig) -> Trainer:
        """Return the trainer that a config describes.

        Problems that are held out for evaluation are left out of training.

        Raises:
            ValueError: a setting that names nothing, or problems that cannot be read.
        """
        if config.learner.temperature != config.rollout.temperature:
            raise ValueError(
                f"learner.temperature is {config.learner.temperature}, but the sampler's,"
                f" rollout.temperature, {config.rollout.temperature}: they must be equal"
            )
        if config.model.api.base_url:
            raise ValueError(
                f"model.api.base_url is {config.model.api.base_url!r}: a model behind a server can"
                " be evaluated, not trained"
            )
        held_out = config.evaluation.problems.load()
        model, tokenizer = load_model(config.model)
        policy = HFPolicy(model, tokenizer, max_batch=config.model.max_batch)
        return cls(
            config=config,
            learner=Learner(model, settings=config.learner, algorithm=config.chosen_algorithm),
            rollout=make_rollout(config, policy),
            problems=_without(held_out, config.problems.load()),
            held_out=held_out,
        )

    def train(self, run: Run, on_step: OnStep = lambda step, metrics: None) -> bool:
        """Train up to the configured number of steps; return whether it got there.

        Goes on from the newest checkpoint in the run folder. The first Ctrl-C ends the current
        step, writes a checkpoint and returns False; a second one stops at once.
        """
        step, cursor = self._restore(run)
        stopping = False
        with closing(run), asyncio.Runner() as runner, interruption() as interrupted:
            while step < self.config.steps and not stopping:
                metrics, sampled = self._step(runner, step, cursor)
                step, cursor = step + 1, cursor + len(sampled.played)
                metrics |= self._periodic(runner, run, step, sampled)
                run.record(step, metrics)
                on_step(step, metrics)
                stopping = interrupted() or step == self.config.steps
                if stopping or step % self.config.checkpoint_every == 0:
                    self._save(run, step, cursor)
        return step >= self.config.steps

    async def evaluate(self) -> Report:
        """Return the report of the current policy, alone, on the held-out problems."""
        return await evaluate_alone(self.config, self.rollout, self.held_out)

    def _step(
        self, runner: asyncio.Runner, step: int, cursor: int
    ) -> tuple[dict[str, float], Sampled]:
        start = time.perf_counter()
        sampling = self.config.rollout.sampling
        sampled = runner.run(sampling.sample(partial(self._play, step), cursor))
        played = time.perf_counter()
        update = self.learner.update(sampled.kept) if sampled.kept else {}
        self.rollout.policy.load_weights(self.learner.model.state_dict())
        learned = time.perf_counter()
        metrics = step_metrics(sampled) | {
            "acceptance_rate": self.config.annealing.acceptance_rate_at(step),
            "turn_budget": self.config.annealing.turn_budget_at(step),
            **update,
            "seconds/rollout": played - start,
            "seconds/update": learned - played,
        }
        return metrics, sampled

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
        report = runner.run(self.evaluate())
        run.record_evaluation(step, asdict(report))
        return {f"alone/{name}": number for name, number in report.metrics().items()}

    def _save(self, run: Run, step: int, cursor: int) -> None:
        def write(folder: Path) -> None:
            self.learner.save(folder)
            self.rollout.policy.tokenizer.save_pretrained(folder)
            state = {"step": step, "cursor": cursor}
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

        run.save(step, write)

    def _restore(self, run: Run) -> tuple[int, int]:
        checkpoints = run.checkpoints
        if not checkpoints:
            run.rewind(0)
            return 0, 0
        newest = checkpoints[-1]
        try:
            self.learner.load(newest)
            state = json.loads((newest / "state.json").read_text(encoding="utf-8"))
            step, cursor = int(state["step"]), int(state["cursor"])
        except (ValueError, OSError, KeyError) as error:
            raise ValueError(
                f"the checkpoint {newest} is damaged ({error}); delete it to go on from the one"
                " before"
            ) from error
        self.rollout.policy.load_weights(self.learner.model.state_dict())
        run.rewind(step)
        return step, cursor


def make_rollout(config: TrainConfig, policy: Policy) -> Rollout:
    """Return the rollout that a config describes, around a policy."""
    return Rollout(
        policy=policy,
        experts=config.experts.pool(),
        verifier=Verifier(),
        reward=config.reward,
        prompts=config.rollout.prompts,
        limits=config.rollout.limits,
        temperature=config.rollout.temperature,
    )


async def evaluate_alone(
    config: TrainConfig, player: Player, problems: Sequence[Problem]
) -> Report:
    """Return the report that a config asks for; the same weights always give the same one."""
    return await evaluate(
        player,
        problems,
        samples_per_problem=config.evaluation.samples_per_problem,
        seed=derive_seed(config.seed, 2),
    )


def _without(held_out: Sequence[Problem], problems: Sequence[Problem]) -> Sequence[Problem]:
    statements = {problem.statement for problem in held_out}
    rest = [problem for problem in problems if problem.statement not in statements]
    if not rest:
        raise ValueError(f"all {len(problems)} problems are held out: none is left to train on")
    return rest


@contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Yield a function that tells whether Ctrl-C or SIGTERM came; a second one acts at once.

    Signals reach the main thread only: in another one, nothing ever came.
    """
    came = False
    wanted = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.signal(number, before[number])

    before: dict[int, Any] = {}
    try:
        for number in map(int, wanted):
            before[number] = signal.signal(number, note)
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
