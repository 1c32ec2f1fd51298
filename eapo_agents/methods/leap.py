"""LeaP, learning from peers (arXiv 2505.07787; a baseline of 3.1): reasoning paths that exchange.

    write T tokens -> summarise -> route -> reflect -> write T tokens -> ...

Every T tokens, each path that is still reasoning summarises its state, reads the summaries of some
of its peers, and continues. A path that has ended, or closed its reasoning, is not interrupted.

In this order: the settings and the wording; `ReasoningPath`, in tokens and in messages; `Leap`,
which runs the paths; and the routing of summaries.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import numpy as np

from eapo_agents.evaluation import OnAttempts, ProblemResult, Report, evaluate_each
from eapo_agents.policies import (
    NO_TRUNCATION,
    Chat,
    ChatModel,
    ChatTurn,
    Policy,
    Sampling,
    Truncation,
    plain_ids,
)
from eapo_agents.rollouts import CHARS_A_TOKEN, Attempt, derive_seed, gather
from eapo_env.episode import begin, take_turn
from eapo_env.prompts import Prompts, cut, neutralise
from eapo_env.types import Message, Problem, Rules
from eapo_env.validation import UserError
from eapo_env.verifier import Grader

SUMMARY_CLOSE = "</summary>"
GO_ON = Message("user", "Go on.")

Router = Literal["dispersed", "clustered", "hybrid"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapSettings:
    """The sizes of LeaP, and its router.

    Args:
        paths: the number of parallel paths.
        block_tokens: T, the number of tokens a path writes between two exchanges.
        summary_tokens: the most tokens of a summary.
        peers: k, the number of summaries a path reads.
        router: which ones: the least similar ("dispersed"), the most similar ("clustered"), or half
            of each ("hybrid").

    Raises:
        UserError: a number below 1, or more peers than a path has.
    """

    paths: int = 16
    block_tokens: int = 4096
    summary_tokens: int = 256
    peers: int = 4
    router: Router = "dispersed"

    def __post_init__(self) -> None:
        for name in ("paths", "block_tokens", "summary_tokens", "peers"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.peers >= self.paths:
            raise UserError(f"peers must be below paths={self.paths}, not {self.peers}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapWords:
    """The texts inserted between two blocks; the default ones continue the path's own reasoning.

    Args:
        summarise: asks for a summary, which ends at `</summary>`; empty asks for none.
        quoted: for models that follow no instructions: the summary is then the last match of this
            regular expression in the path's own text.
        peer: one peer's summary; sees `number` (from 1) and `summary`.
        reflect: around the peers' summaries; sees `peers`.
    """

    summarise: str = "\n\nBefore I go on, where I am, in a few sentences for my peers: <summary>"
    quoted: str = r"\S.*"
    peer: str = "Peer {number}: {summary}\n"
    reflect: str = (
        "\n\n<peers>\n{peers}</peers>\n\nI check these against my own work, take what holds, and"
        " go on. "
    )

    @classmethod
    def chat(cls) -> LeapWords:
        """Return the wording for chat models, to which it is a user's message."""
        return cls(
            summarise="Sum up where you are, in a few sentences for peers who work on the same"
            " problem: your approach, what you found, what is open.",
            reflect="Your peers are here:\n<peers>\n{peers}</peers>\nCheck this against your own"
            " work, take what holds, and go on with the problem.",
        )

    @classmethod
    def terse(cls) -> LeapWords:
        """Return the wording for the embedded model: peers' values look like experts' replies."""
        return cls(
            summarise="",
            quoted="[a-z]=[0-9]{2}",
            peer="<reply>{summary}</reply>\n",
            reflect="{peers}turns 1",
        )


class ReasoningPath(Protocol):
    """A conversation in which the model is in the middle of its turn."""

    @property
    def opened(self) -> str:
        """How the turn begins: with the `<think>` that a chat template opened, or with nothing."""

    async def write(self, sampling: Sampling, seed: int) -> tuple[Self, ChatTurn]:
        """Return the path after what the model writes next, and what it wrote.

        Without room in the context, an empty turn that is finished by length.

        Raises:
            PolicyError: the model cannot be reached.
        """

    def insert(self, text: str) -> Self:
        """Return the path after a text that the model did not write."""

    def said(self, text: str) -> Self:
        """Return the path after a text as if the model had written it."""


