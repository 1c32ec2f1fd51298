"""Problems -> groups: episodes played with the current policy, one coroutine each.

Nobody waits for the slowest: an episode that waits for an expert leaves the policy to the others,
and the policy batches whatever is waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np

from eapo_agents.policies import (
    NO_TRUNCATION,
    Chat,
    Completion,
    Policy,
    Sampling,
    TokenHistory,
    Truncation,
    cut_tokens,
)
from eapo_agents.rollouts.expert_monitor import ExpertMonitor
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_env.acceptance import queries_to_ask, replies_in_slots
from eapo_env.actions import CONSULT_CLOSE, Malformed
from eapo_env.episode import Episode, act, begin, receive, truncate
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts
from eapo_env.reward import RewardRule
from eapo_env.types import ExpertReply, Gate, Problem, Reply, Rules, StopReason
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """How many tokens an episode may hold (paper, Table 5).

    Args:
        max_prompt_tokens: problems whose opening prompt is longer are not trained on.
        max_response_tokens: what the policy may write over all its turns.
        max_reply_tokens: one expert reply is cut there, visibly.

    Raises:
        UserError: a limit below 1.
    """

    max_prompt_tokens: int = 2_048
    max_response_tokens: int = 20_480
    max_reply_tokens: int = 2_048

    def __post_init__(self) -> None:
        for name in ("max_prompt_tokens", "max_response_tokens", "max_reply_tokens"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """Everything an episode meets besides its problem, its rules and its luck."""

    policy: Policy
    experts: ExpertPool
    verifier: Verifier
    reward: RewardRule = RewardRule()
    prompts: Prompts = Prompts()
    limits: TokenLimits = TokenLimits()
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    gate: Gate = "pre"
    watch: ExpertMonitor = field(default_factory=ExpertMonitor)

    async def play(self, problem: Problem, rules: Rules, *, seed: int) -> Trajectory:
        """Return the trajectory of one episode; the seed decides the gate and the sampling."""
        rng = np.random.default_rng(seed)  # the gate's, as in the environment
        episode = begin(problem, rules, self.prompts, seed=seed)
        history = TokenHistory.open(episode.messages, self._chat)
        while not episode.stop_reason:
            room = self._room(history)
            if room < 1:
                episode = truncate(episode, StopReason.LENGTH)
                break
            sampling = self._sampling(rules, room)
            completion = await self.policy.complete(
                history.token_ids, sampling, derive_seed(seed, 1, episode.turn)
            )
            history = history.sampled(completion)
            episode = await self._advance(episode, completion, rng)
            if not episode.stop_reason:
                history = history.extend(episode.messages[-1], self._chat)
        return await self._trajectory(episode, history)

    async def play_group(self, problem: Problem, rules_G: Sequence[Rules], *, seed: int) -> Group:
        """Return the trajectories of one problem, one per member's rules."""
        members = await gather(
            self.play(problem, rules, seed=derive_seed(seed, member))
            for member, rules in enumerate(rules_G)
        )
        return Group(problem=problem, trajectories=tuple(members))

    def short_enough(self, problems: Sequence[Problem]) -> Sequence[Problem]:
        """Return the problems whose opening prompt, with experts, is within the limits.

        Raises:
            UserError: none is.
        """
        limit = self.limits.max_prompt_tokens
        short = [problem for problem in problems if self._prompt_tokens(problem) <= limit]
        if not short:
            raise UserError(f"none of {len(problems)} prompts is within {limit} tokens")
        return short

    def _prompt_tokens(self, problem: Problem) -> int:
        return len(self._chat.opening([self.prompts.opening(problem, Rules())]))

    @cached_property
    def _chat(self) -> Chat:
        return Chat(self.policy.tokenizer)

    def _room(self, history: TokenHistory) -> int:
        return min(
            self.limits.max_response_tokens - history.num_policy_tokens,
            self.policy.max_context_tokens - len(history.token_ids),
        )

    def _sampling(self, rules: Rules, room: int) -> Sampling:
        stop = () if rules.is_alone else (CONSULT_CLOSE,)
        return Sampling(
            max_tokens=room, temperature=self.temperature, truncation=self.truncation, stop=stop
        )

    async def _advance(
        self, episode: Episode, completion: Completion, rng: np.random.Generator
    ) -> Episode:
        text = self._chat.text(completion.token_ids)
        after = act(episode, text, rng)
        if completion.finish == "length" and isinstance(after.actions[-1], Malformed):
            return truncate(episode, StopReason.LENGTH, text)
        return await self._consult(after)

    async def _consult(self, episode: Episode) -> Episode:
        pending = episode.pending
        if pending is None:
            return episode
        queries = queries_to_ask(pending, self.gate)
        replies = await self.watch.ask(self.experts, queries) if queries else ()
        slots = replies_in_slots(pending, self.gate, [self._cut(reply) for reply in replies])
        return receive(episode, slots)

    def _cut(self, reply: ExpertReply) -> ExpertReply:
        match reply:
            case Reply(text=text):
                limit = self.limits.max_reply_tokens
                return replace(reply, text=cut_tokens(text, self.policy.tokenizer, limit))
            case _:
                return reply

    async def _trajectory(self, episode: Episode, history: TokenHistory) -> Trajectory:
        status = Status.NO_ANSWER
        if episode.stop_reason is StopReason.ANSWERED:
            pair = (episode.response, episode.problem.answer)
            status = (await self.verifier.averify([pair]))[0].status
        correct = status is Status.CORRECT
        return Trajectory(
            token_ids=np.asarray(history.token_ids, dtype=np.int32),
            mask=np.asarray(history.mask, dtype=np.bool_),
            logprobs=np.asarray(history.logprobs, dtype=np.float32),
            reward=self.reward.reward(episode, correct, history.num_policy_tokens),
            status=str(status),
            correct=correct,
            episode=episode,
        )


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed that is a function of the key alone, independent between keys."""
    sequence = np.random.SeedSequence((len(key), *key))  # which ignores zeros at the end
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


async def gather(coroutines: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Return the results of coroutines run at once, in order; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
