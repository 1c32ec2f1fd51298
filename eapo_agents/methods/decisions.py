"""Consultation as a discrete decision, for reinforcement-learning agents that handle no text.

A decision is a number: 0 answers, k consults k experts. `DecisionVectorEnv` is an environment of
`Discrete` actions and `Box` observations, in which a `Writer` turns decisions into text.

In this order: what an agent observes of an episode (`features`), and the turn that a decision
makes, both pure; the writers; the environment, and the wrapper that schedules its rules; and the
score of any decision rule (`play`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from eapo_agents.policies import ChatModel, Sampling
from eapo_agents.rollouts import derive_seed, gather
from eapo_env.actions import CONSULT_OPEN, Consult, render_consult
from eapo_env.answers import extract_answer
from eapo_env.demonstrator import TOTAL, NoisyDemonstrator, known_values
from eapo_env.episode import Episode
from eapo_env.event_loop import run
from eapo_env.prompts import neutralise
from eapo_env.synthetic import BracketSum, read_sum
from eapo_env.types import Problem, Reply, Rules
from eapo_env.validation import UserError
from eapo_env.vector_env import Bools, EAPOMathVectorEnv, Floats, Seeds

Features = npt.NDArray[np.float32]
Decisions = npt.NDArray[np.integer[Any]]
Decide = Callable[[Features], Decisions]
"""A decision rule: from observations [num_envs, features] to decisions [num_envs]."""
RulesAt = Callable[[int, float], Rules]
"""A schedule: from (training step, from 1 on; draw in (0, 1)) to the rules of an episode."""

ANSWER = 0

FEATURES = (
    "turns_left",
    "acceptance_rate",
    "consultations",
    "replies",
    "unanswered",
    "agreement",
    "length",
)
"""The observation, each in [0, 1]: 1/n with n turns left (0 at the end); the acceptance rate of the
rules; the numbers of consultations, of replies and of queries without a reply, each as n/(n+1); the
largest share of the replies that agree; the statement's length in characters, as n/(n+100)."""


def features(episode: Episode) -> Features:
    """Return the observation of an episode: float32 [len(FEATURES)], each in [0, 1]."""
    replies = replies_received(episode)
    values = (
        1 / episode.turns_left if episode.turns_left else 0.0,
        episode.rules.acceptance_rate,
        _saturating(len(episode.consultations)),
        _saturating(len(replies)),
        _saturating(episode.num_queries - len(replies)),
        agreement(replies),
        _saturating(len(episode.problem.statement) / 100),
    )
    return np.array(values, dtype=np.float32)


def replies_received(episode: Episode) -> list[str]:
    """Return the texts of the replies that entered the history, in order."""
    return [
        reply.text
        for consultation in episode.consultations
        for accepted, reply in zip(consultation.accepted, consultation.replies, strict=False)
        if accepted and isinstance(reply, Reply)
    ]


def agreement(replies: Sequence[str]) -> float:
    """Return the largest share of the replies with the same final answer; 0 without replies.

    A reply without an answer is compared as text.
    """
    said = Counter(extract_answer(reply) or reply.strip() for reply in replies)
    return max(said.values(), default=0) / max(len(replies), 1)


def legal(decision: int, episode: Episode) -> int:
    """Return the decision, or the nearest one that is legal in this episode now.

    No more experts are consulted than the rules allow, and none where their replies could not be
    used: without experts, and in the last turn.
    """
    if episode.rules.is_alone or episode.turns_left <= 1:
        return ANSWER
    return min(decision, episode.rules.queries_per_turn)


def consulting(questions: Sequence[str], count: int, episode: Episode) -> str:
    """Return the turn that asks the first `count` questions.

    Tags inside them are neutralised, and empty questions dropped; if none is left, `count` experts
    are asked about the whole problem.
    """
    texts = [neutralise(question) for question in questions if question.strip()][:count]
    return render_consult(Consult(tuple(texts or [neutralise(episode.problem.statement)] * count)))


def answering(text: str) -> str:
    """Return the turn that answers with a text, without the tags of a consult block in it."""
    return text.replace(CONSULT_OPEN, neutralise(CONSULT_OPEN))


def _saturating(count: float) -> float:
    return count / (count + 1)