@dataclass(frozen=True)
class TokenPath:
    """A path of a token policy: the ids so far."""

    policy: Policy
    chat: Chat
    token_ids: tuple[int, ...]

    @classmethod
    def open(cls, policy: Policy, messages: Sequence[Message]) -> TokenPath:
        """Return the path at the start of the policy's first turn."""
        chat = Chat(policy.tokenizer)
        return cls(policy, chat, tuple(chat.opening(messages)))

    @property
    def opened(self) -> str:
        """What the chat template opens."""
        return self.chat.opened

    async def write(self, sampling: Sampling, seed: int) -> tuple[TokenPath, ChatTurn]:
        """Return the path with the sampled ids, exactly, and their text."""
        room = self.policy.max_context_tokens - len(self.token_ids)
        if room < 1:
            return self, ChatTurn(text="", num_tokens=0, finish="length")
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        completion = await self.policy.complete(self.token_ids, within, seed)
        turn = ChatTurn(
            text=self.chat.text(completion.token_ids),
            num_tokens=len(completion.token_ids),
            finish=completion.finish,
        )
        return replace(self, token_ids=self.token_ids + completion.token_ids), turn

    def insert(self, text: str) -> TokenPath:
        """Return the path with the text's ids; nothing in it is a special token."""
        ids = plain_ids(text, self.policy.tokenizer)
        return replace(self, token_ids=self.token_ids + tuple(ids))

    def said(self, text: str) -> TokenPath:
        """Return the path with the text's ids."""
        return self.insert(text)


@dataclass(frozen=True)
class MessagePath:
    """A path of a chat model: the messages so far."""

    model: ChatModel
    messages: tuple[Message, ...]

    @classmethod
    def open(cls, model: ChatModel, messages: Sequence[Message]) -> MessagePath:
        """Return the path at the start of the model's first turn."""
        return cls(model, tuple(messages))

    @property
    def opened(self) -> str:
        """Nothing: the server reads its own template's reasoning."""
        return ""

    async def write(self, sampling: Sampling, seed: int) -> tuple[MessagePath, ChatTurn]:
        """Return the path after the model's next message; after its own, `GO_ON` comes first."""
        path = self if self.messages[-1].role == "user" else self._with(GO_ON)
        turn = await self.model.write(path.messages, sampling, seed)
        return path.said(turn.text), turn

    def insert(self, text: str) -> MessagePath:
        """Return the path after a user's message."""
        return self._with(Message("user", text))

    def said(self, text: str) -> MessagePath:
        """Return the path after a message of the model's."""
        return self._with(Message("assistant", text))

    def _with(self, message: Message) -> MessagePath:
        return replace(self, messages=(*self.messages, message))


@dataclass(frozen=True, slots=True, kw_only=True)
class PathState:
    """A path and what its model has written on it.

    Args:
        path: the conversation that the model reads.
        seed: of what is sampled on it.
        text: the reasoning without summaries and peers' texts: this is graded.
        num_tokens: the number of tokens sampled so far, summaries included.
        stopped: whether the model ended its turn.
    """

    path: ReasoningPath
    seed: int
    text: str
    num_tokens: int = 0
    stopped: bool = False

    @property
    def is_reasoning(self) -> bool:
        """Whether its reasoning is still open, so that it takes part in exchanges."""
        return not self.stopped and "</think>" not in self.text


