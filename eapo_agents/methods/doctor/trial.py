"""[edge] What the doctor finds by playing and learning: trial episodes, and the time of a run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from eapo_agents.evaluation import episode_row, two_examples
from eapo_agents.learning import (
    SINGLE_PROCESS,
    Learner,
    LearnerSpec,
    LoRA,
    check_layout,
    check_sampler,
    check_saves,
)
from eapo_agents.methods.doctor.estimates import RunTime, Speed, Timed
from eapo_agents.methods.doctor.finding import Finding, Findings
from eapo_agents.policies import Engine, HFEngine, Policy, VLLMEngine, VLLMServerEngine
from eapo_agents.rollouts import Demonstration, Group, Rollout, Trajectory, derive_seed, gather
from eapo_agents.training import ScheduledRollout, TrainConfig, peak_memory_mib
from eapo_env.actions import Consult
from eapo_env.types import Problem, Rules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NUM_TRIALS = 8
"""Trial episodes."""

_MANY = 0.5
"""The share of trials from which a fault is pointed out."""
_TIMING_S = 20.0
"""Larger numbers of episodes are timed until this has passed."""
_ROWS_OF_A_SERVER = 256
"""What one of `eapo serve-policy` decodes together, by default."""


def trial_finding(played: Sequence[Trajectory]) -> Finding:
    """Return what trial episodes were worth, with one of them."""
    episodes = [one.episode for one in played]
    turns = max(1, sum(episode.turn for episode in episodes))
    malformed = sum(episode.num_malformed for episode in episodes) / turns
    shares = {
        "consulted": _share([bool(_consultations(one)) for one in played]),
        "answered": _share([one.status != "no_answer" for one in played]),
        "right": _share([one.correct for one in played]),
        "cut by a limit": _share(
            [bool(e.stop_reason and e.stop_reason.truncated) for e in episodes]
        ),
    }
    said = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
    text = f"{len(played)} episodes: {said}; malformed turns {malformed:.2f}"
    [example, *_] = two_examples([episode_row(one) for one in played])
    unformed = malformed > _MANY or shares["answered"] < _MANY
    if shares["cut by a limit"] > _MANY:
        text += (
            ". Raise rollout.limits.max_response_tokens, above all for a model that reasons, or"
            " teach a shorter format: eapo cold-start"
        )
    elif unformed:
        text += ". Teach the format first: eapo cold-start"
    troubled = unformed or shares["right"] == 0 or shares["cut by a limit"] > _MANY
    return Finding(part="trial", text=text, verdict="look" if troubled else "good", episode=example)


def _consultations(trajectory: Trajectory) -> list[Consult]:
    return [one for one in trajectory.episode.actions if isinstance(one, Consult)]


async def play_trial(
    config: TrainConfig, rollout: Rollout, problems: Sequence[Problem]
) -> list[Trajectory]:
    """Return the trial episodes, by the rules of the first step."""
    rules = config.schedule.rules_at(1)
    chosen = [problems[number % len(problems)] for number in range(NUM_TRIALS)]
    return await gather(
        rollout.play(problem, rules, seed=seed) for seed, problem in enumerate(chosen)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast groups are played: measured of growing numbers of them, up to a round.

    Args:
        timed: the measurements, in order.
        speed: of the episodes of a first step.
        alone: of those of an evaluation.
        groups: that were played last.
    """

    timed: Sequence[Timed]
    speed: Speed
    alone: Speed
    groups: Sequence[Group]

    @property
    def finding(self) -> Finding:
        """The tokens a second of the last measurement."""
        last = self.timed[-1]
        tokens = sum(group.num_policy_tokens for group in self.groups)
        return Finding(
            part="sampling",
            text=f"{tokens / last.seconds:.0f} tokens a second, {last.episodes} episodes at a time",
        )


async def measure_pace(config: TrainConfig, rollout: Rollout, problems: Sequence[Problem]) -> Pace:
    """Time 1, 2, 4, ... groups until they are a round, or two of them have taken long enough."""
    scheduled, size = ScheduledRollout(config=config, rollout=rollout), config.rollout.group_size
    a_round, timed, number = config.rollout.sampling.problems_per_round, list[Timed](), 1
    while True:
        seeds = [derive_seed(config.seed, 1, index) for index in range(number)]
        start = time.perf_counter()
        groups = await gather(
            scheduled.play_group(problems[index % len(problems)], step=1, seed=seed)
            for index, seed in enumerate(seeds)
        )
        timed.append(Timed(episodes=number * size, seconds=time.perf_counter() - start))
        spent_s = sum(one.seconds for one in timed)
        if number == a_round or (len(timed) > 1 and spent_s > _TIMING_S):
            break
        number = min(2 * number, a_round)
    start = time.perf_counter()
    alone = replace(rollout, truncation=config.evaluation.truncation)
    await gather(
        alone.play_group(group.problem, [Rules.alone()] * size, seed=seed)
        for group, seed in zip(groups, seeds, strict=True)
    )
    factor = (time.perf_counter() - start) / timed[-1].seconds
    tokens = [one.num_policy_tokens for group in groups for one in group.trajectories]
    speed = Speed.measured(
        timed,
        at_once=_rows_at_once(config.engine),
        mean_length=sum(tokens) / len(tokens) / max(tokens),
    )
    return Pace(timed=timed, speed=speed, alone=speed.times(factor), groups=groups)


