"""Evaluate a policy: k episodes of every problem, without experts by default (paper 3.1).

Every number of a report is a mean over problems of the same number for one problem, so that one
bootstrap over problems gives all the intervals.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import compress
from typing import Protocol

import numpy as np

from eapo_agents.evaluation.metrics import (
    Interval,
    majority_at_k,
    mean_at_k,
    pass_at_k,
    resampled_means,
    variance,
)
from eapo_agents.rollouts import derive_seed, gather
from eapo_env.actions import Answer
from eapo_env.episode import Episode
from eapo_env.types import ExpertReply, Problem, Rules, Unavailable
from eapo_env.validation import UserError

NUM_RESAMPLES = 10_000


class Graded(Protocol):
    """A finished episode and its verdict: a trajectory, or an attempt in message space."""

    @property
    def episode(self) -> Episode:
        """The conversation."""

    @property
    def correct(self) -> bool:
        """Whether the answer is correct."""

    @property
    def num_policy_tokens(self) -> int:
        """The number of tokens that the policy sampled."""

    @property
    def status(self) -> str:
        """The verifier's status (`correct`, `wrong`, `no_answer`, ...)."""


class Player(Protocol):
    """What plays episodes: `Rollout` in tokens, `TextRollout` in messages."""

    async def play(self, problem: Problem, rules: Rules, *, seed: int) -> Graded:
        """Return one finished episode; `seed` decides everything random in it."""


Attempts = Callable[[Problem, int], Awaitable[Sequence[Graded]]]
"""From a problem and a seed to its k attempts; the seed decides everything random in them."""

