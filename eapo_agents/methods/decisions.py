"""The decisions of an episode, for agents that cannot read or write text: pure.

A decision is a number: 0 answers, k consults k experts. Owns what such an agent observes of an
episode (`FEATURES`), which decisions mean something there, and the text of a turn that carries a
decision out. Who finds the words stands in `decision_writers.py`.
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
from eapo_env.actions import Consult, parse_action, render_consult
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
"""What is observed, each in [0, 1]: 1/n with n turns left (0 when it is over); the acceptance rate
of the rules; the consultations so far, the replies received, the queries without one, each as
n/(n+1); the largest share of the replies that say the same; the statement's length as n/(n+100)
characters."""


def features(episode: Episode) -> Features:
    """Return what an agent observes of an episode: a number in [0, 1] for each of `FEATURES`."""
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

    A reply that commits to no answer stands for itself, as a text.
    """
    said = Counter(extract_answer(reply) or reply.strip() for reply in replies)
    return max(said.values(), default=0) / max(len(replies), 1)


def meaningful(decision: int, episode: Episode) -> int:
    """Return the decision, or the nearest one that means something in this episode now.

    No more experts are consulted than the rules allow, and none where their replies could not be
    used: alone, and in the last turn.
    """
    if episode.rules.is_alone or episode.turns_left <= 1:
        return ANSWER
    return min(decision, episode.rules.queries_per_turn)


def consulting(questions: Sequence[str], count: int, episode: Episode) -> str:
    """Return the turn that asks the first `count` questions.

    Tags inside them are neutralised, and empty ones dropped; when none is left, `count` experts
    are asked the whole problem.
    """
    texts = [neutralise(question) for question in questions if question.strip()][:count]
    return render_consult(Consult(tuple(texts or [neutralise(episode.problem.statement)] * count)))


def answering(text: str) -> str:
    """Return the turn that answers with a text; if it consults, its tags become mere text."""
    return neutralise(text) if isinstance(parse_action(text), Consult) else text


def _saturating(count: float) -> float:
    return count / (count + 1)


Decisions = npt.NDArray[np.integer[Any]]
Decide = Callable[[Features], Decisions]
"""From a batch of observations to a decision for each."""
RulesAt = Callable[[int, float], Rules]


class DecisionVectorEnv(VectorEnv[Features, Decisions, npt.NDArray[Any]]):
    """`num_envs` episodes whose turns are decisions: 0 answers, k consults k experts.

    The observation is `eapo_agents.methods.decisions.FEATURES`. A decision that means nothing in an
    episode is read as the nearest one that does. An episode that is over is reset in the same
    step, its end in the infos as `final_obs` and `final_info`; infos hold the keys of
    `eapo_env.env.EAPOMathEnv`.

    Args:
        num_envs: the number of sub-environments.
        writer: who finds the words.
        settings: the arguments of `EAPOMathEnv`, shared by all. There are as many decisions as
            their rules allow queries a turn, and one more.

    Raises:
        UserError: no sub-environment, or a bad value.
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
            OSError: the writer's model cannot be reached. Nothing has changed then.
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
        count = meaningful(decision, episode)
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
    """Changes the rules as an agent trains: a step of this wrapper is a training step.

    Episodes that begin in a step have its rules.

    Args:
        env: the environment whose rules are set.
        rules_at: (step, draw) -> rules, as `eapo_env.annealing.Annealing.rules_at`. There are as
            many draws as sub-environments, evenly spaced over (0, 1). A sub-environment begins at
            one of its own and takes the next with each episode that it begins, so that all draws
            have the same share of its episodes, however long these are.
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
        self.env.rules = [self.rules_at(self.num_steps, float(draw)) for draw in draws]


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How well decisions did: means over episodes.

    Args:
        reward: penalties included.
        accuracy: the share of right answers.
        queries: the number put to the gate.
        call_rate: the share of episodes with a consultation.
    """

    reward: float
    accuracy: float
    queries: float
    call_rate: float


def play(
    env: DecisionVectorEnv, decide: Decide, rules: Rules, *, rounds: int = 16, seed: int = 0
) -> Score:
    """Return the score of `rounds` episodes of each sub-environment, under these rules.

    Every sub-environment's first episodes count, so short ones do not count more. The environment's
    own rules are as before afterwards, even if the decisions or a model raise.

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
    """Return reward, verdict and queries of each sub-environment's episodes, so many or more."""
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
    """Return the baseline that consults so many experts in an episode's first turn, or none.

    It answers in the second.
    """
    asked = FEATURES.index("consultations")
    return lambda observations: np.where(observations[:, asked] > 0, ANSWER, decision)


class Writer(Protocol):
    """Writes the texts of many episodes at once; what it writes is made legal by the caller."""

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return up to `count` questions; with none, the whole problem is asked instead."""
        ...

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the text that answers the problem, in the words of the grammar."""
        ...


@dataclass(frozen=True, kw_only=True)
class ModelWriter:
    """A language model answers; its questions are the whole problem, once to each expert.

    Whatever the turn, it answers under the prompt of evaluation, which mentions no experts,
    followed by what was asked and what came back.

    Args:
        model: who writes; `eapo_agents.policies.chat_model.PolicyChat` makes one of any token policy.
        sampling: how.
    """

    model: ChatModel
    sampling: Sampling = Sampling(max_tokens=4096)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the problem's statement, `count` times."""
        return [episode.problem.statement] * count

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the model's turn.

        Raises:
            OSError: the model cannot be reached.
        """
        opening = episode.prompts.opening(episode.problem, Rules.alone())
        messages = (opening, *episode.messages[1:])
        return (await self.model.write(messages, self.sampling, seed)).text


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstratorWriter:
    """The careless student works procedural problems out, and asks about the parts it misses.

    Args:
        student: how careless it is: `NoisyDemonstrator.slip`.
    """

    student: NoisyDemonstrator = NoisyDemonstrator(slip=0.1)

    async def questions(self, episode: Episode, count: int, seed: int) -> Sequence[str]:
        """Return the first `count` parts whose value no expert has told."""
        known = known_values(episode)
        if TOTAL in known:
            return ()
        parts = _sum_of(episode.problem).parts.items()
        return [f"{name}:{part}" for name, part in parts if name not in known][:count]

    async def answer(self, episode: Episode, seed: int) -> str:
        """Return the student's solution, with the values that experts told.

        Raises:
            UserError: the problem is not a procedural one.
        """
        known, rng = known_values(episode), np.random.default_rng(seed)
        return self.student.solve(_sum_of(episode.problem), rng, known)


def _sum_of(problem: Problem) -> BracketSum:
    total = read_sum(problem.statement)
    if total is None:
        raise UserError(f"the student solves procedural problems only: {problem.statement!r:.200}")
    return total
