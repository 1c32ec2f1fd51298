"""Asynchronous rollouts: play G episodes per problem with the current policy, as a group.

Each episode is one coroutine, so a slow expert call never blocks other episodes, and the policy
batches whatever prompts are waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np

from eapo_agents.policies import (
    NO_TRUNCATION,
    Chat,
    ChatTurn,
    Policy,
    Sampling,
    TokenHistory,
    Truncation,
    cut_tokens,
    replica_of,
)
from eapo_agents.rollouts.trajectory import Group, Trajectory
from eapo_env.actions import CONSULT_CLOSE
from eapo_env.driver import grade, play_episode
from eapo_env.episode import Episode, begin
from eapo_env.experts import ExpertPool
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.prompts import Prompts
from eapo_env.reward import Reward, RewardRule, earned
from eapo_env.types import ExpertReply, Gate, Problem, Query, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader, Verdict

T = TypeVar("T")

GateDraws = Literal["member", "group"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLimits:
    """The token limits of an episode (paper, Table 5).

    Args:
        max_prompt_tokens: problems whose opening prompt is longer are not trained on.
        max_response_tokens: the most tokens of the policy, over all its turns.
        max_reply_tokens: a longer expert reply is cut there, with a visible mark.

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
    """Plays episodes with a token policy, and records them as trajectories to learn from.

    Args:
        policy: writes the turns.
        experts: the pool that is consulted.
        verifier: the grader.
        reward: what an episode earns.
        prompts: the wording of the environment's messages.
        limits: the token limits of an episode.
        temperature: of the sampling of every turn.
        truncation: of the sampling of every turn: top-p, top-k, min-p.
        gate: "pre" never sends a query that the acceptance gate refuses, "post" sends all.
        expert_timeout_s: timeout of one consultation; later replies are unavailable.
        monitor: collects the experts' latencies and failures.
        version: of the policy's weights, for the record.
    """

    policy: Policy
    experts: ExpertPool
    verifier: Grader
    reward: Reward = RewardRule()
    prompts: Prompts = Prompts()
    limits: TokenLimits = TokenLimits()
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    gate: Gate = "pre"
    expert_timeout_s: float = 300.0
    monitor: ExpertMonitor = field(default_factory=ExpertMonitor)
    version: int = 0

    async def play(
        self,
        problem: Problem,
        rules: Rules,
        *,
        seed: int,
        gate_seed: int | None = None,
        number: int | None = None,
    ) -> Trajectory:
        """Return the trajectory of one episode.

        Args:
            seed: decides the sampling and, unless `gate_seed` is given, the gate.
            number: of the episode among others, by default the seed; it decides which of the
                policy's replicas samples the turns.
        """
        sampler = replica_of(self.policy, seed if number is None else number)
        episode = begin(problem, rules, self.prompts, seed=seed)
        history = TokenHistory.open(episode.messages, self._chat)

        async def write(episode: Episode) -> ChatTurn | None:
            nonlocal history
            if episode.turn:
                history = history.extend(episode.messages[-1], self._chat)
            room = self._room(history)
            if room < 1:
                return None
            sampling = turn_sampling(rules, room, self.temperature, self.truncation)
            completion = self._chat.until_stop(
                await sampler.complete(
                    history.token_ids, sampling, derive_seed(seed, 1, episode.turn)
                ),
                sampling.stop,
            )
            history = history.sampled(completion)
            return ChatTurn(
                text=self._chat.turn(completion.token_ids),
                num_tokens=len(completion.token_ids),
                finish=completion.finish,
            )

        # The gate's generator, as in the environment.
        rng = np.random.default_rng(seed if gate_seed is None else gate_seed)
        episode = await play_episode(episode, write, self._experts, rng, gate=self.gate)
        return self._trajectory(episode, history, await grade(episode, self.verifier))

    async def play_group(
        self,
        problem: Problem,
        rules_G: Sequence[Rules],
        *,
        seed: int,
        gate_draws: GateDraws = "member",
    ) -> Group:
        """Return the trajectories of one problem, one per member's rules.

        Args:
            seed: decides everything random.
            gate_draws: each "member" has draws of its own at the gate, or the whole "group" the
                same: members with equal actions then have equal slots accepted. The
                distribution of an episode is the same.
        """
        members = await gather(
            self.play_member(problem, rules_G, member, seed=seed, gate_draws=gate_draws)
            for member in range(len(rules_G))
        )
        return Group(problem=problem, trajectories=tuple(members))

    async def play_member(
        self,
        problem: Problem,
        rules_G: Sequence[Rules],
        member: int,
        *,
        seed: int,
        gate_draws: GateDraws = "member",
    ) -> Trajectory:
        """Return the trajectory of one member of `play_group`, given the same arguments."""
        gate_seed = derive_seed(seed, len(rules_G), 1) if gate_draws == "group" else None
        return await self.play(
            problem,
            rules_G[member],
            seed=derive_seed(seed, member),
            gate_seed=gate_seed,
            number=seed + member,
        )

    def short_enough(self, problems: Sequence[Problem]) -> Sequence[Problem]:
        """Return the problems whose opening prompt, with experts, is within the limits.

        Raises:
            UserError: there is no such problem.
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

    @property
    def _experts(self) -> ExpertPool:
        guarded = GuardedExperts(
            inner=self.experts, timeout_s=self.expert_timeout_s, monitor=self.monitor
        )
        return _CutReplies(guarded, self._cut)

    def _cut(self, text: str) -> str:
        return cut_tokens(text, self.policy.tokenizer, self.limits.max_reply_tokens)

    def _trajectory(self, episode: Episode, history: TokenHistory, verdict: Verdict) -> Trajectory:
        return Trajectory(
            token_ids=np.asarray(history.token_ids, dtype=np.int32),
            mask=np.asarray(history.mask, dtype=np.bool_),
            logprobs=np.asarray(history.logprobs, dtype=np.float32),
            reward=earned(self.reward, episode, verdict.score, history.num_policy_tokens),
            status=str(verdict.status),
            correct=verdict.correct,
            episode=episode,
            version=self.version,
        )


@dataclass(frozen=True, slots=True)
class _CutReplies:
    """A pool whose replies are shortened by a function of their text."""

    inner: ExpertPool
    cut: Callable[[str], str]

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        replies = await self.inner.ask(queries)
        return [
            replace(reply, text=self.cut(reply.text)) if isinstance(reply, Reply) else reply
            for reply in replies
        ]


def turn_sampling(
    rules: Rules, max_tokens: int, temperature: float, truncation: Truncation
) -> Sampling:
    """Return how a turn is sampled; with experts, the end of a consultation stops it."""
    stop = () if rules.is_alone else (CONSULT_CLOSE,)
    return Sampling(
        max_tokens=max_tokens, temperature=temperature, truncation=truncation, stop=stop
    )


def derive_seed(*key: int) -> int:
    """Return a 63-bit seed for a key of numbers; different keys give independent seeds."""
    sequence = np.random.SeedSequence((len(key), *key))  # which ignores zeros at the end
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


async def gather(coroutines: Iterable[Coroutine[None, None, T]]) -> list[T]:
    """Return the results of coroutines run concurrently, in order; an error cancels the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(coroutine) for coroutine in coroutines]
    except BaseExceptionGroup as errors:
        first = errors.exceptions[0]
        raise first from first.__cause__
    return [task.result() for task in tasks]
