"""[edge] EAPO inside TRL: what its `GRPOTrainer` takes as `rollout_func`, reward and data (1.16).

TRL owns the model, the loss and the optimiser; it asks for the episodes of a batch and learns from
their ids, mask and rewards. Its prompts only name the problems: the text that the policy reads is
made here.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self
from zlib import crc32

import numpy as np

from eapo_agents.policies import HFPolicy, Policy
from eapo_agents.rollouts import Group, Rollout, Sampled, Trajectory, derive_seed, gather
from eapo_agents.training import (
    ScheduledRollout,
    TrainConfig,
    fitted_to_model,
    make_rollout,
    step_metrics,
    without,
)
from eapo_env.experts import ExpertPool
from eapo_env.guarded_experts import ExpertMonitor
from eapo_env.reward import Reward
from eapo_env.spending import budget_of
from eapo_env.types import Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import GRPOTrainer

_TRAINING_BATCH = (
    "per_device_train_batch_size times steps_per_generation must be a multiple of num_generations"
)
_EVALUATION_BATCH = "per_device_eval_batch_size must be a multiple of num_generations_eval"
_SHARDED = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP")


def own_policy(trainer: GRPOTrainer) -> Policy:
    """Return a policy that samples from the module that the trainer updates.

    Raises:
        UserError: TRL samples with vLLM, or the module is sharded.
    """
    if trainer.use_vllm:
        raise UserError("use_vllm=True: EapoRollouts samples from the trained module; use False")
    kind = str(trainer.accelerator.distributed_type.value)
    if kind in _SHARDED:
        raise UserError(f"a module sharded by {kind} cannot sample: EapoRollouts needs it whole")
    return HFPolicy(trainer.accelerator.unwrap_model(trainer.model), trainer.processing_class)


@dataclass(frozen=True, kw_only=True, eq=False)
class EapoRollouts:
    """The `rollout_func` of a `trl.GRPOTrainer` that plays EAPO episodes, with data and reward.

    All episodes of a call are played at the same time, so their experts overlap. In training the
    experts are withdrawn by the trainer's global step, over its `max_steps` unless
    `annealing.steps` is set; in evaluation there are none. Groups without right and wrong answers
    are replaced by those of further problems, as `rollout.sampling` says (DAPO's dynamic sampling,
    which TRL lacks); what is then missing is filled up with groups that teach nothing.

    Group size, temperature and number of steps are the trainer's, and so are the algorithm and the
    learning rate. In a notebook, `await asyncio.to_thread(trainer.train)`.

    Args:
        config: the annealing, rollout, reward and evaluation.
        problems: what is trained on.
        held_out: what is evaluated on.
        experts: the pool that is consulted.
        verifier: the grader.
        reward: what an episode earns.
        policy: makes the policy of a trainer.

    Raises:
        UserError: a setting that needs our own trainer.
    """

    config: TrainConfig
    problems: Sequence[Problem]
    held_out: Sequence[Problem]
    experts: ExpertPool
    verifier: Grader
    reward: Reward
    policy: Callable[[GRPOTrainer], Policy] = own_policy
    _short: list[Problem] = field(default_factory=list, init=False, repr=False)
    _monitor: ExpertMonitor = field(default_factory=ExpertMonitor, init=False, repr=False)
    _runner: asyncio.Runner = field(default_factory=asyncio.Runner, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.config.annealing.schedule == "ours_by_success":
            raise UserError("annealing.schedule=ours_by_success needs evaluations by eapo train")
        if self.config.rollout.sampling.surplus == "carry":
            raise UserError("rollout.sampling.surplus=carry needs eapo train; use discard")
        if self.config.rollout.steps_ahead:
            raise UserError("rollout.steps_ahead=1 needs eapo train; use 0")

    @classmethod
    def from_config(
        cls,
        config: TrainConfig,
        *,
        experts: ExpertPool | None = None,
        verifier: Grader | None = None,
        reward: Reward | None = None,
        problems: Sequence[Problem] | None = None,
        held_out: Sequence[Problem] | None = None,
        policy: Callable[[GRPOTrainer], Policy] = own_policy,
    ) -> Self:
        """Return what a config describes; each argument replaces one of its parts.

        Raises:
            UserError: a bad setting, servers that are not there, problems that cannot be read.
        """
        config = fitted_to_model(config)
        if experts is None:
            config.experts.check()
        held_out = config.evaluation.problems.load() if held_out is None else held_out
        problems = config.problems.load() if problems is None else problems
        return cls(
            config=config,
            problems=without(held_out, problems),
            held_out=held_out,
            experts=config.experts.build() if experts is None else experts,
            verifier=config.verifier.build() if verifier is None else verifier,
            reward=config.reward.build() if reward is None else reward,
            policy=policy,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connections of the experts."""
        self._runner.close()

    @property
    def train_dataset(self) -> Dataset:
        """The trainer's `train_dataset`."""
        return _dataset(self._train)

    @property
    def eval_dataset(self) -> Dataset:
        """The trainer's `eval_dataset`."""
        return _dataset(self._held_out)

    def __call__(self, prompts: Sequence[str], trainer: GRPOTrainer) -> dict[str, Any]:
        """Return the episodes of a batch as TRL reads them, in the order of the prompts.

        Each entry is the ids up to the first that the policy sampled (`prompt_ids`), the rest of
        them (`completion_ids`), their log-probabilities (`logprobs`) and which of them the policy
        sampled (`env_mask`); beside them the `trajectory`, and how the batch was `sampled`, for
        reward functions.

        Args:
            prompts: of this process, each problem's in a block of its own.

        Raises:
            UserError: a block that straddles two processes, an unknown prompt, or a problem whose
                opening prompt leaves the policy no room.
        """
        training = bool(trainer.model.training)
        size = trainer.num_generations if training else trainer.num_generations_eval
        known = self._train if training else self._held_out
        needed = _TRAINING_BATCH if training else _EVALUATION_BATCH
        problems = [_found(prompt, known) for prompt in _blocks(prompts, size, needed)]
        with closing(self.policy(trainer)) as policy:
            play = self._play_batch if training else self._play_evaluation
            groups, sampled = self._runner.run(play(problems, size, trainer, policy))
        return _as_trl_reads([t for group in groups for t in group.trajectories], sampled)

    def eapo_reward(
        self,
        prompts: Sequence[str],
        completions: Sequence[object],
        trajectory: Sequence[Trajectory],
        sampled: Sequence[Sampled],
        log_metric: Callable[[str, float], None],
        **row: object,
    ) -> list[float]:
        """Return each episode's reward, and log the metrics of the batch: TRL's reward function."""
        budget = budget_of(self.experts).metrics()
        found = step_metrics(sampled[0]) | self._monitor.metrics() | budget
        for name, value in found.items():
            log_metric(f"eapo/{name}", value)
        return [one.reward for one in trajectory]

    @cached_property
    def _train(self) -> dict[str, Problem]:
        return _by_prompt(self.problems)

    @cached_property
    def _held_out(self) -> dict[str, Problem]:
        return _by_prompt(self.held_out)

    def _scheduled(self, trainer: GRPOTrainer, size: int, policy: Policy) -> ScheduledRollout:
        """Return the rollout of a batch: the config's, with what the trainer decides."""
        rollout = replace(self.config.rollout, group_size=size, temperature=trainer.temperature)
        config = replace(self.config, rollout=rollout, steps=max(trainer.state.max_steps, 1))
        player = make_rollout(
            config, policy, experts=self.experts, reward=self.reward, verifier=self.verifier
        )
        return ScheduledRollout(config=config, rollout=replace(player, monitor=self._monitor))

    def _short_enough(self, rollout: Rollout) -> Sequence[Problem]:
        """Return the problems that are trained on: known with the first policy's tokenizer."""
        if not self._short:
            self._short.extend(rollout.short_enough(self.problems))
        return self._short

    async def _play_batch(
        self, problems: Sequence[Problem], size: int, trainer: GRPOTrainer, policy: Policy
    ) -> tuple[Sequence[Group], Sampled]:
        """Play the problems' groups; further ones where they lack signal or are too long."""
        scheduled, wanted = self._scheduled(trainer, size, policy), len(problems)
        rank, step = trainer.accelerator.process_index, trainer.state.global_step + 1
        sampling, short = self.config.rollout.sampling, self._short_enough(scheduled.rollout)
        fits = frozenset(short)

        async def play(number: int) -> Group:
            if number < wanted:
                seed = derive_seed(self.config.seed, 1, step, rank * wanted + number)
            else:
                seed = derive_seed(self.config.seed, 3, step, rank, number)
            if number < wanted and problems[number] in fits:
                problem = problems[number]
            else:
                problem = short[int(np.random.default_rng(seed).integers(len(short)))]
            return await scheduled.play_group(problem, step=step, seed=seed)

        a_round = math.ceil(wanted * sampling.problems_per_round / sampling.groups_per_step)
        sampling = replace(
            sampling, groups_per_step=wanted, problems_per_round=max(wanted, a_round)
        )
        sampled = await sampling.sample(play, 0)
        return filled(sampled, wanted), sampled

    async def _play_evaluation(
        self, problems: Sequence[Problem], size: int, trainer: GRPOTrainer, policy: Policy
    ) -> tuple[Sequence[Group], Sampled]:
        """Play the problems' groups alone."""
        scheduled = self._scheduled(trainer, size, policy)
        rollout = replace(scheduled.rollout, truncation=self.config.evaluation.truncation)
        groups = await gather(
            rollout.play_group(
                problem,
                [Rules.alone()] * size,
                seed=derive_seed(self.config.evaluation_seed, crc32(problem.statement.encode())),
            )
            for problem in problems
        )
        return groups, Sampled(kept=tuple(groups), played=tuple(groups))


