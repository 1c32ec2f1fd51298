"""What the checks of pools, graders, rewards and problem sources find."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from eapo_env.episode import Episode
from eapo_env.problems import load_problems
from eapo_env.reward import Overlong, RewardRule
from eapo_env.synthetic import synthetic_problems
from eapo_env.testing import (
    check_expert_pool,
    check_grader,
    check_problem_source,
    check_reward,
)
from eapo_env.types import ExpertReply, Problem, Query, Reply, Unavailable
from eapo_env.verifier import Pairs, Status, Verdict, Verifier


@dataclass(frozen=True)
class Misbehaving:
    """A pool that breaks the protocol as `how` says."""

    how: str

    async def ask(self, queries: Sequence[Query]) -> Any:
        replies: list[Any] = [Reply("x", query.text) for query in queries]
        match self.how:
            case "one too many":
                return [*replies, Unavailable("surplus")]
            case "empty batch":
                return replies if replies else None
            case "raises":
                return [Reply("x", str(int(query.text))) for query in queries]
            case "no reply":
                return [query.text for query in queries]
            case "no text":
                return [Reply("x", None) for _ in queries]  # type: ignore[arg-type]
        return replies


@dataclass(frozen=True)
class OneAtATime:
    """A pool that fails when asked while it is busy."""

    busy: list[bool]

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        if self.busy:
            raise RuntimeError("busy")
        self.busy.append(True)
        await asyncio.sleep(0)
        self.busy.clear()
        return [Unavailable("later")] * len(queries)


@dataclass(frozen=True)
class Unpicklable:
    """A pool that holds what no other process can have."""

    answer: object

    async def ask(self, queries: Sequence[Query]) -> Sequence[ExpertReply]:
        return [Unavailable("no")] * len(queries)


@pytest.mark.parametrize("how", ["one too many", "empty batch", "raises", "no reply", "no text"])
def test_the_check_of_pools_finds_what_is_wrong(how: str) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(check_expert_pool(Misbehaving(how)))


def test_the_check_of_pools_asks_concurrently() -> None:
    with pytest.raises(AssertionError, match="busy"):
        asyncio.run(check_expert_pool(OneAtATime([])))


def test_the_check_of_pools_pickles() -> None:
    with pytest.raises(AssertionError, match="cannot be pickled"):
        asyncio.run(check_expert_pool(Unpicklable(lambda query: None)))


def test_the_check_of_pools_accepts_a_custom_pool() -> None:
    asyncio.run(check_expert_pool(Misbehaving("not at all")))


RIGHT, WRONG, NONE = (
    Verdict(status) for status in (Status.CORRECT, Status.WRONG, Status.NO_ANSWER)
)


def verdict_on(response: str, gold: str) -> Verdict:
    """Grade by whether the response ends in the gold answer."""
    return NONE if not response else RIGHT if response.endswith(f"{{{gold}}}.") else WRONG


@dataclass
class Grading:
    """A grader that breaks its protocol as `how` says."""

    how: str
    num_calls: int = 0
    closed: bool = False
    verdicts: list[Verdict] = field(default_factory=list)

    def verify(self, pairs: Pairs) -> Sequence[Verdict]:
        self.num_calls += 1
        verdicts: Any = [verdict_on(*pair) for pair in pairs]
        match self.how:
            case "always right":
                return [RIGHT] * len(pairs)
            case "always wrong":
                return [WRONG] * len(pairs)
            case "an empty answer is right":
                return [RIGHT if verdict == NONE else verdict for verdict in verdicts]
            case "one too few":
                return verdicts[:-1]  # type: ignore[no-any-return]
            case "sorted":
                return sorted(verdicts, key=lambda verdict: str(verdict.status))
            case "booleans":
                return [verdict.correct for verdict in verdicts]
            case "raises" if any("\ud800" in response for response, _ in pairs):
                raise UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed")
            case "shared state":
                self.verdicts = verdicts
        return verdicts  # type: ignore[no-any-return]

    async def averify(self, pairs: Pairs) -> Sequence[Verdict]:
        verdicts = self.verify(pairs)
        await asyncio.sleep(0)
        match self.how:
            case "shared state":
                return self.verdicts
            case "another verdict":
                return [WRONG] * len(pairs)
        return verdicts

    def close(self) -> None:
        if self.how == "closed twice":
            assert not self.closed, "closed twice"
        self.closed = True


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("always right", "was graded correct"),
        ("always wrong", "was graded wrong with the gold '7'"),
        ("an empty answer is right", "an empty response was correct"),
        ("one too few", "0 verdicts on 1 pairs"),
        ("sorted", "a batch changed verdicts"),
        ("booleans", "not a verdict"),
        ("raises", "verify raised UnicodeEncodeError"),
        ("shared state", "[0-9]+ verdicts on [0-9]+ pairs|averify gave other verdicts"),
        ("another verdict", "averify gave other verdicts than verify"),
        ("closed twice", "closed twice"),
    ],
)
def test_the_check_of_graders_finds_what_is_wrong(how: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        asyncio.run(check_grader(Grading(how)))


def test_the_check_of_graders_accepts_the_verifier_and_a_custom_grader() -> None:
    asyncio.run(check_grader(Verifier()))
    custom = Grading("not at all")
    asyncio.run(check_grader(custom))
    assert custom.closed
    other_format = Grading("not at all")
    asyncio.run(check_grader(other_format, right=("so {x}.", "x"), wrong=("so {y}.", "x")))
    with pytest.raises(AssertionError, match="lacks verify, averify or close"):
        asyncio.run(check_grader(object()))  # type: ignore[arg-type]


@dataclass
class Paying:
    """A reward that breaks its protocol as `how` says."""

    how: str
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def reward(self, episode: Episode, score: float, num_policy_tokens: int) -> Any:
        match self.how:
            case "not finite":
                return math.log(num_policy_tokens) if num_policy_tokens else -math.inf
            case "not a number":
                return str(score)
            case "against correct answers":
                return 1.0 - score
            case "random":
                return score + self.rng.random()
            case "a gap":
                return score or 0.1
            case "divides by queries":
                return 1.0 / episode.num_queries
        return np.float32(score)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("not finite", "not finite"),
        ("not a number", "not a number: '0.0'"),
        ("against correct answers", "correct earns 0.0, wrong 1.0"),
        ("random", "for the same episode"),
        ("a gap", r"the scores \(0.0, 0.01, 0.5, 1.0\) earn \[0.1, 0.01, 0.5, 1.0\]"),
        ("divides by queries", "raised ZeroDivisionError"),
    ],
)
def test_the_check_of_rewards_finds_what_is_wrong(how: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_reward(Paying(how))


def test_the_check_of_rewards_accepts_the_papers_and_a_custom_one() -> None:
    check_reward(RewardRule())
    check_reward(RewardRule(consultation_penalty=0.2, overlong=Overlong(limit=900, cushion=500)))
    check_reward(Paying("not at all"))
    with pytest.raises(AssertionError, match="has no method `reward`"):
        check_reward(lambda episode, score: 1.0)  # type: ignore[arg-type]


PROBLEMS = [Problem(id=f"p{n}", statement=f"{n} + 1 = ?", answer=str(n + 1)) for n in range(3)]


def broken(**changes: object) -> Problem:
    """Return a problem with a field that its constructor refuses."""
    problem = replace(PROBLEMS[0])
    for name, value in changes.items():
        object.__setattr__(problem, name, value)
    return problem


@pytest.mark.parametrize(
    ("problems", "message"),
    [
        ([], "there is no problem"),
        ([*PROBLEMS, PROBLEMS[1]], "two problems have the id 'p1'"),
        ([*PROBLEMS, {"id": "p3"}], "problem 3 is not a Problem"),
        ([broken(statement=" ")], "problem 0 has no statement"),
        ([broken(id=7)], "problem 0: its id is not text: 7"),
        ([broken(statement="\ud800")], "problem 0: its statement is not UTF-8"),
        ([replace(PROBLEMS[0], answer="?")], "the answer of 'p0' cannot be verified"),
        ([replace(PROBLEMS[0], answer=r"\frac{1}{2")], "the answer of 'p0' cannot be verified"),
        ([replace(PROBLEMS[0], answer="9" * 99999)], "the answer of 'p0' cannot be verified"),
    ],
)
def test_the_check_of_problem_sources_finds_what_is_wrong(
    problems: list[Problem], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        check_problem_source(lambda: problems)


def test_the_check_of_problem_sources_asks_the_grader_that_will_be_used() -> None:
    check_problem_source(lambda: PROBLEMS, grader=Grading("always right"))
    with pytest.raises(AssertionError, match="3 answers that no response can match"):
        check_problem_source(lambda: PROBLEMS, grader=Grading("always wrong"))


def test_the_check_of_problem_sources_loads_twice() -> None:
    orders = iter([PROBLEMS, PROBLEMS[::-1]])
    with pytest.raises(AssertionError, match=r"another problem at the place of \['p0', 'p2'\]"):
        check_problem_source(lambda: next(orders))
    generator = (problem for problem in PROBLEMS)
    with pytest.raises(AssertionError, match="0 problems instead of 3, reloaded"):
        check_problem_source(lambda: generator)


def test_the_check_of_problem_sources_accepts_ours_and_a_custom_one() -> None:
    check_problem_source(partial(load_problems, "sample"))
    check_problem_source(synthetic_problems)
    check_problem_source(lambda: iter(PROBLEMS))
