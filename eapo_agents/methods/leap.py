"""LeaP, learning from peers (arXiv 2505.07787; a baseline of 3.1): parallel paths that talk.

    write T tokens -> summarise -> route -> reflect -> write T tokens -> ...

Every T tokens each path that is still reasoning sums up where it is, reads the summaries of some of
its peers, and goes on. A path that has ended, or closed its reasoning, is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, Self

import numpy as np

from eapo_agents.evaluation import ProblemResult, Report, evaluate_each
from eapo_agents.policies import (
    NO_TRUNCATION,
    Chat,
    ChatModel,
    Policy,
    Sampling,
    Truncation,
    Turn,
    plain_ids,
)
from eapo_agents.rollouts import Attempt, derive_seed, gather
from eapo_env.actions import Malformed
from eapo_env.episode import act, begin, truncate
from eapo_env.prompts import Prompts, cut, neutralise
from eapo_env.types import Message, Problem, Rules, StopReason
from eapo_env.validation import UserError
from eapo_env.verifier import Status, Verifier

SUMMARY_CLOSE = "</summary>"
_CHARS_A_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapWords:
    """What is said between two blocks; the default stands within the path's own reasoning.

    Args:
        summarise: asks for a summary, which ends at `</summary>`; empty asks for none.
        quoted: what of a path's own words is its summary then, for models that follow no
            instructions: the last match of this regular expression.
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
        """Return the wording for models that are spoken to in messages."""
        return cls(
            summarise="Sum up where you are, in a few sentences for peers who work on the same"
            " problem: your approach, what you found, what is open.",
            reflect="Your peers are here:\n<peers>\n{peers}</peers>\nCheck this against your own"
            " work, take what holds, and go on with the problem.",
        )

    @classmethod
    def terse(cls) -> LeapWords:
        """Return the wording for the embedded model: peers' values of brackets, like experts'."""
        return cls(
            summarise="",
            quoted="[a-z]=[0-9]{2}",
            peer="<reply>{summary}</reply>\n",
            reflect="{peers}turns 1",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LeapSettings:
    """How the paths talk.

    Args:
        paths: how many reason side by side.
        block_tokens: T, what a path writes between two exchanges.
        summary_tokens: the most tokens of a summary.
        peers: k, how many summaries a path reads.
        router: whose: the "dispersed" least similar, the "clustered" most similar, or a "hybrid"
            of half and half.

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
class Line:
    """A path and what its model has written on it.

    Args:
        path: all that its model reads.
        seed: of what is sampled on it.
        text: the reasoning, without summaries and whatever peers said: this is graded.
        num_tokens: sampled so far, summaries included.
        stopped: whether the model ended its turn.
        exchanges: how often it has heard from peers.
    """

    path: Path
    seed: int
    text: str = ""
    num_tokens: int = 0
    stopped: bool = False
    exchanges: int = 0

    @property
    def talks(self) -> bool:
        """Whether it is still reasoning, and so takes part in an exchange."""
        return not self.stopped and "</think>" not in self.text


@dataclass(frozen=True, kw_only=True)
class Leap:
    """Everything that paths meet besides their problem and their luck.

    Args:
        open_path: the path at the start of a turn, from the messages before it.
        max_response_tokens: what one path may sample in all.
    """

    open_path: Callable[[Sequence[Message]], Path]
    verifier: Verifier
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
    ) -> Report:
        """Return the report on every path of each problem; a sample is a path's answer.

        Paths talk within groups of `settings.paths`. `done` and `on_result` are those of
        `eapo_agents.evaluation.evaluator.evaluate`.
        """

        async def attempts(problem: Problem, seed: int) -> list[Attempt]:
            size = self.settings.paths
            starts = range(0, samples_per_problem, size)
            groups = await gather(
                self.solve(problem, min(size, samples_per_problem - i), derive_seed(seed, i))
                for i in starts
            )
            return [attempt for group in groups for attempt in group]

        return await evaluate_each(attempts, problems, seed=seed, done=done, on_result=on_result)

    async def solve(self, problem: Problem, num_paths: int, seed: int) -> list[Attempt]:
        """Return the attempts of some paths that talk to each other about a problem."""
        opening = (self.prompts.opening(problem, Rules.alone()),)
        lines = [
            Line(path=self.open_path(opening), seed=derive_seed(seed, number))
            for number in range(num_paths)
        ]
        while any(map(self._goes_on, lines)):
            lines = await gather(self._block(line) for line in lines)
            lines = await self._exchange(lines)
        return await gather(self._graded(problem, line) for line in lines)

    def _goes_on(self, line: Line) -> bool:
        return not line.stopped and line.num_tokens < self.max_response_tokens

    async def _block(self, line: Line) -> Line:
        """Return a line after the next T tokens, or to its end where nobody interrupts it."""
        if not self._goes_on(line):
            return line
        room = self.max_response_tokens - line.num_tokens
        wanted = min(room, self.settings.block_tokens) if line.talks else room
        path, turn = await line.path.write(
            Sampling(max_tokens=wanted, temperature=self.temperature, truncation=self.truncation),
            derive_seed(line.seed, line.num_tokens),
        )
        full = turn.num_tokens == 0  # the context is: nothing more can come
        return replace(
            line,
            path=path,
            text=line.text + turn.text,
            num_tokens=self.max_response_tokens if full else line.num_tokens + turn.num_tokens,
            stopped=turn.finish == "stop",
        )

    async def _exchange(self, lines: Sequence[Line]) -> list[Line]:
        """Return the lines after those that talk have summed up and heard from their peers."""
        places = [i for i, line in enumerate(lines) if line.talks and self._goes_on(line)]
        if len(places) < 2:
            return list(lines)
        summed = await gather(self._summarised(lines[i]) for i in places)
        summaries = [summary for _, summary in summed]
        after = list(lines)
        for place, (line, _), peers in zip(
            places, summed, route(summaries, self.settings.router, self.settings.peers), strict=True
        ):
            after[place] = self._reflecting(line, [summaries[peer] for peer in peers])
        return after

    async def _summarised(self, line: Line) -> tuple[Line, str]:
        if not self.words.summarise:
            return line, _last(self.words.quoted, line.text)
        room = self.max_response_tokens - line.num_tokens
        asked = line.path.insert(self.words.summarise)
        _, turn = await asked.write(
            Sampling(
                max_tokens=min(room, self.settings.summary_tokens),
                temperature=self.temperature,
                truncation=self.truncation,
                stop=(SUMMARY_CLOSE,),
            ),
            derive_seed(line.seed, line.num_tokens, 1),
        )
        summary = _summary(turn, self.settings.summary_tokens)
        path = asked.said(f"{summary} {SUMMARY_CLOSE}")
        return replace(line, path=path, num_tokens=line.num_tokens + turn.num_tokens), summary

    def _reflecting(self, line: Line, summaries: Sequence[str]) -> Line:
        limit = _CHARS_A_TOKEN * self.settings.summary_tokens
        peers = "".join(
            self.words.peer.format(number=number, summary=neutralise(cut(summary, limit)))
            for number, summary in enumerate(summaries, start=1)
        )
        path = line.path.insert(self.words.reflect.format(peers=peers))
        return replace(line, path=path, exchanges=line.exchanges + 1)

    async def _graded(self, problem: Problem, line: Line) -> Attempt:
        episode = begin(problem, Rules.alone(), self.prompts, seed=line.seed)
        after = act(episode, line.text, np.random.default_rng(line.seed))
        status = Status.NO_ANSWER
        if not line.stopped and isinstance(after.actions[-1], Malformed):
            after = truncate(episode, StopReason.LENGTH, line.text)
        elif after.stop_reason is StopReason.ANSWERED:
            status = (await self.verifier.averify([(after.response, problem.answer)]))[0].status
        return Attempt(
            episode=after,
            status=str(status),
            correct=status is Status.CORRECT,
            num_policy_tokens=line.num_tokens,
        )


def _last(pattern: str, text: str) -> str:
    found = re.findall(pattern, text)
    return str(found[-1]) if found else "-"


def _summary(turn: Turn, max_tokens: int) -> str:
    text = turn.text.partition(SUMMARY_CLOSE)[0].replace("</think>", "")
    return cut(text.strip(), _CHARS_A_TOKEN * max_tokens)


GO_ON = Message("user", "Go on.")


class Path(Protocol):
    """A conversation in which the model is in the middle of its turn."""

    async def write(self, sampling: Sampling, seed: int) -> tuple[Self, Turn]:
        """Return the path after what the model writes next, and that; empty without room.

        Raises:
            OSError: the model cannot be reached.
        """

    def insert(self, text: str) -> Self:
        """Return the path after a text of somebody else's."""

    def said(self, text: str) -> Self:
        """Return the path after a text as if the model had written it."""


@dataclass(frozen=True)
class TokenPath:
    """A path of a token policy: the ids so far."""

    policy: Policy
    token_ids: tuple[int, ...]

    @classmethod
    def open(cls, policy: Policy, messages: Sequence[Message]) -> TokenPath:
        """Return the path at the start of the policy's first turn."""
        return cls(policy, tuple(Chat(policy.tokenizer).opening(messages)))

    async def write(self, sampling: Sampling, seed: int) -> tuple[TokenPath, Turn]:
        """Return the path with the sampled ids, exactly, and their text."""
        room = self.policy.max_context_tokens - len(self.token_ids)
        if room < 1:
            return self, Turn(text="", num_tokens=0, finish="length")
        within = replace(sampling, max_tokens=min(sampling.max_tokens, room))
        completion = await self.policy.complete(self.token_ids, within, seed)
        text = self.policy.tokenizer.decode(
            list(completion.token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        turn = Turn(text=str(text), num_tokens=len(completion.token_ids), finish=completion.finish)
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

    async def write(self, sampling: Sampling, seed: int) -> tuple[MessagePath, Turn]:
        """Return the path after the model's next message; it is told to go on if it spoke last."""
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


Router = Literal["dispersed", "clustered", "hybrid"]


def route(summaries: Sequence[str], router: Router, peers: int) -> list[list[int]]:
    """Return, for each path, whose summaries it reads, in order; never its own.

    Of equally similar peers the next ones count first, so that no path is favoured.
    """
    return [_peers_of(i, summaries, router, peers) for i in range(len(summaries))]


def similarity(one: str, other: str) -> float:
    """Return the share of common words, |A & B| / |A | B|, in lower case; 1 for none."""
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