OnAttempts = Callable[[Sequence[Graded]], None]
"""Called with the k attempts at a problem when it is finished."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemResult:
    """The results of the k samples of one problem; one value per sample.

    Args:
        answers: as the policy wrote them; None for a sample without an answer.
        consulted: whether it consulted an expert.
        truncated: whether an outside limit cut it off.
        asked: the number of queries that went to experts.
        unanswered: the number of these that no expert answered.
        turns: the number of turns.
        malformed: the number of these that neither consulted nor answered, and that no limit cut.
    """

    problem_id: str
    correct: tuple[bool, ...]
    answers: tuple[str | None, ...]
    response_tokens: tuple[int, ...]
    consulted: tuple[bool, ...]
    truncated: tuple[bool, ...]
    asked: tuple[int, ...] = ()
    unanswered: tuple[int, ...] = ()
    turns: tuple[int, ...] = ()
    malformed: tuple[int, ...] = ()

    def numbers(self) -> dict[str, float]:
        """Return every metric of a report for this problem alone."""
        k = len(self.correct)
        return {
            "mean_at_k": mean_at_k([self.correct]),
            "variance": variance([self.correct]),
            "pass_at_k": pass_at_k([self.correct], k),
            "majority_at_k": majority_at_k([self.answers], [self.correct]),
            "call_rate": float(np.mean(self.consulted)),
            "response_tokens": float(np.mean(self.response_tokens)),
            "truncation_rate": float(np.mean(self.truncated)),
            "no_answer_rate": float(np.mean([answer is None for answer in self.answers])),
            "malformed_rate": sum(self.malformed) / max(sum(self.turns), 1),
            "unanswered_rate": sum(self.unanswered) / max(sum(self.asked), 1),
            **{f"pass_at_{n}": pass_at_k([self.correct], n) for n in _powers(k)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The metrics of an evaluation; shares in [0, 1].

    Args:
        mean_at_k: the mean over problems of the mean correctness of k samples; the paper prints
            it as "Pass@32".
        interval: its 95% confidence interval, by bootstrap over problems.
        variance: the paper's Var.
        pass_at_k: the share of problems that at least one of k samples solves, unbiased.
        majority_at_k: the share of problems whose most frequent answer is correct.
        call_rate: the share of episodes that consulted; 0 under rules without experts.
        response_tokens: mean number of policy tokens per episode.
        truncation_rate: the share of episodes cut off by an outside limit.
        no_answer_rate: the share of episodes without an answer, those that were cut off included.
        malformed_rate: the share of a problem's turns that neither consulted nor answered, though
            no limit cut them.
        unanswered_rate: the share of a problem's queries that no expert answered, because a server
            failed say; 0 if there were no queries.
        correct_PK: correctness of every sample [problems, k].
        problem_ids: the problems, in the same order.
        pass_at: true pass@n for n = 1, 2, 4, ... and k.
        intervals: the 95% interval of every metric, by its name; `pass_at_4` is that of pass@4.
    """

    samples_per_problem: int
    num_problems: int
    mean_at_k: float
    interval: tuple[float, float]
    variance: float
    pass_at_k: float
    majority_at_k: float
    call_rate: float
    response_tokens: float
    truncation_rate: float
    correct_PK: tuple[tuple[bool, ...], ...]
    no_answer_rate: float = 0.0
    malformed_rate: float = 0.0
    unanswered_rate: float = 0.0
    problem_ids: tuple[str, ...] = ()
    pass_at: Mapping[int, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def metrics(self) -> dict[str, float]:
        """Return the numbers without the single samples, for the metrics of a run."""
        numbers = asdict(self)
        low, high = numbers.pop("interval")
        for name in ("correct_PK", "problem_ids", "pass_at", "intervals"):
            del numbers[name]
        return {**numbers, "interval_low": low, "interval_high": high}


class Evaluator(Protocol):
    """Evaluates a policy on problems, as `partial(evaluate, player)` does."""

    async def __call__(
        self,
        problems: Sequence[Problem],
        *,
        done: Sequence[ProblemResult],
        on_result: Callable[[ProblemResult], None],
        on_attempts: OnAttempts,
    ) -> Report:
        """Return the report; `done`, `on_result` and `on_attempts` are those of `evaluate`."""


async def evaluate(
    player: Player,
    problems: Sequence[Problem],
    *,
    samples_per_problem: int = 32,
    rules: Rules | None = None,
    seed: int = 0,
    done: Sequence[ProblemResult] = (),
    on_result: Callable[[ProblemResult], None] = lambda result: None,
    on_attempts: OnAttempts = lambda attempts: None,
) -> Report:
    """Return the metrics of `samples_per_problem` episodes of each problem, by default alone.

    Args:
        player: the policy and what its episodes meet.
        problems: what is evaluated on; the random seed of a problem derives from `seed` and its
            index.
        samples_per_problem: k.
        rules: of every episode.
        seed: of everything drawn at random.
        done: results of an interrupted evaluation; these problems are not played again.
        on_result: called with each new result when its problem is finished.
        on_attempts: called before that with the episodes of the problem.

    Raises:
        UserError: no problems, no samples, or two problems with one id.
    """
    if samples_per_problem < 1:
        raise UserError(f"samples_per_problem must be at least 1, not {samples_per_problem}")
    rules = rules or Rules.alone()

    async def attempts(problem: Problem, seed: int) -> Sequence[Graded]:
        seeds = [derive_seed(seed, k) for k in range(samples_per_problem)]
        return await gather(player.play(problem, rules, seed=one) for one in seeds)

    return await evaluate_each(
        attempts, problems, seed=seed, done=done, on_result=on_result, on_attempts=on_attempts
    )


def check_evaluable(problems: Sequence[Problem]) -> None:
    """Check that there are problems, each with an id of its own.

    Raises:
        UserError: there are none, or two have one id.
    """
    if not problems:
        raise UserError("nothing to evaluate: there is no problem")
    counts = Counter(problem.id for problem in problems)
    if repeated := [id for id, count in counts.items() if count > 1]:
        raise UserError(f"{len(repeated)} ids are of several problems each: {repeated[0]!r:.80}")


async def evaluate_each(
    attempts: Attempts,
    problems: Sequence[Problem],
    *,
    seed: int,
    done: Sequence[ProblemResult] = (),
    on_result: Callable[[ProblemResult], None] = lambda result: None,
    on_attempts: OnAttempts = lambda attempts: None,
) -> Report:
    """Return the report on the same number of attempts at each problem; see `evaluate`."""
    check_evaluable(problems)
    known = {result.problem_id: result for result in done}

    async def result_of(number: int, problem: Problem) -> ProblemResult:
        if problem.id in known:
            return known[problem.id]
        played = await attempts(problem, derive_seed(seed, number))
        on_attempts(played)
        result = problem_result(played)
        on_result(result)
        return result

    return report_on_results(
        await gather(result_of(number, problem) for number, problem in enumerate(problems))
    )


def problem_result(attempts: Sequence[Graded]) -> ProblemResult:
    """Return the results of the attempts at one problem."""
    episodes = [attempt.episode for attempt in attempts]
    replies = [_replies(episode) for episode in episodes]
    return ProblemResult(
        problem_id=episodes[0].problem.id,
        correct=tuple(bool(attempt.correct) for attempt in attempts),
        answers=tuple(_answers(episodes)),
        response_tokens=tuple(attempt.num_policy_tokens for attempt in attempts),
        consulted=tuple(bool(episode.consultations) for episode in episodes),
        truncated=tuple(bool(e.stop_reason and e.stop_reason.truncated) for e in episodes),
        asked=tuple(len(heard) for heard in replies),
        unanswered=tuple(sum(isinstance(r, Unavailable) for r in heard) for heard in replies),
        turns=tuple(episode.turn for episode in episodes),
        malformed=tuple(episode.num_malformed for episode in episodes),
    )


def report_on_results(results: Sequence[ProblemResult]) -> Report:
    """Return the metrics of problems that have the same number of samples."""
    numbers = [result.numbers() for result in results]
    names = list(numbers[0])
    values_PM = np.array([[row[name] for name in names] for row in numbers])
    mean = dict(zip(names, values_PM.mean(axis=0).tolist(), strict=True))
    resampled_RM = resampled_means(values_PM, np.random.default_rng(0), NUM_RESAMPLES)
    bounds = np.quantile(resampled_RM, [0.025, 0.975], axis=0).T.tolist()
    intervals = {name: Interval(*bound) for name, bound in zip(names, bounds, strict=True)}
    k = len(results[0].correct)
    return Report(
        samples_per_problem=k,
        num_problems=len(results),
        mean_at_k=mean["mean_at_k"],
        interval=intervals["mean_at_k"],
        variance=mean["variance"],
        pass_at_k=mean["pass_at_k"],
        majority_at_k=mean["majority_at_k"],
        call_rate=mean["call_rate"],
        response_tokens=mean["response_tokens"],
        truncation_rate=mean["truncation_rate"],
        correct_PK=tuple(result.correct for result in results),
        no_answer_rate=mean["no_answer_rate"],
        malformed_rate=mean["malformed_rate"],
        unanswered_rate=mean["unanswered_rate"],
        problem_ids=tuple(result.problem_id for result in results),
        pass_at={n: mean[f"pass_at_{n}"] for n in _powers(k)},
        intervals=intervals,
    )


def _powers(k: int) -> list[int]:
    """Return 1, 2, 4, ... up to k, and k itself."""
    return sorted({*(1 << n for n in range(k.bit_length())), k})


def _replies(episode: Episode) -> list[ExpertReply]:
    """Return the replies to the queries that the gate accepted."""
    return [
        reply
        for consultation in episode.consultations
        for reply in compress(consultation.replies, consultation.accepted)
    ]


def _answers(episodes: Sequence[Episode]) -> list[str | None]:
    """Return each episode's answer as it was written; None for episodes without one."""
    last = [episode.actions[-1:] for episode in episodes]
    return [
        action[0].text.strip() if action and isinstance(action[0], Answer) else None
        for action in last
    ]
