"""Rollouts in message space: episodes played by any chat model, for evaluation without training.

The same episodes as in `rollout.py`, without token ids.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from eapo_agents.policies import NO_TRUNCATION, ChatModel, ChatTurn, Truncation
from eapo_agents.rollouts.rollout import TokenLimits, derive_seed, turn_sampling
from eapo_env.actions import Consult, render_consult
from eapo_env.driver import consult, grade, play_episode
from eapo_env.episode import Episode, act, begin
from eapo_env.experts import ExpertPool
from eapo_env.guarded_experts import ExpertMonitor, GuardedExperts
from eapo_env.prompts import Prompts, neutralise
from eapo_env.types import Gate, Problem, Rules
from eapo_env.verifier import Grader

CHARS_A_TOKEN = 4
"""The number of characters that count as a token of an expert's reply: there is no tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A finished episode, graded.

    Args:
        episode: the episode, in message space.
        status: the verifier's status, as in `Trajectory`.
        correct: whether the answer was right.
        score: the verdict's, in [0, 1], which the reward is made of.
        num_policy_tokens: the number of tokens the policy sampled.
    """

    episode: Episode
    status: str
    correct: bool
    score: float
    num_policy_tokens: int

    @classmethod
    async def graded(cls, episode: Episode, verifier: Grader, num_policy_tokens: int) -> Attempt:
        """Return the attempt that a finished episode makes, with the grader's verdict."""
        verdict = await grade(episode, verifier)
        return cls(
            episode=episode,
            status=str(verdict.status),
            correct=verdict.correct,
            score=verdict.score,
            num_policy_tokens=num_policy_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class TextRollout:
    """Plays episodes with a chat model, and grades them.

    Args:
        model: writes the turns.
        experts: the pool that is consulted.
        verifier: the grader.
        prompts: the wording of the environment's messages.
        limits: the token limits of an episode; a reply is cut at 4 characters a token.
        temperature: of the sampling of every turn.
        truncation: of the sampling of every turn: top-p, top-k, min-p.
        consult_first: how many experts are asked about the whole problem before the policy's first
            turn, in its name; 0 leaves consulting to the policy (paper, Appendix C).
        gate: "pre" never sends a query that the acceptance gate refuses, "post" sends all.
        expert_timeout_s: timeout of one consultation; later replies are unavailable.
        monitor: collects the experts' latencies and failures.
    """

    model: ChatModel
    experts: ExpertPool
    verifier: Grader
    prompts: Prompts = Prompts()
    limits: TokenLimits = TokenLimits()
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    consult_first: int = 0
    gate: Gate = "pre"
    expert_timeout_s: float = 300.0
    monitor: ExpertMonitor = field(default_factory=ExpertMonitor)

    async def play(self, problem: Problem, rules: Rules, *, seed: int) -> Attempt:
        """Return one episode, played and graded; `seed` decides the gate and the sampling."""
        num_tokens = 0

        async def write(episode: Episode) -> ChatTurn | None:
            nonlocal num_tokens
            room = self.limits.max_response_tokens - num_tokens
            if room < 1:
                return None
            turn = await self.model.write(
                episode.messages,
                turn_sampling(rules, room, self.temperature, self.truncation),
                derive_seed(seed, 1, episode.turn),
            )
            num_tokens += turn.num_tokens
            wrote_nothing = turn.finish == "length" and not (turn.num_tokens or turn.text)
            return None if wrote_nothing else turn

        rng = np.random.default_rng(seed)
        experts = GuardedExperts(
            inner=self.experts, timeout_s=self.expert_timeout_s, monitor=self.monitor
        )
        episode = begin(problem, self._with_reply_limit(rules), self.prompts, seed=seed)
        if self.consult_first and not rules.is_alone:
            episode = await consult_about_whole(
                episode, experts, self.consult_first, rng, gate=self.gate
            )
        episode = await play_episode(episode, write, experts, rng, gate=self.gate)
        return await Attempt.graded(episode, self.verifier, num_tokens)

    def _with_reply_limit(self, rules: Rules) -> Rules:
        chars = CHARS_A_TOKEN * self.limits.max_reply_tokens
        return replace(rules, max_reply_chars=min(rules.max_reply_chars, chars))


async def consult_about_whole(
    episode: Episode,
    experts: ExpertPool,
    num_replies: int,
    rng: np.random.Generator,
    *,
    gate: Gate = "pre",
) -> Episode:
    """Return the episode after experts were asked about its whole problem, in the policy's name."""
    asked = Consult((neutralise(episode.problem.statement),) * num_replies)
    return await consult(act(episode, render_consult(asked), rng), experts, gate=gate)
