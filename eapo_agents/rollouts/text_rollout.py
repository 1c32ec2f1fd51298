"""Problems -> attempts: episodes played in message space, by any chat model, one coroutine each.

The same rules as in `rollout.py`, for what is evaluated and not trained: nothing here knows ids.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from eapo_agents.policies import NO_TRUNCATION, ChatModel, Sampling, Truncation
from eapo_agents.rollouts.rollout import TokenLimits, derive_seed
from eapo_env.acceptance import queries_to_ask, replies_in_slots
from eapo_env.actions import CONSULT_CLOSE, Consult, Malformed, render_consult
from eapo_env.episode import Episode, act, begin, receive, truncate
from eapo_env.experts import ExpertPool
from eapo_env.prompts import Prompts, neutralise
from eapo_env.types import Problem, Rules, StopReason
from eapo_env.verifier import Status, Verifier

CHARS_A_TOKEN = 4
"""How many characters of an expert's reply count as a token: a chat model has no tokenizer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A finished episode, graded.

    Args:
        episode: all that was said.
        status: the verifier's status, as in `eapo_agents.rollouts.trajectory.Trajectory`.
        correct: whether the answer was right.
        num_policy_tokens: how many tokens the policy sampled.
    """

    episode: Episode
    status: str
    correct: bool
    num_policy_tokens: int


@dataclass(frozen=True, kw_only=True)
class TextRollout:
    """Everything an episode meets besides its problem, its rules and its luck.

    Args:
        consult_first: how many experts are asked about the whole problem before the policy's first
            turn, in its name; 0 leaves consulting to the policy (paper, Appendix C).
    """

    model: ChatModel
    experts: ExpertPool
    verifier: Verifier
    prompts: Prompts = Prompts()
    limits: TokenLimits = TokenLimits()
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION
    consult_first: int = 0

    async def play(self, problem: Problem, rules: Rules, *, seed: int) -> Attempt:
        """Return the attempt of one episode; the seed decides the gate and the sampling."""
        rng = np.random.default_rng(seed)
        episode = begin(problem, self._cut(rules), self.prompts, seed=seed)
        if self.consult_first and not rules.is_alone:
            episode = await consult_about_whole(episode, self.experts, self.consult_first, rng)
        num_tokens = 0
        while not episode.stop_reason:
            room = self.limits.max_response_tokens - num_tokens
            if room < 1:
                episode = truncate(episode, StopReason.LENGTH)
                break
            turn = await self.model.write(
                episode.messages,
                self._sampling(rules, room),
                derive_seed(seed, 1, episode.turn),
            )
            num_tokens += turn.num_tokens
            after = act(episode, turn.text, rng)
            if turn.finish == "length" and isinstance(after.actions[-1], Malformed):
                episode = truncate(episode, StopReason.LENGTH, turn.text)
            else:
                episode = await consult(after, self.experts)
        return await self._graded(episode, num_tokens)

    def _cut(self, rules: Rules) -> Rules:
        chars = CHARS_A_TOKEN * self.limits.max_reply_tokens
        return replace(rules, max_reply_chars=min(rules.max_reply_chars, chars))

    def _sampling(self, rules: Rules, room: int) -> Sampling:
        stop = () if rules.is_alone else (CONSULT_CLOSE,)
        return Sampling(
            max_tokens=room, temperature=self.temperature, truncation=self.truncation, stop=stop
        )

    async def _graded(self, episode: Episode, num_tokens: int) -> Attempt:
        status = Status.NO_ANSWER
        if episode.stop_reason is StopReason.ANSWERED:
            pair = (episode.response, episode.problem.answer)
            status = (await self.verifier.averify([pair]))[0].status
        return Attempt(
            episode=episode,
            status=str(status),
            correct=status is Status.CORRECT,
            num_policy_tokens=num_tokens,
        )


async def consult_about_whole(
    episode: Episode, experts: ExpertPool, num_replies: int, rng: np.random.Generator
) -> Episode:
    """Return the episode after experts were asked about its whole problem, in the policy's name."""
    asked = Consult((neutralise(episode.problem.statement),) * num_replies)
    return await consult(act(episode, render_consult(asked), rng), experts)


async def consult(episode: Episode, experts: ExpertPool) -> Episode:
    """Return the episode after the replies to its queries, if it has any."""
    pending = episode.pending
    if pending is None:
        return episode
    queries = queries_to_ask(pending, "pre")
    replies = await experts.ask(queries) if queries else ()
    return receive(episode, replies_in_slots(pending, "pre", replies))