class Writer(Protocol):
    """Writes the text of a turn for many episodes at once; its caller makes any text legal."""

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return up to `count` questions; if there are none, the whole problem is asked instead."""
        ...

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the text that answers the problem, for instance with `\\boxed{...}`."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """A language model writes the answers; every expert is asked about the whole problem.

    In any turn it answers under the prompt of evaluation, which mentions no experts, followed by
    the queries and replies so far.

    Args:
        model: the chat model; `eapo_agents.policies.PolicyChat` makes one of a token policy.
        sampling: how an answer is sampled.
    """

    model: ChatModel
    sampling: Sampling = Sampling(max_tokens=4096)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the problem's statement, `count` times."""
        return [episode.problem.statement] * count

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the model's turn.

        Raises:
            PolicyError: the model cannot be reached.
        """
        opening = episode.prompts.opening(episode.problem, Rules.alone())
        messages = (opening, *episode.messages[1:])
        return (await self.model.write(messages, self.sampling, seed)).text


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstratorWriter:
    """A scripted solver of procedural problems writes the answers, and asks about single parts.

    Args:
        demonstrator: the solver, with its `step_error_rate`.
    """

    demonstrator: NoisyDemonstrator = NoisyDemonstrator(step_error_rate=0.1)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the first `count` parts whose value no reply has given."""
        known = known_values(episode)
        if TOTAL in known:
            return ()
        parts = _sum_of(episode.problem).parts.items()
        return [f"{name}:{part}" for name, part in parts if name not in known][:count]

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the demonstrator's solution, which uses the values in the replies.

        Raises:
            UserError: the problem is not a procedural one.
        """
        known, rng = known_values(episode), np.random.default_rng(seed)
        return self.demonstrator.solve(_sum_of(episode.problem), rng, known)


def _sum_of(problem: Problem) -> BracketSum:
    total = read_sum(problem.statement)
    if total is None:
        raise UserError(
            f"the demonstrator solves procedural problems only: {problem.statement!r:.200}"
        )
    return total


class DecisionVectorEnv(VectorEnv[Features, Decisions, npt.NDArray[Any]]):
    """A vector environment whose actions are decisions: 0 answers, k consults k experts.

    Observations are `FEATURES`, float32 [num_envs, 7]. A decision that is illegal in an episode is
    replaced by the nearest legal one (`legal`). Finished episodes are reset in the same step, with
    their end in the infos as `final_obs` and `final_info`; infos have the keys of
    `eapo_env.EAPOMathEnv`.

    Args:
        num_envs: the number of sub-environments.
        writer: writes the texts.
        settings: the arguments of `EAPOMathEnv`, shared by all. There are 1 + `queries_per_turn`
            decisions.

    Raises:
        UserError: no sub-environment, or an invalid argument.
    """

    metadata: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        **EAPOMathVectorEnv.metadata,
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(self, num_envs: int, *, writer: Writer, **settings: Any) -> None:
        self.texts = EAPOMathVectorEnv(num_envs, autoreset_mode=AutoresetMode.DISABLED, **settings)
        self.writer = writer
        self.num_envs = num_envs
        self.render_mode = self.texts.render_mode
        self.single_observation_space = gym.spaces.Box(0.0, 1.0, (len(FEATURES),), np.float32)
        self.single_action_space = gym.spaces.Discrete(1 + self.rules[0].queries_per_turn)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    @property
    def rules(self) -> tuple[Rules, ...]:
        """The rules of each sub-environment's next episode; set to one value for all, or each."""
        return self.texts.rules

    @rules.setter
    def rules(self, rules: Rules | Sequence[Rules]) -> None:
        self.texts.set_attr("rules", rules)

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The episodes so far, as values."""
        return tuple(env.episode for env in self.texts.envs)

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Return observations and infos of fresh episodes; see `EAPOMathVectorEnv.reset`."""
        _, infos = self.texts.reset(seed=seed, options=options)
        return self._observations(), infos

    def step(self, actions: Decisions) -> tuple[Features, Floats, Bools, Bools, dict[str, Any]]:
        """Return observations, rewards, terminations, truncations and infos.

        Raises:
            ResetNeeded: nothing has been reset yet.
            UserError: not one decision per sub-environment. Nothing has changed then.
            PolicyError: the writer's model cannot be reached. Nothing has changed then.
        """
        decisions = self._checked(actions)
        texts = run(gather(map(self._write, self.episodes, decisions)))
        _, rewards, terminations, truncations, _ = self.texts.step(texts)
        infos: dict[str, Any] = {}
        for index, env in enumerate(self.texts.envs):
            if terminations[index] or truncations[index]:
                final = {"final_obs": features(env.episode), "final_info": env.inform()}
                infos = self._add_info(infos, final, index)
                env.reset()
            infos = self._add_info(infos, env.inform(), index)
        return self._observations(), rewards, terminations, truncations, infos

    def render(self) -> tuple[Any, ...]:
        """Return what each sub-environment renders: the texts."""
        return self.texts.render()

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the verifier, if it was made here."""
        self.texts.close()

    async def _write(self, episode: Episode, decision: int) -> str:
        count = legal(decision, episode)
        seed = derive_seed(episode.seed, 1, episode.turn)
        if count == ANSWER:
            return answering(await self.writer.answer(episode, seed))
        return consulting(await self.writer.questions(episode, count, seed), count, episode)

    def _checked(self, actions: Decisions) -> list[int]:
        array = np.asarray(actions)
        whole = np.issubdtype(array.dtype, np.integer)
        if not (whole and self.action_space.contains(array.astype(np.int64))):
            raise UserError(f"decisions must be in {self.action_space}, not {actions!r:.200}")
        return [int(decision) for decision in array]

    def _observations(self) -> Features:
        return np.stack([features(episode) for episode in self.episodes])


class ScheduledRules(VectorWrapper[Features, Decisions, npt.NDArray[Any]]):
    """Schedules the rules over training: each step of this wrapper is a training step.

    An episode has the rules of the step in which it begins.

    Args:
        env: the environment whose rules are set.
        rules_at: (step, draw) -> rules, as `eapo_env.Annealing.rules_at`. The draws are `num_envs`
            values evenly spaced over (0, 1). Each sub-environment starts at a different one and
            takes the next with each episode, so that all draws get the same share of episodes,
            whatever their length.
    """

    env: DecisionVectorEnv

    def __init__(self, env: DecisionVectorEnv, rules_at: RulesAt) -> None:
        super().__init__(env)
        self.rules_at = rules_at
        self.num_steps = 0
        self._places = np.arange(self.num_envs)
        self._set_rules()

    def reset(
        self, *, seed: Seeds = None, options: Mapping[str, Any] | None = None
    ) -> tuple[Features, dict[str, Any]]:
        """Return what the environment's reset does."""
        self._set_rules()
        result = self.env.reset(seed=seed, options=options)
        mask = (options or {}).get("reset_mask")
        self._places += 1 if mask is None else mask
        return result

    def step(self, actions: Decisions) -> tuple[Features, Floats, Bools, Bools, dict[str, Any]]:
        """Return what the environment's step does, and count it."""
        self.num_steps += 1
        self._set_rules()
        result = self.env.step(actions)
        _, _, terminations, truncations, _ = result
        self._places += terminations | truncations
        return result

    def _set_rules(self) -> None:
        draws = (self._places % self.num_envs + 0.5) / self.num_envs
        self.env.rules = [self.rules_at(self.num_steps + 1, float(draw)) for draw in draws]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Means over episodes.

    Args:
        reward: per episode, penalties included.
        accuracy: the share of correct answers.
        queries: per episode, accepted or not.
        call_rate: the share of episodes with a consultation.
    """

    reward: float
    accuracy: float
    queries: float
    call_rate: float


def play(
    env: DecisionVectorEnv, decide: Decide, rules: Rules, *, rounds: int = 16, seed: int = 0
) -> Score:
    """Return the score of a decision rule over `rounds` episodes of each sub-environment.

    The first `rounds` episodes of each count, so that short ones are not over-represented. The
    environment's rules are restored afterwards, also after an error.

    Raises:
        UserError: fewer than one round.
    """
    if rounds < 1:
        raise UserError(f"rounds must be at least 1, not {rounds}")
    before, env.rules = env.rules, rules
    try:
        ends = _ends(env, decide, rounds, seed)
    finally:
        env.rules = before
    reward, correct, queries = np.array([end for some in ends for end in some[:rounds]]).T
    return Score(
        reward=float(reward.mean()),
        accuracy=float(correct.mean()),
        queries=float(queries.mean()),
        call_rate=float((queries > 0).mean()),
    )


def _ends(
    env: DecisionVectorEnv, decide: Decide, rounds: int, seed: int
) -> list[list[tuple[float, bool, int]]]:
    """Return (reward, correct, queries) of at least `rounds` episodes of each sub-environment."""
    ends: list[list[tuple[float, bool, int]]] = [[] for _ in range(env.num_envs)]
    observations, _ = env.reset(seed=seed)
    while min(map(len, ends)) < rounds:
        observations, rewards, over, _, infos = env.step(decide(observations))
        for index in np.flatnonzero(over):
            final = infos["final_info"]
            end = (rewards[index], final["correct"][index], final["queries"][index])
            ends[index].append(end)
    return ends


def always(decision: int) -> Decide:
    """Return the baseline that takes this decision in the first turn, and answers after that."""
    asked = FEATURES.index("consultations")
    return lambda observations: np.where(observations[:, asked] > 0, ANSWER, decision)