def _rows_at_once(engine: Engine) -> int | None:
    """Return how many episodes an engine decodes together; None if it does not say."""
    match engine:
        case HFEngine(max_batch=number) | VLLMEngine(max_batch=number):
            return number
        case VLLMServerEngine(base_urls=urls):
            return _ROWS_OF_A_SERVER * len(urls)
        case _:
            return None


def learner_of(config: TrainConfig, model: PreTrainedModel) -> Learner:
    """Return the learner of a model, in this process."""
    spec = LearnerSpec(
        model=config.model,
        algorithm=config.algorithm.build(),
        settings=config.learner,
        temperature=config.rollout.temperature,
        lora=LoRA.of(config.model.lora, config.seed),
    )
    return spec.start(SINGLE_PROCESS, model=model)


def check_findings(
    config: TrainConfig, learner: Learner, policy: Policy, runner: asyncio.Runner
) -> Iterator[Finding]:
    """Yield the check that a training makes before its first step."""
    check_saves(learner)
    layout = check_layout(learner)
    sampler = runner.run(check_sampler(policy, learner, config.learner.rounding))
    yield Finding(
        part="check",
        text=f"sampler and learner agree to {sampler:.1e} nats a token, layout"
        f" {config.learner.layout} to {layout:.1e}",
    )


def time_update(
    config: TrainConfig, learner: Learner, trial: Sequence[Trajectory], groups: Sequence[Group]
) -> Findings[float]:
    """Yield the cost of an update on groups; return the seconds of that of a step.

    One that imitates the trial episodes at a learning rate of 0 comes first: it takes memory, loads
    what is loaded on first use, and says how many groups take long enough.
    """
    start = time.perf_counter()
    records = [Demonstration(token_ids=one.token_ids, mask=one.mask) for one in trial]
    learner.sft_update(records, learning_rate=0.0)
    first_s = time.perf_counter() - start
    affordable = int(_TIMING_S * len(trial) / (first_s * config.rollout.group_size))
    wanted = config.rollout.sampling.groups_per_step
    chosen = groups[: max(1, min(wanted, affordable))]
    start = time.perf_counter()
    learner.update(chosen)
    seconds = time.perf_counter() - start
    played = [one for group in chosen for one in group.trajectories]
    tokens = sum(one.num_tokens for one in played)
    yield Finding(
        part="update",
        text=f"{tokens / seconds:.0f} tokens a second; {peak_memory_mib() / 1024:.1f} GiB at its"
        f" peak with {len(played)} episodes of {tokens / len(played):.0f} tokens"
        f" (micro-batches have up to {config.learner.max_batch_tokens})",
    )
    return seconds * wanted / len(chosen)


def run_finding(config: TrainConfig, pace: Pace, update_s: float, num_held_out: int) -> Finding:
    """Return how long the run would take, and what that assumes."""
    rollout, evaluation = config.rollout, config.evaluation
    played = rollout.sampling.problems_per_round * rollout.group_size
    times = evaluation.every and config.steps // evaluation.every
    last = not evaluation.every or config.steps % evaluation.every > 0
    evaluations = times + last + (evaluation.baseline == "evaluated")
    run_time = RunTime(
        steps=config.steps,
        round_s=pace.speed.seconds(played),
        max_rounds=rollout.sampling.max_rounds,
        update_s=update_s,
        evaluations=evaluations,
        evaluation_s=pace.alone.seconds(num_held_out * evaluation.samples_per_problem),
    )
    learned = rollout.sampling.groups_per_step * rollout.group_size
    return Finding(part="run", text=f"{run_time.told(played, learned)}; {_assumed(pace, played)}")


def _assumed(pace: Pace, played: int) -> str:
    sizes = [one.episodes for one in pace.timed][-2:]
    measured = f"measured with {sizes[-1]} episodes at a time"
    if sizes[-1] < played:
        measured = f"on a line through {' and '.join(map(str, sizes))} episodes at a time"
    return f"assumed: each step as the first, {measured}"


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values)