@dataclass(frozen=True, kw_only=True)
class Leap:
    """Solves problems by parallel paths that exchange summaries.

    Args:
        open_path: from the messages before a turn to the path at the turn's start.
        verifier: the grader.
        prompts: the wording of the opening prompt.
        words: the texts inserted between two blocks.
        settings: the sizes, and the router.
        max_response_tokens: the most tokens sampled on one path.
        temperature: of their sampling.
        truncation: of their sampling: top-p, top-k, min-p.
    """

    open_path: Callable[[Sequence[Message]], ReasoningPath]
    verifier: Grader
    prompts: Prompts = Prompts()
    words: LeapWords = LeapWords()
    settings: LeapSettings = field(default_factory=LeapSettings)
    max_response_tokens: int = 20_480
    temperature: float = 1.0
    truncation: Truncation = NO_TRUNCATION

    async def evaluate(
        self,
        problems: Sequence[Problem],
        *,
        samples_per_problem: int,
        seed: int,
        done: Sequence[ProblemResult] = (),
        on_result: Callable[[ProblemResult], None] = lambda result: None,
        on_attempts: OnAttempts = lambda attempts: None,
    ) -> Report:
        """Return the report on every path of each problem; a sample is a path's answer.

        Paths exchange within groups of `settings.paths`. `done`, `on_result` and
        `on_attempts` are as in `eapo_agents.evaluate`.
        """

        async def attempts(problem: Problem, seed: int) -> list[Attempt]:
            size = self.settings.paths
            starts = range(0, samples_per_problem, size)
            groups = await gather(
                self.solve(problem, min(size, samples_per_problem - i), derive_seed(seed, i))
                for i in starts
            )
            return [attempt for group in groups for attempt in group]

        return await evaluate_each(
            attempts, problems, seed=seed, done=done, on_result=on_result, on_attempts=on_attempts
        )

    async def solve(self, problem: Problem, num_paths: int, seed: int) -> list[Attempt]:
        """Return the attempts of `num_paths` paths at a problem, which exchange summaries."""
        opening = (self.prompts.opening(problem, Rules.alone()),)
        path = self.open_path(opening)
        states = [
            PathState(path=path, text=path.opened, seed=derive_seed(seed, number))
            for number in range(num_paths)
        ]
        while any(map(self._goes_on, states)):
            states = await gather(self._block(state) for state in states)
            states = await self._exchange(states)
        return await gather(self._attempt(problem, state) for state in states)

    def _goes_on(self, state: PathState) -> bool:
        return not state.stopped and state.num_tokens < self.max_response_tokens

    async def _block(self, state: PathState) -> PathState:
        """Return a path after its next T tokens, or after all the rest if it does not exchange."""
        if not self._goes_on(state):
            return state
        room = self.max_response_tokens - state.num_tokens
        wanted = min(room, self.settings.block_tokens) if state.is_reasoning else room
        path, turn = await state.path.write(
            self._sampling(wanted), derive_seed(state.seed, state.num_tokens)
        )
        context_full = turn.num_tokens == 0
        num_tokens = state.num_tokens + turn.num_tokens
        return replace(
            state,
            path=path,
            text=state.text + turn.text,
            num_tokens=self.max_response_tokens if context_full else num_tokens,
            stopped=turn.finish == "stop",
        )

    async def _exchange(self, states: Sequence[PathState]) -> list[PathState]:
        """Return the paths after those that reason have read summaries of their peers."""
        places = [i for i, one in enumerate(states) if one.is_reasoning and self._goes_on(one)]
        if len(places) < 2:
            return list(states)
        summed = await gather(self._summarised(states[i]) for i in places)
        summaries = [summary for _, summary in summed]
        routed = route(summaries, self.settings.router, self.settings.peers)
        after = list(states)
        for place, (state, _), peers in zip(places, summed, routed, strict=True):
            after[place] = self._reflecting(state, [summaries[peer] for peer in peers])
        return after

    async def _summarised(self, state: PathState) -> tuple[PathState, str]:
        """Return a path after its summary, and the summary."""
        if not self.words.summarise:
            return state, _last(self.words.quoted, state.text)
        room = self.max_response_tokens - state.num_tokens
        asked = state.path.insert(self.words.summarise)
        sampling = self._sampling(min(room, self.settings.summary_tokens))
        _, turn = await asked.write(
            replace(sampling, stop=(SUMMARY_CLOSE,)),
            derive_seed(state.seed, state.num_tokens, 1),
        )
        summary = _summary(turn, self.settings.summary_tokens)
        path = asked.said(f"{summary} {SUMMARY_CLOSE}")
        return replace(state, path=path, num_tokens=state.num_tokens + turn.num_tokens), summary

    def _reflecting(self, state: PathState, summaries: Sequence[str]) -> PathState:
        limit = CHARS_A_TOKEN * self.settings.summary_tokens
        peers = "".join(
            self.words.peer.format(number=number, summary=neutralise(cut(summary, limit)))
            for number, summary in enumerate(summaries, start=1)
        )
        return replace(state, path=state.path.insert(self.words.reflect.format(peers=peers)))

    def _sampling(self, max_tokens: int) -> Sampling:
        return Sampling(
            max_tokens=max_tokens, temperature=self.temperature, truncation=self.truncation
        )

    async def _attempt(self, problem: Problem, state: PathState) -> Attempt:
        """Return the path's text as the only turn of an episode without experts, graded."""
        turn = ChatTurn(
            text=state.text,
            num_tokens=state.num_tokens,
            finish="stop" if state.stopped else "length",
        )
        episode = begin(problem, Rules.alone(), self.prompts, seed=state.seed)
        episode = take_turn(episode, turn, np.random.default_rng(state.seed))
        return await Attempt.graded(episode, self.verifier, state.num_tokens)


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return str(found[-1]) if found else "-"


def _summary(turn: ChatTurn, max_tokens: int) -> str:
    text = turn.text.partition(SUMMARY_CLOSE)[0].replace("</think>", "")
    return cut(text.strip(), CHARS_A_TOKEN * max_tokens)


def route(summaries: Sequence[str], router: Router, peers: int) -> list[list[int]]:
    """Return, for each path, the indices of the peers whose summaries it reads; never its own.

    Ties in similarity go to the next paths in cyclic order, so that none is preferred.
    """
    return [_peers_of(i, summaries, router, peers) for i in range(len(summaries))]


def similarity(one: str, other: str) -> float:
    """Return the Jaccard similarity of the lower-cased words, |A & B| / |A | B|; of none, 1."""
    a, b = (set(text.lower().split()) for text in (one, other))
    return len(a & b) / len(a | b) if a | b else 1.0


def _peers_of(path: int, summaries: Sequence[str], router: Router, peers: int) -> list[int]:
    others = [(path + step) % len(summaries) for step in range(1, len(summaries))]
    far = sorted(others, key=lambda other: similarity(summaries[path], summaries[other]))
    near = sorted(others, key=lambda other: -similarity(summaries[path], summaries[other]))
    match router:
        case "dispersed":
            return far[:peers]
        case "clustered":
            return near[:peers]
        case "hybrid":
            distant = far[: peers // 2]
            return distant + [i for i in near if i not in distant][: peers - len(distant)]