def _dataset(problems: Mapping[str, Problem]) -> Dataset:
    from datasets import Dataset

    return Dataset.from_dict({"prompt": list(problems)})


def _by_prompt(problems: Sequence[Problem]) -> dict[str, Problem]:
    """Return the problems by what TRL knows of them, which no two share."""
    return {f"{number}: {one.statement}": one for number, one in enumerate(problems)}


def _found(prompt: object, known: Mapping[str, Problem]) -> Problem:
    if isinstance(prompt, str) and prompt in known:
        return known[prompt]
    raise UserError(
        f"{prompt!r:.80} is none of the prompts of EapoRollouts: train on its train_dataset and"
        " evaluate on its eval_dataset"
    )


def _blocks(prompts: Sequence[str], size: int, needed: str) -> Sequence[str]:
    """Return each block's prompt.

    Raises:
        UserError: blocks of another size: a group's episodes are in two processes. It says what is
            `needed`.
    """
    if len(prompts) % size or any(
        len(set(prompts[first : first + size])) > 1 for first in range(0, len(prompts), size)
    ):
        raise UserError(
            f"a process got {len(prompts)} prompts, not whole groups of {size}: {needed}"
        )
    return prompts[::size]


def filled(sampled: Sampled, wanted: int) -> Sequence[Group]:
    """Return `wanted` groups: the first ones, replaced by later kept ones where not kept."""
    kept = {id(group) for group in sampled.kept}
    spare = [group for group in sampled.played[wanted:] if id(group) in kept]
    return [
        group if id(group) in kept or not spare else spare.pop(0)
        for group in sampled.played[:wanted]
    ]


def _as_trl_reads(trajectories: Sequence[Trajectory], sampled: Sampled) -> dict[str, Any]:
    firsts = [_first_sampled(trajectory) for trajectory in trajectories]
    cut = list(zip(trajectories, firsts, strict=True))
    return {
        "prompt_ids": [one.token_ids[:first].tolist() for one, first in cut],
        "completion_ids": [one.token_ids[first:].tolist() for one, first in cut],
        "logprobs": [one.logprobs[first:].tolist() for one, first in cut],
        "env_mask": [one.mask[first:].astype(int).tolist() for one, first in cut],
        "trajectory": list(trajectories),
        "sampled": sampled,
    }


def _first_sampled(trajectory: Trajectory) -> int:
    if not trajectory.num_policy_tokens:
        problem = trajectory.episode.problem
        raise UserError(f"the prompt of problem {problem.id!r} leaves no room for a completion")
    return int(trajectory.mask.argmax())
